"""The index: offsets of records in the journal, so that a resume of many jobs need not read all its lines.

A checkpoint holds which jobs are finished, but not where their records are. Before the checkpoint's position
the journal holds nothing else that a resume needs. The index stores the result of reading those lines, in
columns by job number:

    {"format":...,            the header: which checkpoint, journal and jobs it belongs to
    ...
    "blocks":[
    ["states","attempts","seconds","offsets","lengths"],      in base64
    ...
    ],
    "crc":"xxxxxxxx"}         over all bytes before the comma and newline in front of it

It is only a cache: it may be deleted and is not synced. It is used if it is whole, was written with this
checkpoint, and if the journal up to the checkpoint's position has the checksum stored in it. Otherwise the
journal is read line by line (see `journal_only`).
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import COMPLETED, FAILED, PENDING
from supervisor.storage.files.atomic_files import read_cache, write_atomically
from supervisor.storage.files.disk import Disk
from supervisor.storage.journal.record_locations import IN_JOURNAL, NOWHERE, RecordLocations

FORMAT = "longhaul-index-1"
ENOUGH = 20_000  # finished jobs; the journal of fewer is read quickly without an index
_BLOCK = 1 << 16  # jobs to a line
_FOOT = re.compile(rb',\n"crc":"([0-9a-f]{8})"\}\n')
_FOOT_SIZE = len(b',\n"crc":"01234567"}\n')
_BLOCKS = b',\n"blocks":[\n'
_LAYOUT = [sys.byteorder, *(array(kind).itemsize for kind in "IdQI")]
_FINISHED_OR_NOT = bytes(state if state in (COMPLETED, FAILED) else PENDING for state in range(256))
_ORIGIN = bytes(IN_JOURNAL if state in (COMPLETED, FAILED) else NOWHERE for state in range(256))


class _Header(msgspec.Struct):
    """What the index belongs to.

    checkpoint: its CRC. journal: CRC of its bytes up to the checkpoint's position. ids: CRC of the job ids in
    the order of their numbers. layout: byte order and item sizes of the columns. outcomes: of failed jobs.
    """

    format: str
    layout: list[Any]  # of the columns, in memory
    checkpoint: int
    journal: int
    jobs: int
    ids: int
    outcomes: list[tuple[int, str]]


class _Block(msgspec.Struct, array_like=True):
    """The columns of jobs with consecutive numbers."""

    states: bytes
    attempts: bytes
    seconds: bytes
    offsets: bytes
    lengths: bytes


def checksum_of(ids: list[str], jobs: int) -> int:
    """CRC-32 of the ids of the first `jobs` jobs, one per line."""
    crc = 0
    for start in range(0, jobs, _BLOCK):
        crc = zlib.crc32("\n".join([*ids[start : min(start + _BLOCK, jobs)], ""]).encode(), crc)
    return crc


class IndexWriter:
    """Writes an index from the copies that its checkpoint was made from.

    journal: checksum of the journal up to the checkpoint's position. offsets, lengths: of the records.
    """

    def __init__(
        self,
        path: Path,
        table: JobTable,
        journal: int,
        *,
        states: bytes,
        attempts: array[int],
        offsets: array[int],
        lengths: array[int],
    ) -> None:
        self._path = path
        self._ids = table.ids  # only ever grows
        self._journal = journal
        self._states = states
        self._columns = (attempts, table.seconds[:], offsets, lengths)
        self._outcomes = [(job, how) for job, how in table.outcome.items() if states[job] == FAILED]

    def write(self, disk: Disk, checkpoint: int) -> None:
        """Write the file; a failure is ignored. `checkpoint`: the CRC of the checkpoint."""
        with contextlib.suppress(OSError):
            write_atomically(disk, self._path, self._parts(checkpoint), durable=False)

    def _parts(self, checkpoint: int) -> Iterator[bytes]:
        jobs = len(self._states)
        header = _Header(
            FORMAT, _LAYOUT, checkpoint, self._journal, jobs, checksum_of(self._ids, jobs), self._outcomes
        )
        crc = 0
        before = msgspec.json.encode(header)[:-1] + _BLOCKS
        for start in range(0, jobs, _BLOCK):
            part = before + msgspec.json.encode(self._block(start, min(start + _BLOCK, jobs)))
            crc = zlib.crc32(part, crc)
            yield part
            before = b",\n"
        yield b'\n],\n"crc":"%08x"}\n' % zlib.crc32(b"\n]", crc)

    def _block(self, start: int, stop: int) -> _Block:
        states = self._states[start:stop].translate(_FINISHED_OR_NOT)
        attempts, seconds, offsets, lengths = (column[start:stop] for column in self._columns)
        if states.count(PENDING) and any(seconds):
            seconds = array(
                "d", [taken if state else 0.0 for taken, state in zip(seconds, states, strict=True)]
            )
        columns = (attempts, seconds, offsets, lengths)
        return _Block(states, *(column.tobytes() for column in columns))


class Index:
    """An index whose CRC is right. It holds for the checkpoint with the CRC `checkpoint` and for a journal that
    begins with bytes of the checksum `journal`; for the jobs see `tells_of`."""

    def __init__(self, header: _Header, blocks: io.BytesIO) -> None:
        self.checkpoint = header.checkpoint
        self.journal = header.journal
        self.jobs = header.jobs
        self._header = header
        self._blocks = blocks

    @classmethod
    def read(cls, disk: Disk, path: Path) -> Index | None:
        """The index at `path`; None if there is none that can be used."""
        text = read_cache(disk, path)
        if text is None:
            return None
        foot = _FOOT.fullmatch(text, max(0, len(text) - _FOOT_SIZE))
        end, begin = len(text) - _FOOT_SIZE, text.find(_BLOCKS)
        if foot is None or begin < 0 or zlib.crc32(memoryview(text)[:end]) != int(foot.group(1), 16):
            return None
        try:
            header = msgspec.json.decode(text[:begin] + b"}", type=_Header)
        except msgspec.DecodeError:
            return None
        if header.format != FORMAT or header.layout != _LAYOUT:
            return None
        blocks = io.BytesIO(text)
        blocks.seek(begin + len(_BLOCKS))
        return cls(header, blocks)

    def tells_of(self, table: JobTable) -> bool:
        """Whether the table has the same jobs under the same numbers."""
        return self._header.jobs == len(table) and self._header.ids == checksum_of(table.ids, len(table))

    def load(self, table: JobTable, locations: RecordLocations) -> None:
        """Set states and locations of all finished jobs."""
        locations.grow(self._header.jobs)
        start = 0
        while start < self._header.jobs:
            block = self._next_block()
            these = slice(start, start + len(block.states))
            table.state[these] = locations.recorded_state[these] = block.states
            locations.origin[these] = block.states.translate(_ORIGIN)
            table.attempts[these] = array("I", block.attempts)
            table.seconds[these] = array("d", block.seconds)
            locations.offset[these] = array("Q", block.offsets)
            locations.length[these] = array("I", block.lengths)
            start = these.stop
        table.outcome.update(self._header.outcomes)

    def load_first(self, table: JobTable) -> None:
        """Set the states of a table's jobs, which are the first ones: at most as many as one block has."""
        block, many = self._next_block(), len(table)
        table.state[:] = block.states[:many]
        table.attempts[:] = array("I", block.attempts)[:many]
        table.seconds[:] = array("d", block.seconds)[:many]
        table.outcome.update((job, how) for job, how in self._header.outcomes if job < many)

    def _next_block(self) -> _Block:
        return msgspec.json.decode(self._blocks.readline().rstrip(b",\n"), type=_Block)
