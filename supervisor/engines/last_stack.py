"""Where a job was when its worker ended: the stack that it wrote before it was killed, or crashed.

Nobody helps with that but the kernel and a signal handler of C: a job that sleeps, computes or holds the
lock of the interpreter writes its stack all the same. One that is stopped or sits in the kernel does
not, and is not waited for.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from supervisor.engines.processes import has_pending
from workers.dumps import HEADING, Stack, cleaned, crash_in, stack_in, without_stacks
from workers.failures import clip
from workers.handlers import STACKS
from workers.output import tail

WAIT = 0.3  # seconds, at most, by which a kill comes later for it
LOOK_EVERY = 0.004
_MOST = 1 << 20  # bytes of output that came together with a stack; of more, all stays as it is
_MOST_OF_CRASH = 256 << 10  # bytes at the end of the output, in which a crash is looked for
_MOST_KEPT = 64 << 10  # characters of a stack
_NOWHERE = Stack("", "", "")


class LastWords(NamedTuple):
    output: str  # the last lines
    stack: Stack


class Awaited:
    """A stack that a worker is about to be asked for."""

    def __init__(self, path: str, pid: int) -> None:
        self.before = self._size = _size(path)
        self._path = path
        self._pid = pid
        self._until: float | None = None

    def next_look(self, now: float) -> float:
        if self._until is None:
            self._until = now + WAIT
        return now + LOOK_EVERY

    def is_over(self, now: float) -> bool:
        """Whether it stands in the file, or will not come any more."""
        if self._until is not None and now >= self._until:
            return True
        size, self._size = self._size, _size(self._path)
        return self.before < size == self._size and not has_pending(self._pid, STACKS)


def is_written_to(path: str, pid: int) -> bool:
    """Whether descriptor 2 of a process still leads to this file; else a stack would end up in one of
    the job's. True where the system does not say."""
    try:
        status, its = os.stat(path), os.stat(f"/proc/{pid}/fd/2")
    except OSError:
        return not os.path.isdir("/proc/self/fd")
    return (status.st_dev, status.st_ino) == (its.st_dev, its.st_ino)


def last_words(path: str, awaited: Awaited | None) -> LastWords:
    """Of a dead worker. The stack is taken out of its output file, and put back without our frames."""
    try:
        if awaited is not None:
            return _stopped(path, awaited.before)
        return _crashed(path)
    except OSError:  # no such file, or the disk refuses
        return LastWords(tail(path), _NOWHERE)


def _stopped(path: str, before: int) -> LastWords:
    size = _size(path)
    with open(path, "rb") as file:
        file.seek(before)
        text = file.read(_MOST).decode(errors="replace")
    stack = stack_in(text)
    if stack is None:
        return LastWords(tail(path), _NOWHERE)
    stack = stack._replace(text=clip(stack.text, _MOST_KEPT))
    if size - before > _MOST:
        return LastWords(tail(path), stack)
    _replace_end(path, before, without_stacks(text))
    output = tail(path)
    with contextlib.suppress(OSError), open(path, "ab") as file:
        start = "\n" if before and not output.endswith("\n") else ""
        file.write(f"{start}{HEADING}\n{stack.text}".encode())
    return LastWords(output, stack)


def _crashed(path: str) -> LastWords:
    size = _size(path)
    if not size:
        return LastWords("", _NOWHERE)
    with open(path, "rb") as file:
        start = max(0, size - _MOST_OF_CRASH)
        file.seek(start)
        end = file.read()
    text = end.decode(errors="surrogateescape")
    at = crash_in(text)
    if at < 0:
        return LastWords(tail(path), _NOWHERE)
    report = text[at:].encode(errors="surrogateescape").decode(errors="replace")
    stack = stack_in(report, crash=True) or _NOWHERE
    _replace_end(path, start + len(text[:at].encode(errors="surrogateescape")), cleaned(report) + "\n")
    return LastWords(tail(path), stack._replace(text=""))  # it stands in the output


def _replace_end(path: str, at: int, text: str) -> None:
    with open(path, "r+b") as file:
        file.truncate(at)
        file.seek(at)
        file.write(text.encode())


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
