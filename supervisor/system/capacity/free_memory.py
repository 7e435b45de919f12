"""Memory: in all, and available; of the machine, and of the control groups that this process belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from supervisor.system.process_memory import HAS_PROC, read


class _Version(NamedTuple):
    """File names of one version of control groups."""

    limit: str
    used: str
    files: tuple[bytes, bytes]  # lines of memory.stat: file pages, which the kernel drops on demand


_V1 = _Version(
    "memory.limit_in_bytes", "memory.usage_in_bytes", (b"total_inactive_file ", b"total_active_file ")
)
_V2 = _Version("memory.max", "memory.current", (b"inactive_file ", b"active_file "))


class FreeMemory:
    """`root`: where the control groups are mounted."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup")) -> None:
        self._groups = _groups(root) if HAS_PROC else []

    def available(self) -> int | None:
        """Bytes that can be allocated without swapping: the machine's, or what the control groups allow if
        that is less. None if unknown."""
        known = [room for group in self._groups if (room := _room_in(*group)) is not None]
        free, _ = machine_memory()
        if free is not None:
            known.append(free)
        return min(known, default=None)


def machine_memory() -> tuple[int | None, int | None]:
    """Available and total memory of the machine, in bytes; None if unknown."""
    if not HAS_PROC:
        import psutil

        try:
            memory = psutil.virtual_memory()
        except OSError:  # too many open files
            return None, None
        return int(memory.available), int(memory.total)
    found: dict[bytes, int] = {}
    for line in read("/proc/meminfo").splitlines():
        name, _, amount = line.partition(b":")
        if name in (b"MemTotal", b"MemAvailable"):
            found[name] = int(amount.split()[0]) * 1024
    return found.get(b"MemAvailable"), found.get(b"MemTotal")


def usable_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process and what it starts may take in all: what the machine has, or the least that our
    control groups and those above them allow. None if nobody knows."""
    groups = _groups(root) if HAS_PROC else []
    limits = [_number(group / version.limit) for group, version in groups]
    _, total = machine_memory()
    return min((limit for limit in (*limits, total) if limit is not None), default=None)


def _groups(root: Path) -> list[tuple[Path, _Version]]:
    """The control groups of this process and their parents, if they limit memory."""
    found = []
    for line in read("/proc/self/cgroup").decode(errors="surrogateescape").splitlines():
        _, controllers, path = line.split(":", 2)
        relative = Path(path.lstrip("/"))
        places = (relative, *relative.parents)
        if not controllers:
            found += [(root / place, _V2) for place in places]
        elif "memory" in controllers.split(","):
            found += [(root / "memory" / place, _V1) for place in places]
    return [(group, version) for group, version in found if _number(group / version.limit) is not None]


def _room_in(group: Path, version: _Version) -> int | None:
    """Bytes below the limit. File pages do not count as used: the kernel drops them when memory is needed."""
    limit, used = _number(group / version.limit), _number(group / version.used)
    if limit is None or used is None:
        return None
    files = sum(
        int(line.split()[1])
        for line in read(str(group / "memory.stat")).splitlines()
        if line.startswith(version.files)
    )
    return max(0, limit - used + files)


def _number(path: Path) -> int | None:
    """The number in a file of a control group; None for "max"."""
    text = read(str(path)).strip()
    return int(text) if text.isdigit() else None
