"""`sys.stdout` and `sys.stderr` of a worker: they know whether anything was written.

To flush them after each job would cost a short job a good part of what it takes itself, and
most jobs print nothing. So what is written passes through a buffer that remembers it.

What a job makes of the streams reaches no other job: `StandardStreams` puts them back.
"""

from __future__ import annotations

import contextlib
import io
import sys
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any

from workers.process.descriptors import Probe

_NAMES = ("stdout", "stderr", "stdin", "__stdout__", "__stderr__", "__stdin__")
_read = itemgetter(*_NAMES)
# What can be changed of a stream in its place.
_settings = attrgetter("closed", "encoding", "errors", "line_buffering", "write_through")


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

    @property
    def wrote(self) -> bool:
        """It cannot tell."""
        return True

    @wrote.setter
    def wrote(self, value: bool) -> None:
        pass


Watched = Remembering | AlwaysWrote


def remember_writing() -> None:
    """Let both streams be our own, where they are still Python's. Before any code of the user
    runs, or somebody might keep the streams that were there before."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if _is_pythons(stream, descriptor):
            made = new_stream(name, descriptor, buffered=type(stream.buffer) is io.BufferedWriter)
            setattr(sys, name, made)
            setattr(sys, f"__{name}__", made)


def _is_pythons(stream: object, descriptor: int) -> bool:
    if type(stream) is not io.TextIOWrapper or type(stream.buffer) not in (io.BufferedWriter, io.FileIO):
        return False
    with contextlib.suppress(Exception):
        stream.flush()
        return stream.fileno() == descriptor
    return False


def new_stream(name: str, descriptor: int, *, buffered: bool = True) -> io.TextIOWrapper:
    """Another stream for `sys.<name>`, flushed at each end of line; printing never fails for a
    character that the locale does not know."""
    before = getattr(sys, name, None)
    raw: Any = (io.FileIO if buffered else RememberingFile)(descriptor, "wb", closefd=False)
    raw.name = f"<{name}>"
    stream: Any = io.TextIOWrapper(
        RememberingWriter(raw) if buffered else raw,
        encoding=_text(getattr(before, "encoding", None)) or "utf-8",
        errors="backslashreplace",
        newline="\n",
        line_buffering=True,
        write_through=True,  # or text would wait in front of the buffer that remembers
    )
    stream.mode = "w"
    known: io.TextIOWrapper = stream
    return known


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _own_stream(name: str, descriptor: int) -> io.TextIOWrapper:
    """A stream that leads to our descriptor: `sys.<name>`, or what Python began with, made to
    flush at each end of line; or a new one. What else the script has put there stays."""
    for known in (name, f"__{name}__"):
        stream = getattr(sys, known, None)
        if isinstance(stream, io.TextIOWrapper) and not is_closed(stream):
            with contextlib.suppress(Exception):
                if stream.fileno() == descriptor:
                    stream.reconfigure(line_buffering=True, errors="backslashreplace")
                    return stream
    made = new_stream(name, descriptor)
    setattr(sys, f"__{name}__", made)
    return made


def buffer_of(stream: io.TextIOWrapper) -> Watched:
    """What knows whether anything was written to it."""
    with contextlib.suppress(ValueError):  # detached
        if isinstance(stream.buffer, Remembering):
            return stream.buffer
    return AlwaysWrote()


def is_closed(stream: Any) -> bool:
    """Whether nothing can be written to it, or read from it, any more."""
    try:
        return stream is None or getattr(stream, "closed", False) is True
    except Exception:  # detached
        return True


class StandardStreams:
    """What `sys` has as standard streams when a job begins, and our own beneath them.

    A script, or its `setup()`, may have put something else in the place of ours, and all its jobs
    find that.
    """

    def __init__(self) -> None:
        self.keep()

    def keep(self) -> None:
        """The streams as they are now are those that each job finds."""
        self.own = [_own_stream("stdout", 1), _own_stream("stderr", 2)]
        for name, own in zip(_NAMES, self.own, strict=False):
            if is_closed(getattr(sys, name, None)):
                setattr(sys, name, own)
        for name in _NAMES:
            setattr(sys, name, getattr(sys, name, None))
        self._kept: tuple[Any, ...] = _read(vars(sys))
        self._note()

    def _note(self) -> None:
        self.stdout, self.stderr = self._kept[:2]
        self.others = [kept for kept, own in zip(self._kept, self.own, strict=False) if kept is not own]
        out, err = self.own
        self._states: tuple[Any, ...] = _settings(out), dict(vars(out)), _settings(err), dict(vars(err))

    def restore(self, *, thorough: bool = True) -> bool:
        """Put them back; whether one of our own had to be made anew, since it was closed. Whether
        those were reconfigured is only asked `thorough`."""
        try:
            same = _read(vars(sys)) == self._kept
            out, err = self.own
            as_before = not (out.closed or err.closed)
            if thorough and as_before:
                as_before = (_settings(out), vars(out), _settings(err), vars(err)) == self._states
        except Exception:  # one was deleted, or detached
            same = as_before = False
        if not same:
            self._put_back()
        renewed = False if as_before else self._renew()
        if is_closed(self._kept[2]) and self._kept[2] is not None:
            probe = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
            self._kept = (*self._kept[:2], probe, *self._kept[3:5], probe)
            self._put_back()
        return renewed

    def probe(self) -> Probe:
        """The streams as they are in `sys`, unless one of them is replaced. What is done to one in its
        place is seen elsewhere: a stream that was closed has written something (`Remembering`)."""
        return partial(_read, vars(sys)), self._kept

    def flush_others(self) -> None:
        """What stands in the place of our own."""
        for stream in self.others:
            with contextlib.suppress(Exception):
                stream.flush()

    def _put_back(self) -> None:
        for name, kept in zip(_NAMES, self._kept, strict=True):
            found = getattr(sys, name, None)
            if found is not kept:
                with contextlib.suppress(Exception):
                    found.flush()  # type: ignore[union-attr]
                setattr(sys, name, kept)

    def _renew(self) -> bool:
        """What a job has done to our own: they are set up as before, or are others."""
        renewed = False
        for place, (name, own) in enumerate(zip(_NAMES, list(self.own), strict=False)):
            if is_closed(own):
                made = self.own[place] = new_stream(name, place + 1)
                # What somebody had put on top of the closed one is of no use any more.
                kept = [made if stream is own else stream for stream in self._kept]
                kept[place] = made
                self._kept = tuple(kept)
                renewed = True
            else:
                _set_up(own, *self._states[2 * place : 2 * place + 2])
        if renewed:
            self._put_back()
            self._note()
        return renewed


def _set_up(stream: io.TextIOWrapper, settings: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    _, encoding, errors, line_buffering, write_through = settings
    with contextlib.suppress(Exception):
        vars(stream).clear()
        vars(stream).update(attributes)
        stream.reconfigure(
            encoding=encoding, errors=errors, line_buffering=line_buffering, write_through=write_through
        )
