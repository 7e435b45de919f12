"""Signals to the supervisor: a flag and a wake-up, nothing more.

A KeyboardInterrupt in the middle of anything breaks invariants, so no handler of ours ever
raises or does work: the interpreter's C-level handler writes the signal's number into a
pipe, the loop reads it there. Handlers and wake-up descriptor of the host program are put
back. Off the main thread nothing is installed (Python forbids it), and only the host
program can stop the run.

There is one exception: while the user's own code runs in this process (`jobs()` may read
from a slow network for ever), a signal that would begin a drain is raised as `Stopped`.
Nothing of ours is half done then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

DRAIN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LEFT_ALONE_IF_IGNORED = (signal.SIGHUP, signal.SIGTSTP)


class Stopped(BaseException):
    """A signal came while the user's code ran in this process; nothing has been started."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Signals:
    """A context in which the supervisor's signals arrive at `fileno()` and `read()`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        for descriptor in (self._reader, self._writer):
            os.set_blocking(descriptor, False)
        self._old_handlers: dict[int, Any] = {}
        self._old_mask: set[Any] = set()
        self._old_wakeup = -1
        self._installed = False
        self._kept = False
        self._raising = False
        self._first: int | None = None  # of the drain signals that came

    def fileno(self) -> int:
        return self._reader

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._old_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._installed = True
            for signum in (*DRAIN_SIGNALS, signal.SIGQUIT, signal.SIGTSTP):
                self._install(signum)
            # Ignored (by the script, or from birth: `trap '' CHLD`), nobody could tell how a child has
            # ended; a handler of the script may wait for children of ours.
            if signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL:
                self._old_handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Nor may whoever has started us keep the signals from us.
            self._old_mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, DRAIN_SIGNALS)
        return self

    def _install(self, signum: signal.Signals) -> None:
        # nohup ignores SIGHUP on purpose. SIGINT and SIGQUIT are ours in any case: what a
        # script starts with & ignores them from birth, and `kill -INT` must still drain.
        ignored = signal.getsignal(signum) == signal.SIG_IGN
        if not (ignored and signum in _LEFT_ALONE_IF_IGNORED):
            self._old_handlers[signum] = signal.signal(signum, self._note)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """While the user's code runs: drain signals raise Stopped, also those that came
        before; Ctrl+Z stops at once."""
        self._raising = True
        try:
            if self._first is not None:
                raise Stopped(self._first)
            yield
        finally:
            self._raising = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """The number is in the pipe already (signal.set_wakeup_fd)."""
        if signum in DRAIN_SIGNALS and self._first is None:
            self._first = signum
        if not self._raising:
            return
        if signum == signal.SIGTSTP:
            self.read()
            self.stop_self()
        elif signum in DRAIN_SIGNALS:
            raise Stopped(signum)

    def keep(self) -> None:
        """This process is about to end of a signal: leave our handlers in place, for one that
        raises would make a traceback of a key that is held down."""
        self._kept = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            if not self._kept:
                self._put_back()
            signal.set_wakeup_fd(self._old_wakeup)
            self._installed = False
        os.close(self._reader)
        os.close(self._writer)

    def _put_back(self) -> None:
        for signum, handler in self._old_handlers.items():
            # A handler that was not installed from Python cannot be put back from it.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._old_handlers.clear()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)

    def read(self) -> list[int]:
        """Numbers of the signals that came since the last call, in order."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._reader, 4096)
        return [signum for signum in data if signum in self._old_handlers]

    def stop_self(self) -> None:
        """Be stopped by Ctrl+Z as if we had no handler; returns after SIGCONT."""
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Stopped here until somebody continues us.
        signal.signal(signal.SIGTSTP, self._note)
