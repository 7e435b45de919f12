"""The state of the process that a job may have changed, restored for the next job.

This module restores what the system keeps for a process: working directory, umask, signal handlers and mask,
timers, limits, niceness, CPU affinity. `workers.isolation.interpreter_state` restores what Python keeps. Some
changes cannot be undone (a hard limit, another user, many open descriptors): then the worker is replaced.

Nothing reports a change, so each check reads all values. It runs after every job of a millisecond, and
microseconds count: values are read by C functions and compared as lists. Only after a difference are they
compared one by one.
"""

from __future__ import annotations

# The module beneath `signal`, which turns numbers into enums at ten times the cost.
import _signal  # type: ignore[import-not-found, unused-ignore]
import contextlib
import contextvars
import faulthandler
import os
import resource
import signal
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import call, itemgetter
from typing import Any

from workers.isolation.interpreter_state import PythonState
from workers.isolation.signal_handlers import (
    STACKS,
    enable_crash_dumps,
    faulthandler_probe,
    reopen_stack_file,
    stack_files,
)
from workers.process.descriptors import FileIdentity, Probe

# Depths of `ProcessState.unchanged`; each one includes those before it.
QUICK, FULL, THOROUGH = 1, 2, 3

# Limits that programs change; the first two more often than the others.
_NAMES = ("AS", "NOFILE", "CPU", "DATA", "FSIZE", "NPROC", "STACK")
_LIMITS = [getattr(resource, "RLIMIT_" + name) for name in _NAMES if hasattr(resource, "RLIMIT_" + name)]
_FIRST_LIMITS = _LIMITS[:2]
_OTHER_LIMITS = sorted(
    {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")} - set(_LIMITS)
)
# Real-time signals begin here. They are half of all signals, and reading their handlers costs as much as the
# rest of a check. They are restored less often.
_REAL_TIME = 34
_RAREST_EVERY = 20  # calls of `restore_thoroughly`
_UNTOUCHABLE = {signal.SIGKILL, signal.SIGSTOP}
# Computed once: enums are slow, and a replacement worker should start fast.
_NUMBERS = sorted(int(number) for number in signal.valid_signals() if number not in _UNTOUCHABLE)
_SIGNALS = [number for number in _NUMBERS if number < _REAL_TIME]
_REAL_TIME_SIGNALS = _NUMBERS[len(_SIGNALS) :]
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_identity = itemgetter(1, 2)  # of what `os.fstat` returns, as `identity_of`


class ProcessState:
    """The state of this process before any job ran."""

    def __init__(self) -> None:
        self._python = PythonState()
        # Returns a copy of the initial context variables, to run jobs in.
        self.fresh_context: Callable[[], contextvars.Context] = self._python.context.copy
        self._directory = _working_directory()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._blocked = _signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self._wakeup = _signal.set_wakeup_fd(-1)
        if self._wakeup >= 0:
            signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._signals, self._real_time_signals = _SIGNALS, _REAL_TIME_SIGNALS
        self._handlers = list(map(_signal.getsignal, self._signals))
        self._real_time_handlers = list(map(_signal.getsignal, self._real_time_signals))
        self._thorough_restores = 0
        # A timer that runs already was started by `setup()`, and stays.
        self._timers = [timer for timer in _TIMERS if signal.getitimer(timer) == (0.0, 0.0)]
        self._limits = list(map(resource.getrlimit, _LIMITS))
        self._other_limits = list(map(resource.getrlimit, _OTHER_LIMITS))
        # What each check reads. Some of these calls also restore the value.
        self._probes: list[Callable[[], Any]] = [
            partial(_signal.pthread_sigmask, signal.SIG_BLOCK, ()),
            *(partial(resource.getrlimit, limit) for limit in _FIRST_LIMITS),
            partial(os.umask, self._umask),
        ]
        if self._wakeup < 0:  # else a byte would be written to whatever file has that number
            self._probes.append(partial(_signal.set_wakeup_fd, -1))
        self._quick_from = len(self._probes)
        if self._directory is not None:
            self._probes.append(os.getcwd)
        self._expected = [read() for read in self._probes]
        self._user = os.geteuid(), os.getegid()
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        self._processors = _processors()
        self.set_probes()
        # A new descriptor has the lowest free number, which tells how many are open.
        os.close(lowest := os.dup(1))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # If this number is in use, half of the free descriptors are used up. -1: no limit.
        self.crowding_descriptor = limit if limit < 0 else lowest + (limit - lowest + 1) // 2

    def environment_of_jobs(self) -> dict[str, str]:
        """The variables that each job begins with."""
        return self._python.environment_of_jobs()

    def change_environment(self, values: Mapping[str, str | None]) -> None:
        """Let jobs begin with these variables from now on, beside the others; None: without it."""
        self._python.change_environment(values)

    def set_probes(
        self,
        quick: Iterable[Probe] = (),
        full: Iterable[Probe] = (),
        thorough: Iterable[Probe] = (),
        files: Mapping[int, FileIdentity] | None = None,
    ) -> None:
        """Add probes to `unchanged`, by its depth. `files`: descriptors whose files a thorough check compares."""
        own = list(zip(self._probes, self._expected, strict=True))
        quick = [*quick, (faulthandler.cancel_dump_traceback_later, None), *own[self._quick_from :]]
        if signal.ITIMER_REAL in self._timers:
            quick.append((partial(_signal.alarm, 0), 0))  # stops that timer; costs less than `setitimer`
        self._quick, self._quick_values = _split(quick)
        self._full_probes = _split([*full, *own[: self._quick_from]])
        self._thorough_probes = _split([*thorough, *self._thorough()])
        files = {**(files or {}), **stack_files()}
        self._files, self._identities = list(files), list(files.values())

    def _thorough(self) -> list[Probe]:
        """What `restore_thoroughly` checks besides the state of Python, and `stop_timers` besides the alarm."""
        probes: list[Probe] = [faulthandler_probe(), (os.geteuid, self._user[0]), (os.getegid, self._user[1])]
        probes.append((partial(os.getpriority, os.PRIO_PROCESS, 0), self._niceness))
        if self._processors is not None:
            probes.append((partial(os.sched_getaffinity, 0), self._processors))
        probes += [
            (partial(_signal.setitimer, timer, 0), (0.0, 0.0))
            for timer in self._timers
            if timer != signal.ITIMER_REAL
        ]
        others = list(zip(_LIMITS, self._limits, strict=True))[len(_FIRST_LIMITS) :]
        return probes + [(partial(resource.getrlimit, limit), values) for limit, values in others]

    def unchanged(self, depth: int) -> bool:
        """Whether a job has left the state that jobs change most as it was (QUICK), also signal mask, limits,
        umask and descriptor 0 (FULL), also everything but the state of Python (THOROUGH). Some probes restore
        their value as well."""
        try:
            return (
                list(map(call, self._quick)) == self._quick_values
                and list(map(_signal.getsignal, self._signals)) == self._handlers
                and not (depth >= FULL and list(map(call, self._full_probes[0])) != self._full_probes[1])
                and not (depth == THOROUGH and self._has_changed_thoroughly())
            )
        except Exception:  # a deleted directory, a closed descriptor or stream
            return False

    def _has_changed_thoroughly(self) -> bool:
        return (
            list(map(call, self._thorough_probes[0])) != self._thorough_probes[1]
            or list(map(_identity, map(os.fstat, self._files))) != self._identities
        )

    def stop_timers(self) -> None:
        """Stop timers, faulthandler's included, before they fire in a later job. Takes a microsecond."""
        faulthandler.cancel_dump_traceback_later()
        for timer in self._timers:
            _signal.setitimer(timer, 0)

    def restore(self) -> bool:
        """Restore what the quick and the full probes check, except timers (`stop_timers`). Takes some
        microseconds if nothing has changed. False if a limit cannot be restored."""
        try:
            if (
                list(map(call, self._probes)) == self._expected
                and list(map(_signal.getsignal, self._signals)) == self._handlers
            ):
                return True
        except OSError:  # the working directory was deleted
            pass
        self._restore_signals()
        os.umask(self._umask)
        if self._directory is not None and _working_directory() != self._directory:
            with contextlib.suppress(OSError):  # it was deleted
                os.chdir(self._directory)
        return _restore_limits(_LIMITS, self._limits)

    def restore_thoroughly(self, *, verified: bool = False) -> bool:
        """Restore everything else; costs twice as much as `restore`. False if limit, user or niceness cannot
        be restored. `verified`: `unchanged` has just found all that the system keeps as it was."""
        self._python.restore()
        self._thorough_restores += 1
        if self._thorough_restores % _RAREST_EVERY == 0:
            self._restore_rarest()
        if verified:
            return True
        enable_crash_dumps()
        reopen_stack_file()
        if self._processors is not None and os.sched_getaffinity(0) != self._processors:
            with contextlib.suppress(OSError):  # taken away from the whole cgroup
                os.sched_setaffinity(0, self._processors)
        restored = list(map(resource.getrlimit, _LIMITS)) == self._limits or _restore_limits(
            _LIMITS, self._limits
        )
        if os.getpriority(os.PRIO_PROCESS, 0) != self._niceness:
            with contextlib.suppress(OSError):  # raising the priority needs a privilege
                os.setpriority(os.PRIO_PROCESS, 0, self._niceness)
            restored = restored and os.getpriority(os.PRIO_PROCESS, 0) == self._niceness
        return restored and os.geteuid() == self._user[0] and os.getegid() == self._user[1]

    def _restore_rarest(self) -> None:
        """Restore what is hardly ever changed and expensive to read."""
        _restore_handlers(self._real_time_signals, self._real_time_handlers)
        if list(map(resource.getrlimit, _OTHER_LIMITS)) != self._other_limits:
            _restore_limits(_OTHER_LIMITS, self._other_limits)
        self._python.restore_rarest()

    def _restore_signals(self) -> None:
        if self._wakeup < 0:  # else a byte would be written to whatever file has that number
            _signal.set_wakeup_fd(-1)
        if list(map(_signal.getsignal, self._signals)) != self._handlers:
            _restore_handlers(self._signals, self._handlers)
        blocked = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        if blocked != self._blocked:
            self._discard_pending(blocked - self._blocked)
            _signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)

    def _discard_pending(self, blocked: set[int]) -> None:
        """Drop pending signals that a job has blocked, if their default action would now end this process."""
        for number in blocked & set(map(int, signal.sigpending())):
            if _signal.getsignal(number) == signal.SIG_DFL:
                signal.sigwait([number])


def _split(probes: list[Probe]) -> tuple[list[Callable[[], Any]], list[Any]]:
    return [read for read, _ in probes], [value for _, value in probes]


def _restore_handlers(numbers: list[int], handlers: list[Any]) -> None:
    for number, handler in zip(numbers, handlers, strict=True):
        # None: installed by C code, unknown to Python.
        if handler is None or _signal.getsignal(number) is handler:
            continue
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, handler)
            signal.siginterrupt(number, False)
            # A handler of faulthandler looks like SIG_DFL to Python.
            if number in (signal.SIGQUIT, STACKS) and handler == signal.SIG_DFL:
                faulthandler.unregister(number)  # else it would not notice that it was replaced
                enable_crash_dumps()


def _restore_limits(limits: list[int], before: list[tuple[int, int]]) -> bool:
    restored = [
        resource.getrlimit(limit) == values or _restore_limit(limit, values)
        for limit, values in zip(limits, before, strict=True)
    ]
    return all(restored)


def _restore_limit(limit: int, values: tuple[int, int]) -> bool:
    """Whether the soft limit, the effective one, could be restored."""
    for hard in (values[1], resource.getrlimit(limit)[1]):  # raising the hard limit needs a privilege
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (values[0], hard))
            return True
    return False


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _processors() -> set[int] | None:
    """CPUs that this process may use; None where the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
