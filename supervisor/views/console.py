"""Writes to a terminal, pipe or log file that may block or break.

A terminal stopped with Ctrl+S, a pager that does not read and a dead ssh connection block a write without limit.
O_NONBLOCK would affect all processes that share the descriptor. So a thread writes, from a bounded buffer; text
that does not fit is dropped and counted. After an error nothing more is written.
"""

from __future__ import annotations

import io
import os
import select
import threading
from collections.abc import Callable
from typing import TextIO

from supervisor.core.terms.wording import harmless

LIMIT = 1 << 20  # characters that wait for a stalled reader
_PIECE = 4096  # bytes per write: what a pipe takes at once


class ConsoleWriter(io.TextIOBase):
    """A text file in front of `stream` that never blocks, with the methods that rich and print use.

    Streams without a descriptor (StringIO, notebooks) cannot block and are written to directly.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._fd = _descriptor(stream)
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._size = 0
        self._dropped = 0
        self._busy = False
        self._ending = False
        self.broken = False
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def fileno(self) -> int:
        if self._fd is None:
            raise io.UnsupportedOperation("fileno")
        return self._fd

    def isatty(self) -> bool:
        return self._fd is not None and os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Buffer `text`. Returns at once; an error of the stream is not raised."""
        if self.broken or not text:
            return len(text)
        if self._fd is None:
            self._write_directly(text)
            return len(text)
        with self._changed:
            if self._size + len(text) > LIMIT:
                self._dropped += text.count("\n")
                return len(text)
            if self._dropped:
                text = f"\n... {self._dropped:,} lines were dropped: the terminal or pipe was blocked\n{text}"
                self._dropped = 0
            self._waiting.append(text)
            self._size += len(text)
            self._start()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Nothing to do: the thread writes everything as soon as it can."""

    def drain(self, seconds: float) -> bool:
        """Wait until everything is written, for at most so many seconds; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.broken or not (self._waiting or self._busy), seconds)

    def end(self, seconds: float) -> None:
        """Drain, and let the thread end. The stream stays open."""
        self.drain(seconds)
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    # ------------------------------------------------------------------- the thread

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="longhaul-view", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                text = "".join(self._waiting)
                self._waiting.clear()
                self._size = 0
                self._busy = True
            try:
                self._write_out(text.encode(self._encoding, errors="replace"))
            except (OSError, ValueError, LookupError):
                self._break()
                return

    def _write_out(self, data: bytes) -> None:
        assert self._fd is not None
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view[:_PIECE]) :]
            except BlockingIOError:  # another process that shares the descriptor has set O_NONBLOCK
                select.select([], [self._fd], [], 1.0)

    def _write_directly(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._break()

    def _break(self) -> None:
        with self._changed:
            self.broken = True
            self._busy = False
            self._waiting.clear()
            self._changed.notify_all()


def _descriptor(stream: TextIO) -> int | None:
    """The descriptor of a stream, after flushing the stream; None if it has none."""
    try:
        fd = stream.fileno()
        stream.flush()
    except (OSError, ValueError, AttributeError):
        return None
    return fd


def print_lines_until(stream: TextIO | None, text: str, given_up: Callable[[], bool]) -> None:
    """`print_lines` that waits for a slow reader, until `given_up` returns true."""
    if stream is None:
        return
    outlet = ConsoleWriter(stream)
    outlet.write(f"{harmless(text)}\n")
    while not outlet.drain(0.1) and not given_up():
        pass
    outlet.end(0.0)


def print_lines(stream: TextIO | None, text: str) -> None:
    """Print lines to a stream; a closed, broken or missing one is no error."""
    if stream is None:
        return
    try:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(harmless(text).encode(encoding, errors="replace").decode(encoding) + "\n")
        stream.flush()
    except (OSError, ValueError, LookupError):
        return
