"""Verified lines of the journal, let happen by the group to all that is known of jobs.

A journal consists nearly of nothing but attempts that completed, in runs: one worker's
leases, one after the other, of jobs that follow each other in the plan. A run is taken in
columns, and what comes of it is what comes of its records one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, count, pairwise, repeat
from operator import add, attrgetter, ne, not_, sub

from supervisor.core.state.columns import compact
from supervisor.core.terms.jobs import COMPLETED
from supervisor.core.terms.records import AnyRecord, Carried, Completions, Ended, Reset
from supervisor.storage.files.atomic_files import offsets_of
from supervisor.storage.journal.journal_format import Row, decode_record, decode_rows, ended_at
from supervisor.storage.journal.record_locations import IN_JOURNAL
from supervisor.storage.recovery.checkpoint_entries import FINISHED
from supervisor.storage.recovery.recovered_experiment import Recovered

_FEW = 8  # lines to a run, below which runs are not worth while


_job, _lease = attrgetter("job"), attrgetter("lease")
_attempt, _seconds = attrgetter("attempt"), attrgetter("seconds")
_COMPLETION = (
    (attrgetter("type"), "ended"),
    (attrgetter("outcome"), "completed"),
    (attrgetter("state"), "completed"),
)


class Replayer:
    """Applies lines to the table, places, statistics and facts in `found`.

    early: these lines are before a checkpoint that says what was running then, and of the
    runs: leases and facts are left alone. unknown: lines of a kind that this version does
    not know. odd: jobs, by number, with other records than that they completed.
    """

    def __init__(self, found: Recovered, *, early: bool = False) -> None:
        self.found = found
        self.early = early
        self.unknown = 0
        self.odd: set[int] = set()

    def take(self, start: int, lines: Sequence[bytes]) -> None:
        """Lines that verify and follow each other, from the offset of the first."""
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
        """Let one record happen, whose line stands there."""
        found = self.found
        found.statistics.apply(record)
        if not self.early:
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
        """Records of attempts that completed, and with them their jobs. `locations` has one more:
        where the last one ends."""
        found = self.found
        ids = list(map(_job, rows))
        jobs = compact(found.table.numbers_of(ids))
        leases, seconds = list(map(_lease, rows)), list(map(_seconds, rows))
        attempts = list(map(_attempt, rows))
        if not self.early:
            found.table.close_leases(leases)
            found.history.next_lease = max(found.history.next_lease, max(leases) + 1)
        found.table.completed(jobs, attempts, seconds)
        found.statistics.apply(
            Completions(0, at, jobs=jobs, ids=ids, attempts=attempts, seconds=seconds, results=[], leases=[])
        )
        lengths = list(map(sub, offsets[1:], offsets))
        states = bytes([COMPLETED]) * len(jobs)
        found.locations.note_batch(jobs, IN_JOURNAL, states, offsets[:-1], lengths, leases)


def _runs(rows: Sequence[Row]) -> Iterator[tuple[int, int, bool]]:
    """(first, end, whether they completed): lines to be taken together, in their order."""
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
