"""The bytes of a checkpoint: one JSON document, one entry per line, a CRC at the end.

    {"format":...,            the header: one key per line, small enough to be read first
    ...
    "charges":{               then the sections, one job per line
    "job":{"attempts":2,...},
    "job":{"attempts":1,...}
    },
    ...
    "crc":"xxxxxxxx"}         over all bytes before the comma and newline in front of it

An entry of a finished job holds `attempts`, then the part of its Ended line (see `journal_format`), byte by
byte. Entries are therefore copied, not encoded, and a journal can be made from a checkpoint as well as a
checkpoint from a journal.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from supervisor.core.state.statistics import Statistics
from supervisor.core.terms.errors import UnusableCheckpoint
from supervisor.core.terms.jobs import Counts
from supervisor.core.terms.records import RunStarted, WorkerStarted
from supervisor.storage.files.atomic_files import groups_of, offsets_of, resolved
from supervisor.storage.files.disk import Disk
from supervisor.storage.journal.journal_format import in_utf8

FORMAT = "longhaul-checkpoint-1"
FOOT = len(b',\n"crc":"01234567"}\n')
_HEADER_END = b',\n"charges":{'
_CHUNK = 4 << 20
_FOOT = re.compile(rb',\n"crc":"([0-9a-f]{8})"\}\n')
_FORMAT_LINE = re.compile(rb'\{"format":"([^"\\]*)",?\n?')


class JournalPlace(msgspec.Struct):
    """The checkpoint holds what the journal says up to record `n`, which ends at `position`."""

    uuid: str
    generation: int
    position: int
    n: int


class OpenLease(msgspec.Struct, array_like=True, gc=False):
    """A lease without an end. gc=False: there may be ten thousand, and none is part of a cycle."""

    incarnation: int
    lease: int
    job: str


class Header(msgspec.Struct, kw_only=True):
    """Everything in a checkpoint except its jobs."""

    format: str = FORMAT
    experiment_id: str
    name: str
    saved_at: str
    journal: JournalPlace
    settings: dict[str, Any]
    options: dict[str, Any]
    counts: Counts
    run: int
    next_lease: int
    next_incarnation: int
    statistics: Statistics
    run_started: RunStarted | None = None
    workers: list[WorkerStarted] = []
    open_leases: list[OpenLease] = []


class ChargeEntry(msgspec.Struct):
    """What a job has used of its budgets, finished or not."""

    attempts: int
    crashes: int = 0
    losses: int = 0
    errors: int = 0
    timeouts: int = 0
    over_memory: int = 0
    asked: int = 0


class InProgressEntry(msgspec.Struct):
    attempt: int
    worker: int | None
    since: str


class FinishedEntry(msgspec.Struct):
    """The fields of a finished job's entry that the job table needs."""

    attempts: int
    attempt: int
    lease: int
    outcome: str
    state: str
    seconds: float


# ---------------------------------------------------------------------------- writing


def header_lines(header: Header) -> bytes:
    """The header's keys, one per line, without a comma at the end."""
    keys = Header.__struct_fields__
    encode = msgspec.json.encode
    try:
        values = [encode(getattr(header, key)) for key in keys]
    except UnicodeEncodeError:  # an argument of the command line that is not UTF-8
        values = [encode(in_utf8(msgspec.to_builtins(getattr(header, key)))) for key in keys]
    return b"{" + b",\n".join(
        b"%b:%b" % (encode(key), value) for key, value in zip(keys, values, strict=True)
    )


def finished_entries(jobs: Iterable[bytes], attempts: Sequence[int], parts: Iterable[bytes]) -> bytes:
    """The entries of finished jobs, joined. `jobs`: their ids as JSON. `parts`: see `journal_format.ended_part`."""
    begin = {number: entry_begin(number) for number in set(attempts)}
    pieces = zip(jobs, map(begin.__getitem__, attempts), parts, repeat(b"},\n"), strict=False)
    return b"".join(chain.from_iterable(pieces))[:-2]


def entry_begin(attempts: int) -> bytes:
    """What stands in the entry of a finished job between its id and the part of its record."""
    return b':{"attempts":%d,' % attempts


def joined_entries(entries: Iterable[bytes]) -> bytes:
    """`finished_entries` of entries that lack only their last brace."""
    return b"},\n".join(entries) + b"}"


# ---------------------------------------------------------------------------- reading


def entry_part(entry: bytes) -> tuple[bytes, bytes]:
    """(job id as JSON, part of its record) from the entry of a finished job."""
    split = entry.index(b'":{"attempts":') + 1
    start = entry.index(b",", split) + 1
    return entry[:split], entry[start : entry.rindex(b"}")]


class DamagedCheckpoint(Exception):
    """The checkpoint is damaged; the message says how, for the user."""


class CheckpointReader:
    """A checkpoint whose CRC is right. Raises FileNotFoundError, DamagedCheckpoint, and UnusableCheckpoint if
    another version wrote it."""

    def __init__(self, disk: Disk, path: Path | str) -> None:
        self.path = resolved(path)
        self._disk = disk
        self.fd = disk.open(self.path, os.O_RDONLY)
        try:
            self._end = disk.size(self.fd) - FOOT
            self._verify()
            self.header, self._body = read_header(disk, self.fd, self._end)
        except BaseException:
            disk.close(self.fd)
            raise

    def _verify(self) -> None:
        foot = _FOOT.fullmatch(self._disk.pread(self.fd, FOOT, self._end)) if self._end > 0 else None
        if foot is None:
            raise DamagedCheckpoint("it is cut short" if self._end > 0 else "it is empty or cut short")
        crc, position = 0, 0
        while position < self._end:
            chunk = self._disk.pread(self.fd, min(_CHUNK, self._end - position), position)
            if not chunk:
                raise DamagedCheckpoint("it cannot be read to its end")
            crc = zlib.crc32(chunk, crc)
            position += len(chunk)
        self.crc = crc
        if crc != int(foot.group(1), 16):
            raise DamagedCheckpoint("its content does not match its checksum")
        line = _FORMAT_LINE.match(self._disk.pread(self.fd, 200, 0))
        found = line.group(1).decode(errors="replace") if line else "unknown"
        if found != FORMAT:
            raise UnusableCheckpoint(
                f"the checkpoint {self.path} has the format {found!r}; this version reads {FORMAT!r}. "
                f"Use the version of longhaul that wrote it."
            )

    def groups(self) -> Iterator[tuple[str, list[int], list[bytes]]]:
        """(section, offsets of the entries, entries without their commas) of all jobs, in file order, some
        hundred at a time."""
        section = ""
        for offset, lines, _ in groups_of(self._disk, self.fd, self._body, self._end):
            places = list(offsets_of(offset, lines))
            start = 0
            for index in [i for i, line in enumerate(lines) if len(line) <= 2 or line.endswith(b":{")]:
                if index > start:
                    yield section, places[start:index], _without_commas(lines[start:index])
                if len(lines[index]) > 2:  # else it closes a section
                    section = lines[index][1:-3].decode()
                start = index + 1
            if start < len(lines):
                yield section, places[start : len(lines)], _without_commas(lines[start:])

    def close(self) -> None:
        self._disk.close(self.fd)


def read_header(disk: Disk, fd: int, end: int) -> tuple[Header, int]:
    """The header, and the offset of the first section. Raises DamagedCheckpoint."""
    size = 1 << 16
    while True:
        text = disk.pread(fd, min(size, max(0, end)), 0)
        found = text.find(_HEADER_END)
        if found >= 0:
            break
        if len(text) < size:
            raise DamagedCheckpoint("it has no header")
        size *= 4
    try:
        return msgspec.json.decode(text[:found] + b"}", type=Header), found + 2
    except msgspec.DecodeError as error:
        raise DamagedCheckpoint(f"its header cannot be read ({error})") from None


def peek(disk: Disk, path: Path | str) -> Header | None:
    """The header without a check of the CRC; None if it cannot be read."""
    try:
        fd = disk.open(os.fspath(path), os.O_RDONLY)
    except OSError:
        return None
    try:
        return read_header(disk, fd, disk.size(fd))[0]
    except (OSError, DamagedCheckpoint):
        return None
    finally:
        disk.close(fd)


def told_crc(disk: Disk, path: Path | str) -> int | None:
    """The CRC that stands at its end; whether it is right is not checked. None if there is none. Raises OSError."""
    fd = disk.open(os.fspath(path), os.O_RDONLY)
    try:
        foot = _FOOT.fullmatch(disk.pread(fd, FOOT, max(0, disk.size(fd) - FOOT)))
    finally:
        disk.close(fd)
    return int(foot.group(1), 16) if foot is not None else None


def _without_commas(lines: list[bytes]) -> list[bytes]:
    return [line[:-1] if line.endswith(b",") else line for line in lines]


def decode_finished(entries: list[bytes]) -> dict[str, FinishedEntry]:
    """Entries of a section by job id, in their order."""
    return _finished_decoder.decode(b"{%b}" % b",".join(entries))


def decode_charge(entry: bytes) -> tuple[str, ChargeEntry]:
    return _only(_charge_decoder.decode(b"{%b}" % entry))


def decode_in_progress(entry: bytes) -> tuple[str, InProgressEntry]:
    return _only(_in_progress_decoder.decode(b"{%b}" % entry))


_Entry = TypeVar("_Entry")


def _only(entries: dict[str, _Entry]) -> tuple[str, _Entry]:
    return next(iter(entries.items()))


_finished_decoder = msgspec.json.Decoder(dict[str, FinishedEntry])
_charge_decoder = msgspec.json.Decoder(dict[str, ChargeEntry])
_in_progress_decoder = msgspec.json.Decoder(dict[str, InProgressEntry])
