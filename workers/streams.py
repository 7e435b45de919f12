"""`sys.stdout` and `sys.stderr` of a worker: they know whether anything was written.

To flush them after each job would cost a short job a good part of what it takes itself, and
most jobs print nothing. So what is written passes through a buffer that remembers it.
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any


class Remembering(io.IOBase):
    """wrote: something was written, or it was closed, since this was last set to False."""

    wrote = False

    def write(self, data: Any) -> int:
        self.wrote = True
        written: int = super().write(data)
        return written

    def close(self) -> None:
        self.wrote = True
        super().close()


class RememberingWriter(Remembering, io.BufferedWriter):
    """A buffer that remembers."""


class RememberingFile(Remembering, io.FileIO):
    """The same without a buffer, as PYTHONUNBUFFERED wants it."""


class AlwaysWrote:
    """Stands for the buffer of a stream that somebody else has made."""

    wrote = True


Watched = Remembering | AlwaysWrote


def remember_writing() -> None:
    """Let both streams be our own, where they are still Python's. Before any code of the user
    runs, or somebody might keep the streams that were there before."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if _is_pythons(stream, descriptor):
            new_stream(name, descriptor, buffered=type(stream.buffer) is io.BufferedWriter)


def _is_pythons(stream: object, descriptor: int) -> bool:
    if type(stream) is not io.TextIOWrapper or type(stream.buffer) not in (io.BufferedWriter, io.FileIO):
        return False
    with contextlib.suppress(Exception):
        stream.flush()
        return stream.fileno() == descriptor
    return False


def new_stream(name: str, descriptor: int, *, buffered: bool = True) -> io.TextIOWrapper:
    """Another `sys.<name>`, flushed at each end of line; printing never fails for a character
    that the locale does not know."""
    before = getattr(sys, name, None)
    raw: Any = (io.FileIO if buffered else RememberingFile)(descriptor, "wb", closefd=False)
    raw.name = f"<{name}>"
    stream: Any = io.TextIOWrapper(
        RememberingWriter(raw) if buffered else raw,
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        newline="\n",
        line_buffering=True,
        write_through=True,  # or text would wait in front of the buffer that remembers
    )
    stream.mode = "w"
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)
    known: io.TextIOWrapper = stream
    return known


def line_buffered(name: str, descriptor: int) -> io.TextIOWrapper:
    """`sys.<name>`, made to flush at each end of line; a new one if it leads elsewhere."""
    stream = getattr(sys, name)
    if isinstance(stream, io.TextIOWrapper) and not stream.closed:
        with contextlib.suppress(Exception):
            if stream.fileno() == descriptor:
                stream.reconfigure(line_buffering=True, errors="backslashreplace")
                return stream
    return new_stream(name, descriptor)


def buffer_of(stream: io.TextIOWrapper) -> Watched:
    """What knows whether anything was written to it."""
    with contextlib.suppress(ValueError):  # detached
        if isinstance(stream.buffer, Remembering):
            return stream.buffer
    return AlwaysWrote()


def is_closed(stream: io.TextIOWrapper) -> bool:
    """Whether nothing can be written to it any more."""
    try:
        return stream.closed
    except ValueError:  # detached
        return True
