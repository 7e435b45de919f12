"""What a job may have changed around itself, put back for the next job of this process.

Working directory, umask, signal handlers and mask, a pending alarm, limits. A limit that
was lowered for good, another user, or descriptors left open until few are free spoil the
process: another worker has to take its place.
"""

from __future__ import annotations

# The module beneath `signal`, which turns numbers into enums at ten times the cost.
import _signal  # type: ignore[import-not-found, unused-ignore]
import contextlib
import os
import resource
import signal
from typing import Any

_NAMES = ("AS", "CORE", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK")
_LIMITS = tuple(getattr(resource, "RLIMIT_" + name) for name in _NAMES if hasattr(resource, "RLIMIT_" + name))
# From here on signals have no meaning but what a program gives them; half of all signals, and a
# look at each costs a job of a millisecond as much as the rest of it. They are put back later.
_REAL_TIME = 34
_RARELY = 20  # looks
# SIGQUIT is faulthandler's: Python does not see its handler and could not put it back.
_UNTOUCHABLE = {signal.SIGKILL, signal.SIGSTOP, signal.SIGQUIT}


class Surroundings:
    """The state of this process before any job ran."""

    def __init__(self) -> None:
        self._directory = _working_directory()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._blocked = _signal.pthread_sigmask(signal.SIG_BLOCK, [])
        numbers = sorted(int(n) for n in signal.Signals if n not in _UNTOUCHABLE)
        handlers = [(n, _signal.getsignal(n)) for n in numbers]
        common = [entry for entry in handlers if entry[0] < _REAL_TIME]
        self._handlers: list[tuple[int, Any]] = common
        self._rare_handlers: list[tuple[int, Any]] = handlers[len(common) :]
        self._looks = 0
        self._limits = [(limit, resource.getrlimit(limit)) for limit in _LIMITS]
        self._user = os.geteuid(), os.getegid()
        # The next descriptor has the lowest free number, which tells how many are open.
        os.close(lowest := os.dup(1))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # A descriptor with this number: half of those that there were are in use. -1: no limit.
        self.too_many = limit if limit < 0 else lowest + (limit - lowest + 1) // 2

    def restore(self) -> bool:
        """Put back what has changed; some microseconds if nothing has. False if that cannot be
        done: a limit, another user."""
        os.umask(self._umask)
        if self._directory is not None and _working_directory() != self._directory:
            with contextlib.suppress(OSError):  # it was deleted
                os.chdir(self._directory)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
        self._restore_handlers(self._handlers)
        self._looks += 1
        if self._looks % _RARELY == 0:
            self._restore_handlers(self._rare_handlers)
        restored = all(
            resource.getrlimit(limit) == values or _restore_limit(limit, values)
            for limit, values in self._limits
        )
        return restored and (os.geteuid(), os.getegid()) == self._user

    def _restore_handlers(self, handlers: list[tuple[int, Any]]) -> None:
        getsignal = _signal.getsignal
        for number, handler in handlers:
            if getsignal(number) is not handler:
                self._restore_handler(number, handler)

    @staticmethod
    def _restore_handler(number: int, handler: Any) -> None:
        if handler is None:  # installed by C code, unknown to Python
            return
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, handler)
            signal.siginterrupt(number, False)


def _restore_limit(limit: int, values: tuple[int, int]) -> bool:
    """Whether the soft limit, which is the one that counts, is what it was."""
    for hard in (values[1], resource.getrlimit(limit)[1]):  # raising it is for the privileged
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (values[0], hard))
            return True
    return False


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None
