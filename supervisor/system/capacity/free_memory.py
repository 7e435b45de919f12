"""How much memory there is, and is left: of the machine, and of the control groups that this process is in."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from supervisor.system.process_memory import HAS_PROC, read


class _Version(NamedTuple):
    """How a version of control groups names things."""

    limit: str
    used: str
    files: tuple[bytes, bytes]  # lines of memory.stat: pages that are given up for others


_V1 = _Version(
    "memory.limit_in_bytes", "memory.usage_in_bytes", (b"total_inactive_file ", b"total_active_file ")
)
_V2 = _Version("memory.max", "memory.current", (b"inactive_file ", b"active_file "))


class FreeMemory:
    """`root`: of the control groups."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup")) -> None:
        self._groups = _groups(root) if HAS_PROC else []

    def available(self) -> int | None:
        """What can be had without swapping: of the machine, or of our control groups if they
        allow less. None if nobody knows."""
        known = [room for group in self._groups if (room := _room_in(*group)) is not None]
        free, _ = machine_memory()
        if free is not None:
            known.append(free)
        return min(known, default=None)


def machine_memory() -> tuple[int | None, int | None]:
    """Bytes of memory that processes could still get, and bytes in all; None if unknown."""
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
    """Our control groups and those above them, as far as they limit memory."""
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
    """The limit less what is used, file pages not counted: they are given up for others."""
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
    """What a file of a control group says; None for "max"."""
    text = read(str(path)).strip()
    return int(text) if text.isdigit() else None
