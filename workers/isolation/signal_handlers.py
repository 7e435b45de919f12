"""The signal handlers of a worker, and those of the children that its jobs fork.

Jobs and their forks have the handlers that the script had set when it was imported. The worker adds its own only
where the script has none. The supervisor uses real-time signals to ask a worker to stop (`private_signal`), so
SIGINT in a worker means what it means in any script: a KeyboardInterrupt.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
from collections.abc import Collection
from functools import partial
from types import CodeType, FrameType
from typing import Any, ClassVar, NamedTuple

from workers.job.current_job import CURRENT
from workers.process import descriptors
from workers.process.descriptors import Probe

TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
DRAIN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Their default action is to end the process; a worker stops after its current job instead.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_HIGHEST = getattr(signal, "SIGRTMAX", None)  # None: no real-time signals
_PRIVATE_SIGNAL: dict[int, int] = (
    {} if _HIGHEST is None else {int(number): int(_HIGHEST) - 1 - i for i, number in enumerate(DRAIN_SIGNALS)}
)
_ORIGINAL_SIGNAL = {private_signal: number for number, private_signal in _PRIVATE_SIGNAL.items()}
# The signal that requests the stacks. Not SIGQUIT, for which a script may have a handler.
STACKS = int(signal.SIGQUIT if _HIGHEST is None else _HIGHEST - 1 - len(DRAIN_SIGNALS))


def private_signal(signum: int) -> int:
    """The signal that the supervisor sends to a worker in place of `signum`."""
    return _PRIVATE_SIGNAL.get(signum, signum)


class ScriptHandlers(NamedTuple):
    """Handlers, mask and timers that the script has set in the process that imported it."""

    handlers: dict[int, Any]  # those that `suspend_handlers` has replaced
    mask: set[Any]
    wakeup: int
    intervals: tuple[tuple[int, float], ...] = ()  # repeating timers, and their seconds
    caught: set[int] | None = None  # signals with a handler, of Python or C; None if unknown


def ignore_at_start(numbers: Collection[int]) -> dict[int, Any]:
    """Ignore these signals from now on; returns the handlers that this process was started with."""
    handlers = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)  # drops a pending one, too
    return handlers


def restore_handlers(left: ScriptHandlers) -> None:
    """Set the script's handlers, mask and timers again."""
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
    """Return the script's handlers, mask and timers, and disable them here: this process imports the script,
    but also has to watch its children. `ignored`: signals that must not end it."""
    # A timer that fires once is meant for the script's own process.
    stopped = [(timer, signal.setitimer(timer, 0)[1]) for timer in TIMERS]
    intervals = tuple((int(timer), seconds) for timer, seconds in stopped if seconds)
    wakeup = signal.set_wakeup_fd(-1)
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, [])
    caught = _caught_signals()
    handlers = {}
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        # A handler of C code (faulthandler's, say) cannot be restored from Python: it stays.
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
    """Signals that have a handler, of Python or C."""
    try:
        with open("/proc/self/status", "rb") as file:
            line = next(line for line in file if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration):
        return set()
    bits = int(line.split()[1], 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


class _ToStderr:
    """Descriptor 2 as a file for faulthandler. By this object `_reports_to` recognises our own
    registration."""

    def fileno(self) -> int:
        return 2

    def flush(self) -> None:
        """There is no buffer."""


_FAULTS = _ToStderr()


def _reports_to(place: _ToStderr) -> bool:
    """Whether faulthandler writes to this file object: no other registration has replaced ours."""
    return any(found is place for found in gc.get_referents(faulthandler))


class _StackFile(_ToStderr):
    """The file for the stacks that the supervisor requests: separate from the output of jobs, under a private
    descriptor, whatever a job does to descriptor 2."""

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
        """False if a job has closed it."""
        return descriptors.is_ours(self._descriptor, self._file)

    def open_as(self) -> dict[int, descriptors.FileIdentity]:
        """Its descriptor, and which file that is."""
        return {self._descriptor: self._file}


class _Installed:
    """The handlers that the worker has installed in this process."""

    handlers: ClassVar[dict[int, Any]] = {}
    reports_faults = False
    dumps_stacks: ClassVar[dict[int, _ToStderr]] = {}  # by signal
    files: ClassVar[list[Any]] = []  # that faulthandler had before the first job
    mask_before_fork: set[Any] | None = None  # the mask before a fork
    caught: set[int] | None = None  # signals that the script has handlers for, if known
    runs_jobs: CodeType | None = None


def install(stack_file: str, runs_jobs: CodeType | None = None) -> None:
    """Install the worker's handlers where the script has none.

    stack_file: path for the stacks that the supervisor requests.
    runs_jobs: code of the function that calls the user's function.
    """
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
    """Take the present state of faulthandler, set by the script and `setup()`, for the one of all jobs."""
    _Installed.reports_faults = _Installed.reports_faults and _reports_to(_FAULTS)
    _Installed.dumps_stacks = {
        number: place for number, place in _Installed.dumps_stacks.items() if _reports_to(place)
    }
    _Installed.files = gc.get_referents(faulthandler)


def enable_crash_dumps() -> None:
    """Let a crash, and SIGQUIT, write a traceback to descriptor 2, the log of the job, unless the script has
    registered faulthandler itself. Stacks for the supervisor go to a file of their own. Called again, it
    restores this after a job; takes a fraction of a microsecond if nothing has changed."""
    if _Installed.files and gc.get_referents(faulthandler) == _Installed.files:
        return
    if _Installed.reports_faults:
        faulthandler.enable(file=_FAULTS)
    for number, place in _Installed.dumps_stacks.items():
        faulthandler.register(number, file=place, all_threads=True, chain=False)


def faulthandler_probe() -> Probe:
    """A probe that `enable_crash_dumps` has nothing to restore."""
    return partial(gc.get_referents, faulthandler), _Installed.files


def stack_files() -> dict[int, descriptors.FileIdentity]:
    """The descriptor of the file for the supervisor's stacks, and which file that is; empty without one."""
    place = _Installed.dumps_stacks.get(STACKS)
    return place.open_as() if isinstance(place, _StackFile) else {}


def reopen_stack_file() -> None:
    """Open the file for the supervisor's stacks again, if a job has closed it."""
    place = _Installed.dumps_stacks.get(STACKS)
    if isinstance(place, _StackFile) and not place.is_open():
        with contextlib.suppress(OSError):
            place.open()
            faulthandler.register(STACKS, file=place, all_threads=True, chain=False)


def restore_in_children() -> None:
    """From now on forked children of a worker get the script's handlers. To be called before the user's code
    can register fork hooks."""
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )


def _before_fork() -> None:
    # A signal that reaches the child before it has its own handlers would be lost: multiprocessing's
    # `terminate` may follow right after `start`.
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
    """Remove our handlers; those that a job has set in their place stay."""
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
    """The supervisor passes a signal on: call the handler that the job or the script has for it."""
    number = _ORIGINAL_SIGNAL[signum]
    handler = signal.getsignal(number)
    if callable(handler) and handler not in (_note_drain, signal.default_int_handler):
        if _in_a_job(frame):
            signal.raise_signal(number)
            return
    elif handler == signal.SIG_DFL and number != signal.SIGINT and _in_a_job(frame):
        signal.raise_signal(number)  # the job has set the default action
    CURRENT.stopping = True


def _in_a_job(frame: FrameType | None) -> bool:
    """Whether the user's code is running: only there may a handler raise."""
    inner = None
    while frame is not None:
        if frame.f_code is _Installed.runs_jobs:
            return inner is not None and not str(inner.f_globals.get("__name__")).startswith("workers.")
        inner, frame = frame, frame.f_back
    return False
