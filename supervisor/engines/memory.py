"""How much memory the workers hold, and how much is left: read often, so it must cost little.

Measured is RSS, which is one small file per process. RSS counts pages that forked workers
share with each other (a large array of the script's top level) in each of them; so before a
worker counts as over the limit, its processes' PSS is asked for, in which a page shared by
six counts a sixth. That is dear, and asked again only when RSS has grown by what was left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from supervisor.engines.processes import process_table, trees

_PAGE = os.sysconf("SC_PAGE_SIZE")
_HAS_PROC = sys.platform.startswith("linux")
HAS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


class MemoryMeter:
    """`root`: of the control groups."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup")) -> None:
        self._known: dict[int, tuple[int, int]] = {}  # key -> RSS and PSS when PSS was read
        self._groups = _groups(root) if _HAS_PROC else []

    def used(self, pids: Mapping[int, int], limit: int | None) -> dict[int, int]:
        """Bytes by key, for the process trees under `pids`."""
        if not _HAS_PROC or not HAS_CHILDREN:
            return self._used_by_table(pids)
        found = {}
        for key, pid in pids.items():
            family = family_of(pid)
            found[key] = sum(map(_rss, family))
            if limit is not None and found[key] > limit:
                found[key] = self._shared_out(key, family, found[key], limit)
        self._known = {key: known for key, known in self._known.items() if key in found}
        return found

    def _used_by_table(self, pids: Mapping[int, int]) -> dict[int, int]:
        try:
            table = process_table() if pids else {}
        except OSError:
            return {}
        families = trees(table, pids.values())
        return {key: sum(table[member].rss_bytes for member in families[pid]) for key, pid in pids.items()}

    def _shared_out(self, key: int, family: list[int], rss: int, limit: int) -> int:
        """PSS in place of RSS; from the last reading, if it cannot have reached the limit."""
        if key in self._known:
            rss_then, pss_then = self._known[key]
            if pss_then + max(0, rss - rss_then) <= limit:
                return pss_then + max(0, rss - rss_then)
        pss = sum(map(_pss, family))
        self._known[key] = (rss, pss)
        return pss

    def available(self) -> int | None:
        """What can be had without swapping: of the machine, or of our control groups if they
        allow less. None if nobody knows."""
        known = [room for group in self._groups if (room := _room_in(group)) is not None]
        free, _ = machine_memory()
        if free is not None:
            known.append(free)
        return min(known, default=None)


def family_of(pid: int) -> list[int]:
    """A process and all below it, by the lists of children that the kernel keeps."""
    family = [pid]
    for member in family:
        try:
            for task in os.listdir(f"/proc/{member}/task"):
                family += map(int, _read(f"/proc/{member}/task/{task}/children").split())
        except OSError:  # it has just ended
            continue
    return family


def _rss(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def _pss(pid: int) -> int:
    """PSS and what is swapped out; RSS if the kernel does not tell."""
    total = None
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith((b"Pss:", b"SwapPss:")):
            total = (total or 0) + int(line.split()[1]) * 1024
    return _rss(pid) if total is None else total


def machine_memory() -> tuple[int | None, int | None]:
    """Bytes of memory that processes could still get, and bytes in all; None if unknown."""
    if not _HAS_PROC:
        import psutil

        try:
            memory = psutil.virtual_memory()
        except OSError:  # too many open files
            return None, None
        return int(memory.available), int(memory.total)
    found: dict[bytes, int] = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, amount = line.partition(b":")
        if name in (b"MemTotal", b"MemAvailable"):
            found[name] = int(amount.split()[0]) * 1024
    return found.get(b"MemAvailable"), found.get(b"MemTotal")


def _groups(root: Path) -> list[Path]:
    """Our control group (version 2) and those above it, as far as they limit memory."""
    found = []
    for line in _read("/proc/self/cgroup").decode().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            relative = Path(path.lstrip("/"))
            found += [root / part for part in (relative, *relative.parents)]
    return [group for group in found if _read(str(group / "memory.max")).strip().isdigit()]


def _room_in(group: Path) -> int | None:
    """The limit less what is used, file pages not counted: they are given up for others."""
    limit = _read(str(group / "memory.max")).strip()
    current = _read(str(group / "memory.current")).strip()
    if not limit.isdigit() or not current.isdigit():
        return None
    files = sum(
        int(line.split()[1])
        for line in _read(str(group / "memory.stat")).splitlines()
        if line.startswith((b"inactive_file ", b"active_file "))
    )
    return max(0, int(limit) - int(current) + files)


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
