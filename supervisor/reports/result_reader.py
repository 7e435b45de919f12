"""Results read back from wherever they are; for reports, never for the run itself.

Nothing is kept in memory: records are read one group after the other.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from supervisor.core.state.columns import get, indices_of
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.run_history import RunHistory
from supervisor.core.state.statistics import Statistics
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.records import Ended, Leased
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_format import Content, contents, ended_records
from supervisor.storage.journal.journal_reader import JournalReader, ReadParts, hand_outs_with_needs
from supervisor.storage.journal.record_locations import grouped
from supervisor.storage.plan.plan_file import PlanFile
from supervisor.storage.plan.plan_line import PlannedJob, decode_line, decode_lines
from supervisor.storage.store_builder import StoreParts

if TYPE_CHECKING:
    from supervisor.storage.recovery.recovered_experiment import Recovered


_Found = TypeVar("_Found")


class Results:
    """An experiment to be read: the states of its jobs, their plan, their records.

    `close` closes the files; nothing can be read after it.
    """

    def __init__(
        self,
        *,
        disk: Disk,
        layout: Layout,
        name: str,
        table: JobTable,
        statistics: Statistics,
        history: RunHistory,
        plan: PlanFile | None,
        parts: ReadParts,
        contents: Callable[[Sequence[int]], list[Content]],
        hand_outs: Callable[[], Iterator[Leased]],
        lengths: array[int],
        close: Callable[[], None],
        findings: Sequence[str] = (),
    ) -> None:
        self.disk = disk
        self.layout = layout
        self.name = name
        self.table = table
        self.statistics = statistics
        self.history = history
        self.findings = findings  # sentences on what is damaged
        self._close: Callable[[], None] | None = close
        self._plan = plan
        self._parts = parts
        self._contents = contents
        self.hand_outs_with_needs = hand_outs  # of the whole journal, which is read for it; OSError
        self._lengths = lengths  # of the records, in bytes

    @classmethod
    def of(cls, found: Recovered) -> Results:
        """From a surveyed experiment; takes its files over."""
        return cls(
            disk=found.disk,
            layout=found.layout,
            name=found.name,
            table=found.table,
            statistics=found.statistics,
            history=found.history,
            plan=found.plan,
            parts=found.parts,
            contents=lambda jobs: contents([b"{%b}" % part for part in found.parts(jobs)]),
            hand_outs=lambda: hand_outs_with_needs(found.disk, found.journal_fd, found.identity.seed),
            lengths=found.locations.length,
            close=found.close,
            findings=found.findings,
        )

    @classmethod
    def of_store(cls, parts: StoreParts) -> Results:
        """From the parts of a store, with duplicated descriptors."""
        disk, plan = parts.disk, parts.plan.duplicate()
        fd = disk.duplicate(parts.journal.fd)
        place = (disk, fd, parts.journal.identity.seed, parts.offsets, parts.lengths)
        reader = JournalReader(*place)  # kept for records that are read much later

        def close() -> None:
            plan.close()
            disk.close(fd)

        return cls(
            disk=disk,
            layout=parts.layout,
            name=parts.journal.identity.name,
            table=parts.table,
            statistics=parts.statistics,
            history=parts.history,
            plan=plan,
            parts=reader,
            contents=JournalReader(*place, intact=parts.intact).contents,
            hand_outs=lambda: hand_outs_with_needs(disk, fd, parts.journal.identity.seed),
            lengths=parts.lengths,
            close=close,
        )

    def close(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            close()

    def jobs(self) -> Sequence[int]:
        """Numbers of the jobs of the current plan, in plan order."""
        if self.table.wanted.count(1) == len(self.table.wanted):
            return range(len(self.table.wanted))
        return [job for job, wanted in enumerate(self.table.wanted) if wanted]

    def rows(self, state: int | None = None) -> Iterator[tuple[int, PlannedJob, Ended | None]]:
        """Number, plan and record of every job of the current plan (in this state), in plan
        order; no record of jobs that are not finished. Raises OSError, StorageError."""
        if state is None:
            return self.read(self.jobs())
        wanted = self.table.wanted
        return self.read([job for job in indices_of(self.table.state, state) if wanted[job]])

    def read(self, jobs: Sequence[int]) -> Iterator[tuple[int, PlannedJob, Ended | None]]:
        """The same for these jobs."""
        ids = self.table.ids
        for group in self.groups(jobs):
            parts = self._of_finished(self._parts, group, b"")
            finished = [ids[job] for job, part in zip(group, parts, strict=True) if part]
            records = iter(ended_records(finished, [part for part in parts if part]))
            for job, plan, part in zip(group, self.planned(group), parts, strict=True):
                yield job, plan, next(records) if part else None

    def groups(self, jobs: Sequence[int]) -> Iterator[Sequence[int]]:
        """Jobs in groups that are read together."""
        if self._close is None:
            raise UsageError("this report is closed: read it inside of `with load(...)`, or load it again")
        for group in grouped(jobs, self._lengths):
            # Their lines in the plan are read with them, and may be as large.
            yield from grouped(group, self._plan.lengths) if self._plan is not None else [group]

    def contents(self, jobs: Sequence[int]) -> list[Content]:
        """Results or errors of the jobs of a group; empty for those that are not finished."""
        return self._of_finished(self._contents, jobs, Content())

    def _of_finished(
        self, read: Callable[[Sequence[int]], list[_Found]], jobs: Sequence[int], nothing: _Found
    ) -> list[_Found]:
        states = self.table.state
        if bytes(get(states, jobs)).count(COMPLETED) == len(jobs):
            return read(jobs)
        finished = [job for job in jobs if states[job] in (COMPLETED, FAILED)]
        found = read(finished)
        if len(finished) == len(jobs):
            return found
        known = dict(zip(finished, found, strict=True))
        return [known.get(job, nothing) for job in jobs]

    def planned(self, jobs: Sequence[int]) -> list[PlannedJob]:
        """Domain and params as the plan has them; empty params if their line is lost."""
        plan = self._plan
        if plan is not None and plan.has_all(jobs):
            return decode_lines(plan.lines(jobs))
        return [self._planned_alone(job) for job in jobs]

    def plan_bodies(self, jobs: Sequence[int]) -> list[bytes] | None:
        """Their lines in the plan, as `plan_line.bodies_batch` gives them; None if it gives none, or one is lost."""
        plan = self._plan
        return plan.bodies(jobs) if plan is not None and plan.has_all(jobs) else None

    def _planned_alone(self, job: int) -> PlannedJob:
        line = self._plan.line(job) if self._plan is not None else b""
        if line:
            return decode_line(line)
        domain = self.table.domains[self.table.domain_of[job]] or None
        return PlannedJob(self.table.ids[job], domain, msgspec.Raw(b"{}"))
