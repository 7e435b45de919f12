"""Separates the peak memory of a job from that of earlier jobs in the same worker.

The kernel keeps one high-water mark for each process and reports it at the death of the process. Between two
jobs it is reset to the present memory, if it is clearly higher. Some of it cannot be reset: the mark of children
that were waited for, and all of it without Linux's /proc. That part is reported to the supervisor: if a dead
worker has no higher peak, it may come from an earlier job.

Linux also counts what the process held before it executed its program. After vfork, which `subprocess` uses,
that is the memory of the parent. `getrusage` and `wait4` always include it, and clear_refs does not reset it;
VmHWM in /proc does not include it. Forked workers of the zygote have none of it.
"""

from __future__ import annotations

import os
import resource
import sys

from workers.transport.messages import Peak

CHECK_EVERY = 0.005  # seconds, at least
_CLEARLY = 8 << 20  # bytes above what is held, or was held at first
_TOLD = 1.07  # growth since the last report that causes another one
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Peaks:
    """Since when the kernel tells of the high-water mark, and how high earlier jobs had it."""

    def __init__(self) -> None:
        self._checked_at = 0.0
        self._can_set_back = _set_back()
        self._first = _mark(resource.RUSAGE_SELF)
        own = _own_mark()
        self._inherited = self._first if own and self._first > own + _CLEARLY else 0
        if self._inherited:
            self._first = own
        self._held = 0
        self._told = self._children = 0 if self._can_set_back else self._first

    def begin(self) -> Peak | None:
        """Before the first job; what the supervisor has to know, if there is anything."""
        if not self._inherited:
            return None
        self._held = _own_mark()
        return Peak(0, self._told, self._inherited, self._held)

    def check(self, now: float) -> Peak | None:
        """Between two jobs; what the supervisor has to know, if there is anything."""
        if now - self._checked_at < CHECK_EVERY:
            return None
        self._checked_at = now
        mark = _own_mark() if self._inherited else _mark(resource.RUSAGE_SELF)
        children = _mark(resource.RUSAGE_CHILDREN)
        seen = 0
        if mark > self._first + _CLEARLY:
            if not self._can_set_back:
                children = max(children, mark)
            elif mark > _held() + _CLEARLY and _set_back():
                seen = mark
                mark = _own_mark() if self._inherited else mark
        held = mark if self._inherited else 0
        if seen or children > self._told * _TOLD or held > self._held * _TOLD:
            self._told, self._held = max(self._told, children), held
            return Peak(seen, self._told, self._inherited, held)
        return None


def _mark(whose: int) -> int:
    return int(resource.getrusage(whose)[2]) * _UNIT


def _own_mark() -> int:
    """The most that this program has held, in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", "rb", buffering=0) as file:
            status = file.read(1 << 14)
    except OSError:
        return 0
    return own_mark(status)


def own_mark(status: bytes) -> int:
    """VmHWM of a /proc/<pid>/status, in bytes; 0 if it is not there, as of a process that has ended."""
    _, found, rest = status.partition(b"\nVmHWM:")
    return int(rest.split(None, 1)[0]) * 1024 if found else 0


def _held() -> int:
    """Bytes in memory now."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return sys.maxsize
    try:
        return int(os.read(descriptor, 256).split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return sys.maxsize
    finally:
        os.close(descriptor)


def _set_back() -> bool:
    """Let the mark be what is held now; whether the system does that."""
    try:
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, b"5")
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
