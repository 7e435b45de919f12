"""The index of a journal that grows: so that after a kill a resume need not read all lines one by one.

While jobs complete in batches, the journal is nearly all runs of lines: consecutive jobs, completed at their first
attempt, with consecutive leases. Each time that the journal has grown by a few megabytes (a stretch), one line is
added to `logs/stretches_<id>.jsonl`: which lines were such runs, their lengths and durations, and the CRC-32 of all
bytes of the journal so far:

    {"n":4711,...,"end":8388608,"journal":...,"runs":[[lines, bytes, job, jobs, lease, "at"],...],...,"crc":...}

`lines` and `bytes` before a run are of other records: those are read from the journal as always. It is only a cache,
made anew by each run, and neither synced nor needed. A resume uses the stretches whose lines verify and whose bytes
of the journal have that CRC; what follows is read line by line. The lines are sealed as the journal's are: those of
another journal or generation do not verify.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from supervisor.core.state.columns import is_contiguous
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import COMPLETED
from supervisor.core.terms.records import Completions
from supervisor.storage.checkpoint.journal_index import checksum_of
from supervisor.storage.files.atomic_files import read_cache, resolved, write_all
from supervisor.storage.files.disk import Disk
from supervisor.storage.journal.journal_file import JournalFile
from supervisor.storage.journal.journal_format import seal, verify
from supervisor.storage.journal.journal_scan import KnownRun, Piece

FORMAT = "longhaul-stretches-1"
STRETCH = 8 << 20  # bytes of the journal
_CHUNK = 1 << 20
_LAYOUT = [sys.byteorder, *(array(kind).itemsize for kind in "Id")]


class NotedRun(NamedTuple):
    """Lines that follow each other in the journal: `jobs` jobs from number `job` on, completed at the first attempt,
    under leases from `lease` on. `lines` and `size` (bytes) are of other records, between the run before and this."""

    lines: int
    size: int
    job: int
    jobs: int
    lease: int
    at: str


class _Stretch(msgspec.Struct):
    """One line. `n`, `end`: of the last line of the stretch, and of all bytes up to it `journal` is the CRC-32.

    jobs, ids: how many jobs had numbers, and the CRC of their ids. seconds, lengths: of the runs' lines.
    """

    n: int
    format: str
    layout: list[Any]
    end: int
    journal: int
    jobs: int
    ids: int
    runs: list[NotedRun]
    seconds: bytes
    lengths: bytes


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Stretch)


class StretchWriter:
    """Follows what is appended to a journal. Failures are ignored: then there is no index from there on.

    offsets, lengths: of the jobs' lines in the journal, by job number.
    """

    def __init__(
        self,
        disk: Disk,
        path: Path,
        journal: JournalFile,
        table: JobTable,
        offsets: array[int],
        lengths: array[int],
    ) -> None:
        self._disk = disk
        self._path = resolved(path)
        self._journal = journal
        self._table = table
        self._offsets = offsets
        self._lengths = lengths
        self._ones = array("I", [1])  # as many as the last run that was compared had jobs
        self._fd = -1
        self._ids: tuple[int, int] | None = None
        self._lines, self._size = journal.next_n - 1, journal.size  # other lines, since the last run
        self._begun = journal.size
        self._runs: list[tuple[NotedRun, int]] = []  # with the bytes of its lines
        self._over = journal.checksum is None

    def note(self, record: Completions, size: int) -> None:
        """`size`: bytes of its lines, which were the next in the journal."""
        jobs, leases = record.jobs, record.leases
        # The cheap comparison first; nearly always it is as the other one.
        consecutive = leases and leases[-1] - leases[0] + 1 == len(leases)
        consecutive = consecutive and leases == [*range(leases[0], leases[-1] + 1)]
        if consecutive and not record.more and is_contiguous(jobs):
            self._runs.append(
                (NotedRun(self._lines, self._size, jobs[0], len(jobs), leases[0], record.at), size)
            )
            self._lines = self._size = 0
        else:
            self.note_others(len(jobs), size)

    def note_others(self, lines: int, size: int) -> None:
        self._lines += lines
        self._size += size

    def appended(self) -> None:
        """To be called when all that was appended to the journal was noted."""
        journal = self._journal
        if self._over or journal.size - self._begun < STRETCH or journal.full is not None:
            return
        if journal.checksum is None or journal.failed is not None:
            self.close()
            return
        try:
            self._write(journal.checksum)
        except OSError:
            self.close()

    def _write(self, checksum: int) -> None:
        table = self._table
        self._begun = self._journal.size
        if self._ids is None:
            self._ids = len(table), checksum_of(table.ids, len(table))
        runs, seconds, lengths = self._settled()
        n = self._journal.next_n - 1
        stretch = _Stretch(
            n, FORMAT, _LAYOUT, self._begun, checksum, *self._ids, runs, seconds.tobytes(), lengths.tobytes()
        )
        line, _ = seal([_encoder.encode(stretch)[:-1]], self._journal.identity.seed)
        if self._fd < 0:
            with contextlib.suppress(FileNotFoundError):
                self._disk.remove(self._path)
            self._fd = self._disk.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        write_all(self._disk, self._fd, line)
        self._runs, self._lines, self._size = [], 0, 0

    def _settled(self) -> tuple[list[NotedRun], array[float], array[int]]:
        """The runs, durations and lengths. A run whose jobs have become something else since counts as other lines."""
        table = self._table
        runs: list[NotedRun] = []
        seconds, lengths = array("d"), array("I")
        lines = size = 0
        offsets, column = self._offsets, self._lengths
        for run, bytes_of_run in self._runs:
            last = run.job + run.jobs - 1
            these = slice(run.job, last + 1)
            if len(self._ones) != run.jobs:
                self._ones = array("I", [1]) * run.jobs
            if (
                table.state.count(COMPLETED, run.job, last + 1) == run.jobs
                and table.attempts[these] == self._ones  # of one type they are compared in C
                and offsets[last] + column[last] - offsets[run.job] == bytes_of_run
            ):
                runs.append(run._replace(lines=run.lines + lines, size=run.size + size))
                seconds += table.seconds[these]
                lengths += column[these]
                lines = size = 0
            else:
                lines += run.lines + run.jobs
                size += run.size + bytes_of_run
        return runs, seconds, lengths

    def close(self) -> None:
        self._over = True
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1


class LeaseSpans:
    """Numbers of leases, as spans that do not touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Those from `start` to `end`, exclusive; none of them is there yet."""
        place = bisect_left(self._starts, start)
        if place < len(self._starts) and self._starts[place] == end:
            end = self._ends[place]
            del self._starts[place], self._ends[place]
        if place and self._ends[place - 1] == start:
            self._ends[place - 1] = end
        else:
            self._starts.insert(place, start)
            self._ends.insert(place, end)

    def cover(self, start: int, number: int) -> bool:
        """Whether all of so many, from this one on, are among them."""
        place = bisect_right(self._starts, start) - 1
        return place >= 0 and start + number <= self._ends[place]


class Stretches:
    """The lines of an index that verify; `verified` tells whether the journal has these bytes.

    n, end: of the last record that they tell of. checksum: CRC-32 of the journal up to there.
    """

    def __init__(self, stretches: list[_Stretch]) -> None:
        self._stretches = stretches

    @classmethod
    def read(cls, disk: Disk, path: Path, seed: int) -> Stretches | None:
        """The index at `path`; None if there is none of this journal."""
        text = read_cache(disk, path)
        if text is None:
            return None
        found: list[_Stretch] = []
        for line in text.split(b"\n"):
            stretch = _decode(line) if verify(line, seed) else None
            if stretch is None or (found and stretch.end <= found[-1].end):
                break
            found.append(stretch)
        return cls(found) if found else None

    @property
    def n(self) -> int:
        return self._stretches[-1].n

    @property
    def end(self) -> int:
        return self._stretches[-1].end

    @property
    def checksum(self) -> int:
        return self._stretches[-1].journal

    @property
    def jobs(self) -> int:
        """How many jobs it may tell of; others had no numbers yet."""
        return self._stretches[0].jobs

    def tells_of(self, table: JobTable) -> bool:
        """Whether the table has the same jobs under the same numbers. It may have more."""
        first = self._stretches[0]
        return first.jobs <= len(table) and first.ids == checksum_of(table.ids, first.jobs)

    def verified(self, disk: Disk, fd: int) -> Stretches | None:
        """Those of which the journal has the bytes; None if that is not even the first."""
        crc = position = good = 0
        for stretch in self._stretches:
            while position < stretch.end:
                chunk = disk.pread(fd, min(_CHUNK, stretch.end - position), position)
                if not chunk:
                    break
                crc = zlib.crc32(chunk, crc)
                position += len(chunk)
            if position < stretch.end or crc != stretch.journal:
                break
            good += 1
        return Stretches(self._stretches[:good]) if good else None

    def leases(self, floor: int) -> LeaseSpans:
        """Those of the runs behind record `floor`."""
        n, spans = 1, LeaseSpans()
        for stretch in self._stretches:
            for run in stretch.runs:
                n += run.lines
                if n > floor:
                    spans.add(run.lease, run.lease + run.jobs)
                n += run.jobs
            n = stretch.n + 1
        return spans

    def pieces(self, floor: int, begin: int = 0) -> Iterator[Piece]:
        """The journal from `begin` to `end`. Runs of records up to number `floor` are to be read as other lines.
        `begin`: 0, or the end of record `floor`."""
        n, position, lines_from = 1, 0, begin
        for stretch in self._stretches:
            seconds, lengths = array("d", stretch.seconds), array("I", stretch.lengths)
            at = 0
            for run in stretch.runs:
                n += run.lines
                position += run.size
                these = slice(at, at + run.jobs)
                at += run.jobs
                sizes = lengths[these]
                end = position + sum(sizes)
                if n > floor:
                    if position > lines_from:
                        yield Piece(lines_from, position, None)
                    known = KnownRun(n, run.job, run.jobs, run.lease, run.at, seconds[these], sizes)
                    yield Piece(position, end, known)
                    lines_from = end
                n += run.jobs
                position = end
            n, position = stretch.n + 1, stretch.end
        if position > lines_from:
            yield Piece(lines_from, position, None)


def _decode(line: bytes) -> _Stretch | None:
    try:
        stretch = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return stretch if stretch.format == FORMAT and stretch.layout == _LAYOUT else None
