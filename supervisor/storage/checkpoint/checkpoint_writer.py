"""Writes a checkpoint in slices, from copies taken at one moment.

The loop calls it for a few milliseconds at a time. Jobs change meanwhile, the copies do not. Results are read
from the journal, whose written part never changes.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.state.columns import get
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.run_history import RunHistory
from supervisor.core.state.statistics import Statistics
from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.position import Position
from supervisor.storage.checkpoint.checkpoint_format import (
    ChargeEntry,
    Header,
    InProgressEntry,
    JournalPlace,
    OpenLease,
    entry_begin,
    finished_entries,
    header_lines,
    joined_entries,
)
from supervisor.storage.checkpoint.journal_index import ENOUGH, IndexWriter
from supervisor.storage.files.atomic_files import NewFile
from supervisor.storage.files.disk import Disk
from supervisor.storage.journal.journal_file import JournalFile
from supervisor.storage.journal.journal_reader import JournalReader
from supervisor.storage.journal.record_locations import grouped
from supervisor.system.clock import utc_now

_BLOCK = 2048  # jobs between two checks of the clock
_BUFFER = 256 << 10


def header_of(
    journal: JournalFile,
    table: JobTable,
    statistics: Statistics,
    history: RunHistory,
    position: Position,
    *,
    settings: dict[str, Any],
    options: dict[str, Any],
) -> Header:
    """The header of a checkpoint that is taken at this moment."""
    identity = journal.identity
    running = [found.job for found in position.in_progress if found.worker is not None]
    return Header(
        experiment_id=identity.experiment_id,
        name=identity.name,
        saved_at=utc_now(),
        journal=JournalPlace(identity.uuid, identity.generation, journal.size, journal.next_n - 1),
        settings=settings,
        options=options,
        counts=table.counts(running),
        run=position.run,
        next_lease=position.next_lease,
        next_incarnation=position.next_incarnation,
        statistics=msgspec.structs.replace(statistics),
        run_started=history.run_started,
        workers=list(history.workers.values()),
        open_leases=[OpenLease(who, lease, table.ids[job]) for who, lease, job in position.open_leases],
    )


class CheckpointWriter:
    """One checkpoint that is being written.

    Call `step` until it returns True, then `publish`, which waits for the disk and may run in another thread;
    or call `finish`, which does both. `discard` gives up at any time before. With the `checksum` of the
    journal up to the header's position, an index of the journal's records is written too.
    """

    def __init__(
        self,
        disk: Disk,
        path: Path | str,
        header: Header,
        table: JobTable,
        position: Position,
        read: JournalReader,
        index: Path,
        checksum: int | None,
    ) -> None:
        self.n = header.journal.n
        self.entries = header.counts.completed + header.counts.failed
        self._disk = disk
        self._file = NewFile(disk, path)
        self._read = read
        self._ids = table.ids  # only ever grows
        self._state = bytes(table.state)
        self._wanted = bytes(table.wanted)
        self._attempts = table.attempts[:]
        self._charges = {
            job: ChargeEntry(0, *msgspec.structs.astuple(charge))
            for job, charge in table.charges.items()
            if charge.any()
        }
        self._in_progress = list(position.in_progress)
        self._index: IndexWriter | None = None
        if checksum is not None and self.entries >= ENOUGH:
            self._index = IndexWriter(
                index,
                table,
                checksum,
                states=self._state,
                attempts=self._attempts,
                offsets=read.offsets,
                lengths=read.lengths,
            )
        self._header = header
        self._crc = 0
        self._parts = self._generate()

    def step(self, budget: float) -> bool:
        """Work for about `budget` seconds; True when all is written. Raises OSError."""
        end = time.perf_counter() + budget
        buffer = bytearray()
        for part in self._parts:
            buffer += part
            if len(buffer) >= _BUFFER:
                self._write(buffer)
                buffer = bytearray()
            if time.perf_counter() >= end:
                self._write(buffer)
                return False
        self._write(buffer)
        self._file.write(b',\n"crc":"%08x"}\n' % self._crc)
        return True

    def finish(self) -> None:
        """Write what remains and publish it, for a caller that may wait for the disk."""
        self._file.write_behind = True
        self.step(inf)
        self.publish()

    def publish(self) -> None:
        """Sync the file and rename it to its path. The journal must be synced up to `n` before."""
        self._file.publish(read_soon=False)
        if self._index is not None:
            self._index.write(self._disk, self._crc)

    def discard(self) -> None:
        self._file.close()

    def _write(self, data: bytearray) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._file.write(data)

    # ---------------------------------------------------------------------- content

    def _generate(self) -> Iterator[bytes]:
        yield header_lines(self._header)
        yield from _section(b"charges", self._charge_entries())
        yield from _section(b"in_progress", self._in_progress_entries())
        yield from _section(b"completed", self._finished(COMPLETED))
        yield from _section(b"failed", self._finished(FAILED))
        yield from _section(b"gone", self._gone())

    def _charge_entries(self) -> Iterator[bytes]:
        """Jobs whose attempts or charges are in no other entry."""
        state, attempts, charges = self._state, self._attempts, self._charges
        for start in range(0, len(state), _BLOCK):
            stop = min(start + _BLOCK, len(state))
            settled = state.count(COMPLETED, start, stop) + state.count(FAILED, start, stop)
            if not charges and (settled == stop - start or not any(attempts[start:stop])):
                yield b""
                continue
            lines = []
            for job in range(start, stop):
                if job in charges or (attempts[job] and state[job] not in (COMPLETED, FAILED)):
                    entry = charges.get(job) or ChargeEntry(0)
                    entry.attempts = attempts[job]
                    lines.append(b"%b:%b" % (_json(self._ids[job]), _json(entry)))
            yield b",\n".join(lines)

    def _in_progress_entries(self) -> Iterator[bytes]:
        for found in self._in_progress:
            entry = InProgressEntry(found.attempt, found.worker, found.since)
            yield b"%b:%b" % (_json(self._ids[found.job]), _json(entry))

    def _finished(self, chosen: int) -> Iterator[bytes]:
        """Entries of jobs of the plan in this state."""
        state, wanted = self._state, self._wanted
        for start in range(0, len(state), _BLOCK):
            stop = min(start + _BLOCK, len(state))
            if state.count(chosen, start, stop) == wanted.count(1, start, stop) == stop - start:
                yield from self._entries(range(start, stop))
            elif state.count(chosen, start, stop):
                yield from self._entries(
                    [job for job in range(start, stop) if state[job] == chosen and wanted[job]]
                )
            else:
                yield b""  # so that `step` checks the clock

    def _gone(self) -> Iterator[bytes]:
        state, wanted = self._state, self._wanted
        for start in range(0, len(state), _BLOCK):
            stop = min(start + _BLOCK, len(state))
            yield b""
            if wanted.count(0, start, stop):
                yield from self._entries(
                    [
                        job
                        for job in range(start, stop)
                        if not wanted[job] and state[job] in (COMPLETED, FAILED)
                    ]
                )

    def _entries(self, jobs: Sequence[int]) -> Iterator[bytes]:
        for group in grouped(jobs, self._read.lengths):
            yield self._copied(group)

    def _copied(self, jobs: Sequence[int]) -> bytes:
        """Their entries; those of jobs with equally many attempts, as nearly all are, at less than half the cost."""
        attempts = get(self._attempts, jobs)
        if attempts.count(attempts[0]) == len(jobs):
            named = self._read.named_parts(jobs, entry_begin(attempts[0]))
            if named is not None:
                return joined_entries(named)
        names = _encode_lines(get(self._ids, jobs)).split(b"\n")
        return finished_entries(names, attempts, self._read(jobs))


def _section(name: bytes, groups: Iterator[bytes]) -> Iterator[bytes]:
    """`"name":{` entries `}`, from groups of entries that are joined already."""
    yield b',\n"%b":{\n' % name
    first = True
    for group in groups:
        if not group:
            yield b""
            continue
        yield group if first else b",\n" + group
        first = False
    yield b"}" if first else b"\n}"


_json = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
