"""Which signal handlers a worker has, and which its children get.

A job and what it forks see the handlers that the script had left when it was imported. The worker
adds its own only where the script has none. The supervisor asks a worker to stop by signals of its
own (`private_signal`), so that SIGINT in a worker is what it is in any script: a KeyboardInterrupt.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
from collections.abc import Collection
from types import CodeType, FrameType
from typing import Any, ClassVar, NamedTuple

from workers.job.current_job import CURRENT
from workers.process import descriptors

TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
DRAIN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Their default is to end the process; a worker takes them for a wish to stop after this job.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_HIGHEST = getattr(signal, "SIGRTMAX", None)  # None: a system without such signals
_PRIVATE_SIGNAL: dict[int, int] = (
    {} if _HIGHEST is None else {int(number): int(_HIGHEST) - 1 - i for i, number in enumerate(DRAIN_SIGNALS)}
)
_ORIGINAL_SIGNAL = {private_signal: number for number, private_signal in _PRIVATE_SIGNAL.items()}
# By which the supervisor asks for the stacks. Not SIGQUIT, for which a script may have a handler.
STACKS = int(signal.SIGQUIT if _HIGHEST is None else _HIGHEST - 1 - len(DRAIN_SIGNALS))


def private_signal(signum: int) -> int:
    """The signal by which the supervisor passes this one on to a worker."""
    return _PRIVATE_SIGNAL.get(signum, signum)


class ScriptHandlers(NamedTuple):
    """What the script has left in the process that imported it."""

    handlers: dict[int, Any]  # those that `suspend_handlers` has replaced
    mask: set[Any]
    wakeup: int
    intervals: tuple[tuple[int, float], ...] = ()  # timers that go off again and again, and their seconds
    caught: set[int] | None = None  # signals that had a handler, whoever has installed it, if known


def ignore_at_start(numbers: Collection[int]) -> dict[int, Any]:
    """The handlers that this process was started with; from here on the signals are ignored."""
    handlers = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)  # one that is pending is dropped, too
    return handlers


def restore_handlers(left: ScriptHandlers) -> None:
    """What the script had left is there again."""
    _Installed.caught = left.caught
    for number, handler in left.handlers.items():
        with contextlib.suppress(OSError, ValueError, TypeError):
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, left.mask)
    if left.wakeup >= 0:
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            signal.set_wakeup_fd(left.wakeup, warn_on_full_buffer=False)
    for timer, seconds in left.intervals:  # a fork inherits none
        signal.setitimer(timer, seconds, seconds)


def suspend_handlers(ignored: Collection[int]) -> ScriptHandlers:
    """Take note of what the script has left, and run none of it here: for a process that imports
    the script and has children to look after. `ignored`: signals that must not end it."""
    # One that goes off once is for the time of the script as a whole, and runs in its process alone.
    stopped = [(timer, signal.setitimer(timer, 0)[1]) for timer in TIMERS]
    intervals = tuple((int(timer), seconds) for timer, seconds in stopped if seconds)
    wakeup = signal.set_wakeup_fd(-1)
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, [])
    caught = _caught_signals()
    handlers = {}
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        # A handler of C code (faulthandler's, say) cannot be put back from Python: it stays.
        foreign = handler is None or (handler == signal.SIG_DFL and number in caught)
        if foreign or number in (signal.SIGKILL, signal.SIGSTOP):
            continue
        wanted = handler
        if number == signal.SIGCHLD:
            wanted = signal.SIG_DFL  # ignored, it would hide how workers end
        elif callable(handler) or number in ignored:
            wanted = signal.SIG_IGN
        if handler != wanted:
            handlers[int(number)] = handler
            signal.signal(number, wanted)
    return ScriptHandlers(handlers, mask, wakeup, intervals, caught)


def _caught_signals() -> set[int]:
    """Signals that have a handler, whoever has installed it."""
    try:
        with open("/proc/self/status", "rb") as file:
            line = next(line for line in file if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration):
        return set()
    bits = int(line.split()[1], 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


class _ToStderr:
    """Where faults are reported to: descriptor 2. An object of its own, by which `_reports_to` tells
    whether it was we who asked for that."""

    def fileno(self) -> int:
        return 2

    def flush(self) -> None:
        """Nothing is held back."""


_FAULTS = _ToStderr()


def _reports_to(place: _ToStderr) -> bool:
    """Whether faulthandler reports there: nobody has asked it for the same in our place."""
    return any(found is place for found in gc.get_referents(faulthandler))


class _StackFile(_ToStderr):
    """Where stacks go that the supervisor asks for: apart from what jobs print, and under a number of
    its own, whatever a job makes of descriptor 2."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self.open()

    def open(self) -> None:
        """Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = descriptors.claim(os.open(self._path, flags, 0o666), self._descriptor)
        self._file = descriptors.identity_of(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def is_open(self) -> bool:
        """Whether no job has closed it."""
        return descriptors.is_ours(self._descriptor, self._file)


class _Installed:
    """What the worker has installed in this process."""

    handlers: ClassVar[dict[int, Any]] = {}
    reports_faults = False
    dumps_stacks: ClassVar[dict[int, _ToStderr]] = {}  # by which signals it does
    files: ClassVar[list[Any]] = []  # of faulthandler, when the first job came
    mask_before_fork: set[Any] | None = None  # the mask before a fork
    caught: set[int] | None = None  # what the script has left, if that is known
    runs_jobs: CodeType | None = None


def install(stack_file: str, runs_jobs: CodeType | None = None) -> None:
    """The worker's own handlers, where the script has left none. `stack_file`: where stacks go that
    the supervisor asks for. `runs_jobs`: the function that calls the user's."""
    _Installed.runs_jobs = runs_jobs
    caught = _Installed.caught if _Installed.caught is not None else _caught_signals()
    for number in _STOP_SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL and number not in caught:
            _Installed.handlers[int(number)] = _note_drain
    for asked in _ORIGINAL_SIGNAL:
        if signal.getsignal(asked) == signal.SIG_DFL:
            _Installed.handlers[asked] = _on_private_signal
    for own, handler in _Installed.handlers.items():
        signal.signal(own, handler)
        signal.siginterrupt(own, False)
    _Installed.reports_faults = not faulthandler.is_enabled()
    _Installed.dumps_stacks = {
        number: _stack_file(stack_file) if number == STACKS else _ToStderr()
        for number in dict.fromkeys((int(signal.SIGQUIT), STACKS))
        if not callable(signal.getsignal(number)) and number not in caught
    }
    enable_crash_dumps()


def _stack_file(path: str) -> _ToStderr:
    try:
        return _StackFile(path)
    except OSError:  # the disk refuses
        return _ToStderr()


def keep_faulthandler_setup() -> None:
    """What the script and `setup()` have made of faulthandler by now is for all jobs."""
    _Installed.reports_faults = _Installed.reports_faults and _reports_to(_FAULTS)
    _Installed.dumps_stacks = {
        number: place for number, place in _Installed.dumps_stacks.items() if _reports_to(place)
    }
    _Installed.files = gc.get_referents(faulthandler)


def enable_crash_dumps() -> None:
    """A crash leaves a traceback where descriptor 2 leads, the log of the job, and so does SIGQUIT,
    unless the script has seen to that; stacks that the supervisor asks for have a file of their own.
    Repeated, it puts back what a job has made of it, without a call of the system; a fraction of a
    microsecond if that is nothing."""
    if _Installed.files and gc.get_referents(faulthandler) == _Installed.files:
        return
    if _Installed.reports_faults:
        faulthandler.enable(file=_FAULTS)
    for number, place in _Installed.dumps_stacks.items():
        faulthandler.register(number, file=place, all_threads=True, chain=False)


def reopen_stack_file() -> None:
    """If a job has closed it."""
    place = _Installed.dumps_stacks.get(STACKS)
    if isinstance(place, _StackFile) and not place.is_open():
        with contextlib.suppress(OSError):
            place.open()
            faulthandler.register(STACKS, file=place, all_threads=True, chain=False)


def restore_in_children() -> None:
    """From here on a child of a worker gets the handlers that the script had left. To be called
    before any code of the user can ask for the same."""
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )


def _before_fork() -> None:
    # A signal that reached the child before it has its own handlers would be lost: `terminate`
    # comes right after `start`.
    if _Installed.handlers:
        _Installed.mask_before_fork = signal.pthread_sigmask(signal.SIG_BLOCK, list(_Installed.handlers))


def _after_fork_in_parent() -> None:
    mask, _Installed.mask_before_fork = _Installed.mask_before_fork, None
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    try:
        _remove_own_handlers()
    finally:
        _after_fork_in_parent()


def _remove_own_handlers() -> None:
    """Whatever a job has installed in the place of ours stays."""
    handlers, _Installed.handlers = _Installed.handlers, {}
    for number, handler in handlers.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, signal.SIG_DFL)
    if _Installed.reports_faults and _reports_to(_FAULTS):
        faulthandler.disable()
    for number, place in _Installed.dumps_stacks.items():
        if not _reports_to(place):
            continue
        others = signal.getsignal(number)
        faulthandler.unregister(number)
        if others != signal.SIG_DFL:
            signal.signal(number, others)
    _Installed.reports_faults, _Installed.dumps_stacks, _Installed.files = False, {}, []


def _note_drain(signum: int, frame: FrameType | None) -> None:
    CURRENT.stopping = True


def _on_private_signal(signum: int, frame: FrameType | None) -> None:
    """The supervisor passes a signal on: to whatever handler the job or the script has for it."""
    number = _ORIGINAL_SIGNAL[signum]
    handler = signal.getsignal(number)
    if callable(handler) and handler not in (_note_drain, signal.default_int_handler):
        if _in_a_job(frame):
            signal.raise_signal(number)
            return
    elif handler == signal.SIG_DFL and number != signal.SIGINT and _in_a_job(frame):
        signal.raise_signal(number)  # the job has asked for this
    CURRENT.stopping = True


def _in_a_job(frame: FrameType | None) -> bool:
    """Whether code of the user is running: an exception must not end ours."""
    inner = None
    while frame is not None:
        if frame.f_code is _Installed.runs_jobs:
            return inner is not None and not str(inner.f_globals.get("__name__")).startswith("workers.")
        inner, frame = frame, frame.f_back
    return False
