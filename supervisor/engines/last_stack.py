"""Where a job was when its worker ended: the stack that it wrote before it was killed, or crashed.

The stack is written by faulthandler's signal handler in C, so a job that sleeps, computes or holds the GIL
writes it too. A process that is stopped or blocked in the kernel does not; it is waited for 0.3 s at most.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NamedTuple

from supervisor.system.processes import has_pending
from workers.isolation.faulthandler_dumps import HEADING, Stack, cleaned, crash_in, stack_in
from workers.isolation.output_files import tail
from workers.isolation.signal_handlers import STACKS
from workers.values.tracebacks import MAX_TEXT, clip

CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
WAIT = 0.3  # seconds at most that a kill is delayed for it
CHECK_EVERY = 0.004
_MOST = 1 << 20  # bytes of stacks that are read
_MOST_OF_CRASH = 256 << 10  # bytes at the end of the output that are searched for a crash
_NOWHERE = Stack("", "", "")


class ExitSummary(NamedTuple):
    output: str  # the last lines
    stack: Stack


class RequestedStack:
    """A stack that a worker is about to be asked for, in its file of stacks."""

    def __init__(self, path: str, pid: int) -> None:
        self._before = self._size = size_of(path)
        self._path = path
        self._pid = pid
        self._until: float | None = None

    def next_look(self, now: float) -> float:
        if self._until is None:
            self._until = now + WAIT
        return now + CHECK_EVERY

    def is_over(self, now: float) -> bool:
        """Whether the stack is written, or will not be written any more."""
        if self._until is not None and now >= self._until:
            return True
        size, self._size = self._size, size_of(self._path)
        return self._before < size == self._size and not has_pending(self._pid, STACKS)

    def read(self) -> Stack | None:
        """The stack; None if none, or only a part, was written. Raises OSError."""
        with open(self._path, "rb") as file:
            file.seek(self._before)
            stack = stack_in(file.read(_MOST).decode(errors="replace"))
        return None if stack is None else stack._replace(text=clip(stack.text, MAX_TEXT))


def exit_summary(path: str, requested: RequestedStack | None, *, crashed: bool) -> ExitSummary:
    """The last output and the stack of a dead worker, which has printed to the file `path`. The stack is
    added to that file, without our frames. `crashed`: it died of one of CRASHES."""
    try:
        if requested is not None and (stack := requested.read()) is not None:
            return _of_requested_stack(path, stack)
        return _of_crash(path) if crashed else ExitSummary(tail(path), _NOWHERE)
    except OSError:  # no such file, or the disk refuses
        return ExitSummary(tail(path), _NOWHERE)


def _of_requested_stack(path: str, stack: Stack) -> ExitSummary:
    output = tail(path)
    if not stack.text:  # it waited for a program
        return ExitSummary(output, stack)
    with contextlib.suppress(OSError), open(path, "ab") as file:
        start = "\n" if output and not _ends_a_line(path) else ""
        file.write(f"{start}{HEADING}\n{stack.text}".encode())
    return ExitSummary(output, stack)


def _ends_a_line(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _of_crash(path: str) -> ExitSummary:
    size = size_of(path)
    if not size:
        return ExitSummary("", _NOWHERE)
    with open(path, "rb") as file:
        start = max(0, size - _MOST_OF_CRASH)
        file.seek(start)
        end = file.read()
    text = end.decode(errors="surrogateescape")
    at = crash_in(text)
    if at < 0:
        return ExitSummary(tail(path), _NOWHERE)
    report = text[at:].encode(errors="surrogateescape").decode(errors="replace")
    stack = stack_in(report, crash=True) or _NOWHERE
    with open(path, "r+b") as file:
        file.truncate(start + len(text[:at].encode(errors="surrogateescape")))
        file.seek(0, os.SEEK_END)
        file.write(cleaned(report).encode() + b"\n")
    return ExitSummary(tail(path), stack._replace(text=""))  # the output has it already


def size_of(path: str) -> int:
    """Bytes in a file; 0 if there is none."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
