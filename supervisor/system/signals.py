"""Signals to the supervisor, received through a pipe.

A KeyboardInterrupt at an arbitrary place would break invariants, so our handlers do not raise. The interpreter's
C-level handler writes the signal's number into a pipe, and the loop reads it. Handlers and wake-up descriptor of
the host program are restored at the end. Outside of the main thread Python allows no handlers: then only the host
program can stop the run.

There is one exception: while the user's code runs in this process (`jobs()` may read from a slow network), a
drain signal is raised as `Stopped`. No work of ours is in progress then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

DRAIN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LEFT_ALONE_IF_IGNORED = (signal.SIGHUP, signal.SIGTSTP)
_AGAIN = 0.01  # seconds


def die_of(signum: int) -> None:
    """End this process by the signal's default action, so that shells and schedulers see the signal: the loop of a
    shell goes on with its next round after an exit code, and stops after Ctrl+C. Returns outside of the main thread."""
    with contextlib.suppress(OSError, ValueError):
        signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
        os.kill(os.getpid(), signum)


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
        self._first: int | None = None  # drain signal that has come

    def fileno(self) -> int:
        return self._reader

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._old_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._installed = True
            for signum in (*DRAIN_SIGNALS, signal.SIGQUIT, signal.SIGTSTP):
                self._install(signum)
            # If SIGCHLD is ignored (by the script, or inherited: `trap '' CHLD`), exit codes of children are
            # lost; a handler of the script may wait for our children.
            if signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL:
                self._old_handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # The parent may have blocked the signals.
            self._old_mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, DRAIN_SIGNALS)
        return self

    def _install(self, signum: signal.Signals) -> None:
        # nohup ignores SIGHUP on purpose. SIGINT and SIGQUIT are handled in any case: a shell starts background
        # programs with both ignored, and `kill -INT` must still drain.
        ignored = signal.getsignal(signum) == signal.SIG_IGN
        if not (ignored and signum in _LEFT_ALONE_IF_IGNORED):
            self._old_handlers[signum] = signal.signal(signum, self._note)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """While the user's code runs: drain signals raise Stopped, also those that came
        before; Ctrl+Z stops at once."""
        self._raising = True
        before = sys.unraisablehook

        def again(lost: sys.UnraisableHookArgs) -> None:
            """Python passes no exception on from a callback of the garbage collector, as imports have: raise it once
            more when that has returned."""
            if isinstance(lost.exc_value, Stopped):
                timer = threading.Timer(_AGAIN, self._repeat, (lost.exc_value.signum,))
                timer.daemon = True
                timer.start()
            else:
                before(lost)

        sys.unraisablehook = again
        try:
            if self._first is not None:
                raise Stopped(self._first)
            yield
        finally:
            self._raising = False
            if sys.unraisablehook is again:  # the user's code may have set its own
                sys.unraisablehook = before

    def _repeat(self, signum: int) -> None:
        """In a thread of its own. To the main thread: also what it waits for is interrupted."""
        ident = threading.main_thread().ident
        if self._raising and ident is not None:
            signal.pthread_kill(ident, signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """Handler of all signals. The number is in the pipe already (signal.set_wakeup_fd)."""
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
        """Leave our handlers in place at the exit: this process is about to end by a signal, and a repeated Ctrl+C
        would print a traceback."""
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
            # A handler that was not set from Python cannot be restored.
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
        """Stop this process, as Ctrl+Z does without a handler; returns after SIGCONT."""
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Stopped here until SIGCONT.
        signal.signal(signal.SIGTSTP, self._note)
