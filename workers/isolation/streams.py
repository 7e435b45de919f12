"""`sys.stdout` and `sys.stderr` of a worker: they record whether anything was written.

Flushing them after each job would be expensive for short jobs, most of which print nothing. So their buffer
records writes, and only then they are flushed.

`StandardStreams` restores the streams after a job, so no other job sees its changes.
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
# Attributes that a job can change without replacing the stream.
_settings = attrgetter("closed", "encoding", "errors", "line_buffering", "write_through")


class Remembering(io.IOBase):
    """wrote: something was written, or the stream was closed, since this was set to False."""

    wrote = False

    def write(self, data: Any) -> int:
        self.wrote = True
        written: int = super().write(data)
        return written

    def close(self) -> None:
        self.wrote = True
        super().close()


class RememberingWriter(Remembering, io.BufferedWriter):
    """A buffered writer that records writes."""


class RememberingFile(Remembering, io.FileIO):
    """The same without a buffer, for PYTHONUNBUFFERED."""


class AlwaysWrote:
    """For a stream that the script has made: assumes that something was written."""

    @property
    def wrote(self) -> bool:
        """Always true."""
        return True

    @wrote.setter
    def wrote(self, value: bool) -> None:
        pass


Watched = Remembering | AlwaysWrote


def remember_writing() -> None:
    """Replace both streams by our own, if they are still Python's. To be called before any code of the user,
    which may keep references to the former streams."""
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
    """A new stream for `sys.<name>`, flushed after each line. A character that the locale cannot encode does not
    raise."""
    before = getattr(sys, name, None)
    raw: Any = (io.FileIO if buffered else RememberingFile)(descriptor, "wb", closefd=False)
    raw.name = f"<{name}>"
    stream: Any = io.TextIOWrapper(
        RememberingWriter(raw) if buffered else raw,
        encoding=_text(getattr(before, "encoding", None)) or "utf-8",
        errors="backslashreplace",
        newline="\n",
        line_buffering=True,
        write_through=True,  # else text would wait in front of the recording buffer
    )
    stream.mode = "w"
    known: io.TextIOWrapper = stream
    return known


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _own_stream(name: str, descriptor: int) -> io.TextIOWrapper:
    """A stream on descriptor 1 or 2 that is flushed after each line: `sys.<name>`, the original stream, or a new
    one. Another object that the script has put into `sys` stays there."""
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
    """The object that records whether anything was written to the stream."""
    with contextlib.suppress(ValueError):  # detached
        if isinstance(stream.buffer, Remembering):
            return stream.buffer
    return AlwaysWrote()


def is_closed(stream: Any) -> bool:
    """Whether the stream is closed or missing."""
    try:
        return stream is None or getattr(stream, "closed", False) is True
    except Exception:  # detached
        return True


class StandardStreams:
    """The standard streams in `sys` at the start of each job, and our own streams behind them.

    The script, or its `setup()`, may have replaced the streams: then all jobs get those.
    """

    def __init__(self) -> None:
        self.keep()

    def keep(self) -> None:
        """Take the present streams for those of each job."""
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
        """Restore them; true if one of our own was closed and had to be created again. Only a `thorough` call
        checks whether they were reconfigured."""
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
        """A probe that no stream in `sys` was replaced. A closed stream is noticed elsewhere: it counts as
        written (`Remembering`)."""
        return partial(_read, vars(sys)), self._kept

    def thorough_probes(self) -> list[Probe]:
        """Probes that a thorough `restore` has nothing to do, besides that of `probe`."""
        reads = [partial(read, own) for own in self.own for read in (_settings, vars)]
        probes: list[Probe] = list(zip(reads, self._states, strict=True))
        if (stdin := self._kept[2]) is not None:
            probes.append((partial(getattr, stdin, "closed", False), False))
        return probes

    def flush_others(self) -> None:
        """Flush streams of the script that replace our own."""
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
        """Restore the settings of our own streams after a job, or create closed ones again."""
        renewed = False
        for place, (name, own) in enumerate(zip(_NAMES, list(self.own), strict=False)):
            if is_closed(own):
                made = self.own[place] = new_stream(name, place + 1)
                # A stream that wraps the closed one is of no use any more.
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
