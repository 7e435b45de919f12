"""How many cores may be used, by what the kernel and Slurm say."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.system.capacity import cpu_limits
from supervisor.system.capacity.cpu_limits import usable_cores


@pytest.mark.parametrize(
    ("given", "cores"),
    [
        ({}, 64),
        ({"SLURM_CPUS_PER_TASK": "4"}, 4),
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "16"}, 4),  # 4 tasks, of which this is one
        ({"SLURM_NTASKS": "16", "SLURM_CPUS_ON_NODE": "16"}, 16),  # --ntasks=16 alone
        ({"SLURM_CPUS_ON_NODE": "1"}, 1),  # nothing was asked for: one core
        ({"SLURM_CPUS_PER_TASK": "24", "SLURM_CPUS_ON_NODE": "1"}, 1),  # a step that srun gave one core
        ({"SLURM_CPUS_PER_TASK": "24(x2)", "SLURM_CPUS_ON_NODE": "\N{SUPERSCRIPT TWO}"}, 64),
        ({"SLURM_CPUS_PER_TASK": "", "SLURM_CPUS_ON_NODE": "0"}, 64),
        ({"SLURM_CPUS_PER_TASK": "128"}, 64),
    ],
)
def test_what_slurm_has_given_is_a_limit(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], cores: int
) -> None:
    """Not every cluster confines a job to its cores, and the first variable is there only with --cpus-per-task."""
    monkeypatch.setattr(cpu_limits, "_affinity", lambda: 64)
    monkeypatch.setattr(cpu_limits, "_cgroup_quota", lambda: None)
    assert usable_cores(given) == cores


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text + "\n")


def test_the_quota_is_that_of_the_group_or_of_one_above_it(tmp_path: Path) -> None:
    group(tmp_path / "user", cpu_max="150000 100000")
    group(tmp_path / "user" / "job", cpu_max="max 100000")
    (tmp_path / "self").write_text("0::/user/job\n")
    assert cpu_limits._cgroup_quota(tmp_path, tmp_path / "self") == 1.5
    assert cpu_limits.narrowest_group(tmp_path, tmp_path / "self") == tmp_path / "user"
    (tmp_path / "self").write_text("0::/\n")
    assert cpu_limits._cgroup_quota(tmp_path, tmp_path / "self") is None
    assert cpu_limits._cgroup_quota(tmp_path, tmp_path / "nothing") is None


def test_controllers_of_the_first_version_are_told_apart_by_their_whole_name(tmp_path: Path) -> None:
    """`cpuset` and `cpuacct` begin like `cpu`; a hierarchy of theirs has other groups."""
    for name, quota in (("docker/a", "50000"), ("elsewhere", "-1")):
        group(tmp_path / "cpu" / name, cpu_cfs_quota_us=quota, cpu_cfs_period_us="100000")
    lines = ["12:net_cls,cpuset:/elsewhere", "5:cpuacct:/elsewhere", "4:cpu,cpuacct:/docker/a", "0::/"]
    (tmp_path / "self").write_text("\n".join(lines))
    assert cpu_limits._cgroup_quota(tmp_path, tmp_path / "self") == 0.5
    (tmp_path / "self").write_text("\n".join(lines[:2]))
    assert cpu_limits._cgroup_quota(tmp_path, tmp_path / "self") is None


def test_less_than_a_core_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_limits, "_affinity", lambda: 64)
    monkeypatch.setattr(cpu_limits, "_cgroup_quota", lambda: 0.5)
    assert usable_cores({}) == 1
