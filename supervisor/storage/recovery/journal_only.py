"""Recovers from the journal alone, if nothing is missing from it.

A checkpoint holds about finished jobs what the journal holds up to the checkpoint's position. Reading both
would be double work. Here only the journal is read; at the checkpoint's position everything but the finished
jobs is taken from the checkpoint. If anything disagrees (a lost line, another generation, other sums), this
stops, and `survey` reads both files and compares them job by job. With an index (`journal_index`) only the
lines after the checkpoint are read one by one.
"""

from __future__ import annotations

from supervisor.core.terms.jobs import COMPLETED, FAILED, PENDING
from supervisor.storage.checkpoint.checkpoint_format import CheckpointReader
from supervisor.storage.checkpoint.journal_index import Index
from supervisor.storage.files.atomic_files import checksum
from supervisor.storage.journal.journal_scan import KnownRun, Scan, ScanStart
from supervisor.storage.journal.record_locations import IN_JOURNAL
from supervisor.storage.recovery.checkpoint_entries import load_header, load_unfinished
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.storage.recovery.replayer import Replayer


class JournalOnlyRecovery:
    """Reads the journal of `found`, whose plan is whole, into `found`. `seed`: of the journal's lines; the
    checkpoint has the same uuid and generation."""

    def __init__(self, found: Recovered, reader: CheckpointReader, seed: int) -> None:
        self._found = found
        self._reader = reader
        self._seed = seed
        self._planned = len(found.table)
        self._early = Replayer(found, early=True)
        self.late = Replayer(found)  # what comes after the checkpoint

    def read(self) -> bool:
        """Read the journal. False if it is not whole; `found` must then be reset."""
        found, floor = self._found, self._reader.header.journal.n
        scan = Scan(found.disk, found.journal_fd, self._seed)
        for first, start, lines in found.read_journal(scan, floor):
            if not scan.intact:
                return False
            if isinstance(lines, KnownRun):
                self.late.take_run(start, lines)
                continue
            if first <= floor:
                known = lines[: floor + 1 - first]
                self._early.take(start, known)
                start += sum(map(len, known)) + len(known)
                lines = lines[len(known) :]
                if scan.last_n >= floor and not self._pass_checkpoint(start):
                    return False
            if lines:
                self.late.take(start, lines)
        return scan.intact and scan.first_n <= floor <= scan.last_n

    def agrees_with(self, index: Index) -> bool:
        """Whether an index belongs to this journal and this checkpoint."""
        found, reader = self._found, self._reader
        return index.checkpoint == reader.crc and index.journal == checksum(
            found.disk, found.journal_fd, reader.header.journal.position
        )

    def read_by(self, index: Index) -> bool:
        """`read`, from an index that agrees."""
        found, place = self._found, self._reader.header.journal
        index.load(found.table, found.locations)
        self._take_checkpoint()
        begin = ScanStart(place.n, place.position, index.journal)
        scan = Scan(found.disk, found.journal_fd, self._seed, begin=begin)
        for _, start, lines in found.read_journal(scan, place.n, place.position):
            if isinstance(lines, KnownRun):
                self.late.take_run(start, lines)
            else:
                self.late.take(start, lines)
        return scan.intact

    def _pass_checkpoint(self, position: int) -> bool:
        """Check that the lines up to the checkpoint agree with it, then take the rest from the checkpoint."""
        found, header = self._found, self._reader.header
        table = found.table
        counted = header.counts.completed + header.counts.failed
        if (
            position != header.journal.position
            or found.statistics != header.statistics
            or self._early.unknown
            or len(table) != self._planned
            or table.state.count(COMPLETED) + table.state.count(FAILED) < counted
            or not self._reset_unfinished()
        ):
            return False
        table.charges.clear()
        self._take_checkpoint()
        return True

    def _take_checkpoint(self) -> None:
        """Take everything from the checkpoint except the finished jobs."""
        load_header(self._found, self._reader.header)
        load_unfinished(self._found, self._reader)

    def _reset_unfinished(self) -> bool:
        """Reset unfinished jobs, which the checkpoint will set. False if a finished one has no record."""
        table, locations = self._found.table, self._found.locations
        locations.grow(len(table))
        for job in self._early.odd:
            state = table.state[job]
            if state not in (COMPLETED, FAILED):
                table.state[job], table.attempts[job], table.seconds[job] = PENDING, 0, 0.0
                table.outcome.pop(job, None)
            elif locations.recorded_state[job] != state or locations.origin[job] != IN_JOURNAL:
                return False
        return True
