"""Replays verified lines of the journal: job table, statistics, history, locations.

Nearly all lines of a journal are completed attempts, in runs: consecutive leases of one worker, of
consecutive jobs. A run is applied in columns. The result is the same as that of its records one by one,
which is the reference (`_take_line`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, compress, count, pairwise, repeat
from operator import add, attrgetter, ne, not_, sub

from supervisor.core.state.columns import compact
from supervisor.core.terms.jobs import COMPLETED
from supervisor.core.terms.records import AnyRecord, Carried, Ended, Leased, Reset
from supervisor.storage.files.atomic_files import offsets_of
from supervisor.storage.journal.journal_format import Row, decode_record, decode_rows, ended_at
from supervisor.storage.journal.journal_scan import KnownRun
from supervisor.storage.journal.record_locations import IN_JOURNAL
from supervisor.storage.recovery.checkpoint_entries import FINISHED
from supervisor.storage.recovery.recovered_experiment import Recovered

_FEW = 8  # lines of an average run, below which runs do not pay


_job, _lease = attrgetter("job"), attrgetter("lease")
_attempt, _seconds = attrgetter("attempt"), attrgetter("seconds")
_COMPLETION = (
    (attrgetter("type"), "ended"),
    (attrgetter("outcome"), "completed"),
    (attrgetter("state"), "completed"),
)


class Replayer:
    """Applies lines to table, locations, statistics and history in `found`.

    early: the lines are before a checkpoint, which holds open leases and history; both are left alone.
    unknown: number of lines of a kind that this version does not know.
    odd: numbers of jobs that have other records than one completion.
    """

    def __init__(self, found: Recovered, *, early: bool = False) -> None:
        self.found = found
        self.early = early
        self.unknown = 0
        self.odd: set[int] = set()

    def take(self, start: int, lines: Sequence[bytes]) -> None:
        """Apply verified lines that follow each other; `start`: offset of the first."""
        if not lines:
            return
        offsets = list(offsets_of(start, lines))
        rows = decode_rows(lines)
        if rows is None:
            for place, line in zip(offsets, lines, strict=False):
                self._take_line(place, line)
            return
        for first, end, completed in _runs(rows):
            if completed:
                self._take_completions(rows[first:end], offsets[first : end + 1], ended_at(lines[end - 1]))
            else:
                self._take_line(offsets[first], lines[first])

    # ------------------------------------------------------------------------ one line

    def _take_line(self, offset: int, line: bytes) -> None:
        record = decode_record(line)
        if record is None:
            self.unknown += 1
        else:
            self.apply(record, offset, len(line) + 1)

    def apply(self, record: AnyRecord, offset: int, length: int) -> None:
        """Apply one record; `offset` and `length` of its line."""
        found = self.found
        found.statistics.apply(record)
        if not self.early:
            if type(record) is Leased and found.run_leases.cover(record.lease, len(record.jobs)):
                found.table.open_leases.hand_out(record, ())  # all of them end in runs: `take_run`
            else:
                found.table.apply(record)
            found.history.apply(record)
        elif isinstance(record, (Ended, Reset, Carried)):
            found.table.apply(record)
            self._note_odd(record)
        if type(record) is Ended and record.state in FINISHED:
            job = found.table.numbers[record.job]
            found.locations.note(job, IN_JOURNAL, FINISHED[record.state], offset, length, record.lease)

    def _note_odd(self, record: Ended | Reset | Carried) -> None:
        numbers = self.found.table.numbers
        ids = record.jobs if isinstance(record, Reset) else [record.job]
        self.odd.update(map(numbers.__getitem__, ids))

    # ------------------------------------------------------------------------ many lines

    def _take_completions(self, rows: Sequence[Row], offsets: list[int], at: str) -> None:
        """Apply completed attempts in columns. `offsets`: of their lines, and of the end of the last line."""
        ids = list(map(_job, rows))
        jobs = compact(self.found.table.numbers_of(ids))
        leases, seconds = list(map(_lease, rows)), list(map(_seconds, rows))
        self._complete(jobs, list(map(_attempt, rows)), seconds, leases, at)
        lengths = list(map(sub, offsets[1:], offsets))
        self._note_locations(jobs, offsets[:-1], lengths, leases)

    def take_run(self, start: int, run: KnownRun) -> None:
        """Apply lines that were not read; `take` of them is the reference. `start`: offset of the first."""
        jobs = range(run.job, run.job + run.jobs)
        leases = range(run.lease, run.lease + run.jobs)
        self.found.table.expect(jobs.stop)
        self._complete(jobs, array("I", [1]) * run.jobs, run.seconds, leases, run.at)
        offsets = array("Q", accumulate(run.lengths[:-1], initial=start))
        self._note_locations(jobs, offsets, run.lengths, leases)

    def _complete(
        self,
        jobs: Sequence[int],
        attempts: Sequence[int],
        seconds: Sequence[float],
        leases: Sequence[int],
        at: str,
    ) -> None:
        found = self.found
        if not self.early:
            found.table.open_leases.close_batch(leases)
            # Python looks through a range for its largest number, and a journal may have a million.
            last = leases[-1] if type(leases) is range else max(leases)
            found.history.next_lease = max(found.history.next_lease, last + 1)
        found.table.completed(jobs, attempts, seconds)
        found.statistics.completed(seconds, at)

    def _note_locations(
        self, jobs: Sequence[int], offsets: Sequence[int], lengths: Sequence[int], leases: Sequence[int]
    ) -> None:
        states = bytes([COMPLETED]) * len(jobs)
        self.found.locations.note_batch(jobs, IN_JOURNAL, states, offsets, lengths, leases)


def _runs(rows: Sequence[Row]) -> Iterator[tuple[int, int, bool]]:
    """(first, end, whether they completed): ranges of lines that are applied together, in order."""
    leases = list(map(_lease, rows))
    cuts = list(compress(count(1), map(ne, leases[1:], map(add, leases, repeat(1)))))
    if len(cuts) * _FEW > len(rows):
        cuts = []
    completed = [True] * len(rows)
    if any(list(map(kind, rows)).count(wanted) < len(rows) for kind, wanted in _COMPLETION):
        completed = [all(kind(row) == wanted for kind, wanted in _COMPLETION) for row in rows]
        others = list(compress(count(), map(not_, completed)))
        cuts = sorted({*cuts, *others, *map(add, others, repeat(1))} - {0, len(rows)})
    for first, end in pairwise([0, *cuts, len(rows)]):
        yield first, end, completed[first]
