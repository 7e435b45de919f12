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
    """The high-water mark that the kernel reports, and the part of it that earlier jobs may have caused."""

    def __init__(self) -> None:
        self._checked_at = 0.0
        self._can_reset = _reset_mark()
        self._first = _mark(resource.RUSAGE_SELF)
        own = _own_mark()
        self._inherited = self._first if own and self._first > own + _CLEARLY else 0
        if self._inherited:
            self._first = own
        self._told_own = 0
        self._told = 0 if self._can_reset else self._first

    def begin(self) -> Peak | None:
        """Before the first job: a report for the supervisor, if one is needed."""
        if not self._inherited:
            return None
        self._told_own = _own_mark()
        return Peak(0, self._told, self._inherited, self._told_own)

    def check(self, now: float) -> Peak | None:
        """Between two jobs: a report for the supervisor, if one is needed."""
        if now - self._checked_at < CHECK_EVERY:
            return None
        self._checked_at = now
        mark = _own_mark() if self._inherited else _mark(resource.RUSAGE_SELF)
        children = _mark(resource.RUSAGE_CHILDREN)
        seen = 0
        if mark > self._first + _CLEARLY:
            if not self._can_reset:
                children = max(children, mark)
            elif mark > _resident() + _CLEARLY and _reset_mark():
                seen = mark
                mark = _own_mark() if self._inherited else mark
        own = mark if self._inherited else 0
        if seen or children > self._told * _TOLD or own > self._told_own * _TOLD:
            self._told, self._told_own = max(self._told, children), own
            return Peak(seen, self._told, self._inherited, own)
        return None


def _mark(whose: int) -> int:
    return int(resource.getrusage(whose)[2]) * _UNIT


def _own_mark() -> int:
    """The peak memory of this program, in bytes; 0 if the system does not tell."""
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


def _resident() -> int:
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


def _reset_mark() -> bool:
    """Reset the mark to the present memory; whether the system can do that."""
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
