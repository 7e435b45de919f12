"""How many cores this process may use, and how many BLAS threads each worker gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from workers.isolation.thread_caps import THREAD_VARIABLES


def usable_cores(environment: Mapping[str, str] = os.environ) -> int:
    """The smallest of CPU affinity, cgroup quota and what Slurm has given (SLURM_CPUS_PER_TASK, and SLURM_CPUS_ON_NODE,
    which is there without --cpus-per-task too); at least 1."""
    limits = [_affinity()]
    quota = _cgroup_quota()
    if quota is not None:
        limits.append(max(1, int(quota)))
    # Not every cluster confines a job to its cores: without these, one of 4 cores would use all 64 of a shared node.
    given = (environment.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"))
    limits.extend(int(cores) for cores in given if cores.isdecimal() and int(cores) > 0)
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


def narrowest_group(
    root: Path = Path("/sys/fs/cgroup"), self_file: Path = Path("/proc/self/cgroup")
) -> Path | None:
    """The control group of this process, or the one above it, that is given the fewest cores; None if all may use all
    of them."""
    quotas = _cgroup_quotas(root, self_file)
    return min(quotas)[1] if quotas else None


def _cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), self_file: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Cores by the CPU bandwidth limits of this process's cgroup and those above it."""
    return min((cores for cores, _ in _cgroup_quotas(root, self_file)), default=None)


def _cgroup_quotas(root: Path, self_file: Path) -> list[tuple[float, Path]]:
    """(cores, the group that is given so many)."""
    try:
        lines = self_file.read_text().splitlines()
    except OSError:
        return []
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas.extend(_quotas_v2(root, path))
        elif "cpu" in controllers.split(","):
            quotas.extend(_quotas_v1(root / "cpu", path))
    return quotas


def _levels(root: Path, path: str) -> list[Path]:
    relative = Path(path.lstrip("/"))
    return [root / part for part in (relative, *relative.parents)]


def _quotas_v2(root: Path, path: str) -> list[tuple[float, Path]]:
    quotas = []
    for folder in _levels(root, path):
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            quotas.append((int(words[0]) / int(words[1]), folder))
    return quotas


def _quotas_v1(root: Path, path: str) -> list[tuple[float, Path]]:
    quotas = []
    for folder in _levels(root, path):
        quota, period = (
            _read(folder / "cpu.cfs_quota_us").strip(),
            _read(folder / "cpu.cfs_period_us").strip(),
        )
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append((int(quota) / int(period), folder))
    return quotas


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
