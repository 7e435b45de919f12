"""How many cores this process may use, and how many BLAS threads each worker gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from workers.isolation.thread_caps import THREAD_VARIABLES


def usable_cores(environment: Mapping[str, str] = os.environ) -> int:
    """The smallest of CPU affinity, cgroup quota and SLURM_CPUS_PER_TASK; at least 1."""
    limits = [_affinity()]
    quota = _cgroup_quota()
    if quota is not None:
        limits.append(max(1, int(quota)))
    slurm = environment.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm) > 0:
        limits.append(int(slurm))
    return max(1, min(limits))


def shared_cores(workers: int, cores: int, auto: str = "--workers auto") -> str | None:
    """A notice if more workers run than there are cores; "" if not. That may be intended, for jobs that wait
    rather than compute. `auto`: the option that starts as many as there are cores."""
    if workers <= cores:
        return None
    on = "1 core" if cores == 1 else f"{cores} cores"
    return (
        f"{workers} workers on {on}: jobs that compute share them and take longer, so the times in the results "
        f"grow and a timeout comes sooner; {auto} starts {cores}"
    )


def thread_caps(workers: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables that keep each worker's BLAS and OpenMP to its share of the cores.

    Those that the user has set are left alone.
    """
    share = str(max(1, usable_cores(environment) // max(1, workers)))
    return {name: share for name in THREAD_VARIABLES if name not in environment}


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), self_file: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Cores by the CPU bandwidth limits of this process's cgroup and those above it."""
    try:
        lines = self_file.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas.extend(_quotas_v2(root, path))
        elif "cpu" in controllers.split(","):
            quotas.extend(_quotas_v1(root / "cpu", path))
    return min(quotas, default=None)


def _levels(root: Path, path: str) -> list[Path]:
    relative = Path(path.lstrip("/"))
    return [root / part for part in (relative, *relative.parents)]


def _quotas_v2(root: Path, path: str) -> list[float]:
    quotas = []
    for folder in _levels(root, path):
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            quotas.append(int(words[0]) / int(words[1]))
    return quotas


def _quotas_v1(root: Path, path: str) -> list[float]:
    quotas = []
    for folder in _levels(root, path):
        quota, period = (
            _read(folder / "cpu.cfs_quota_us").strip(),
            _read(folder / "cpu.cfs_period_us").strip(),
        )
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    return quotas


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
