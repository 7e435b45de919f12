"""Results read back from wherever they are; for reports, never for the run itself.

Nothing is kept in memory: whoever asks gets one record after the other.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence

import msgspec

from supervisor.core.errors import UsageError
from supervisor.core.jobs import COMPLETED, FAILED, PlannedJob
from supervisor.core.record_types import Ended
from supervisor.core.statistics import Statistics
from supervisor.core.table import JobTable
from supervisor.records.disk import Disk
from supervisor.records.journal import ended_part, ended_record, verify
from supervisor.records.layout import Layout
from supervisor.records.opening import StoreParts
from supervisor.records.places import GROUP, read_places
from supervisor.records.plan_file import PlanFile, decode_line
from supervisor.records.recovered import Recovered
from supervisor.records.run_facts import RunFacts

# The Ended parts (see `journal.ended_part`) of finished jobs, by number.
ReadParts = Callable[[Sequence[int]], list[bytes]]


class JournalReader:
    """Reads the Ended parts of jobs from a journal, by place.

    Raises OSError for a record that is not what was written: it must not get a new
    checksum in a checkpoint.
    """

    def __init__(self, disk: Disk, fd: int, seed: int, offsets: array[int], lengths: array[int]) -> None:
        self._disk = disk
        self._fd = fd
        self._seed = seed
        self._offsets = offsets
        self._lengths = lengths

    def __call__(self, jobs: Sequence[int]) -> list[bytes]:
        offsets = [self._offsets[job] for job in jobs]
        lengths = [self._lengths[job] - 1 for job in jobs]
        lines = read_places(self._disk, self._fd, offsets, lengths)
        for offset, line in zip(offsets, lines, strict=True):
            if not verify(line, self._seed):
                raise OSError(None, f"the record at byte {offset} of the journal cannot be read back")
        return [ended_part(line) for line in lines]


class Results:
    """An experiment to be read: the states of its jobs, their plan, their records.

    `close` lets go of the files; nothing can be read after it.
    """

    def __init__(
        self,
        *,
        disk: Disk,
        layout: Layout,
        name: str,
        table: JobTable,
        statistics: Statistics,
        facts: RunFacts,
        plan: PlanFile | None,
        parts: ReadParts,
        close: Callable[[], None],
    ) -> None:
        self.disk = disk
        self.layout = layout
        self.name = name
        self.table = table
        self.statistics = statistics
        self.facts = facts
        self._close: Callable[[], None] | None = close
        self._plan = plan
        self._parts = parts

    @classmethod
    def of(cls, found: Recovered) -> Results:
        """From what a survey found; takes its files over."""
        return cls(
            disk=found.disk,
            layout=found.layout,
            name=found.name,
            table=found.table,
            statistics=found.statistics,
            facts=found.facts,
            plan=found.plan,
            parts=found.parts,
            close=found.close,
        )

    @classmethod
    def of_store(cls, parts: StoreParts) -> Results:
        """From what a store is made of, under descriptors of its own."""
        disk, plan = parts.disk, parts.plan.duplicate()
        fd = disk.duplicate(parts.journal.fd)
        reader = JournalReader(disk, fd, parts.journal.identity.seed, parts.offsets, parts.lengths)

        def close() -> None:
            plan.close()
            disk.close(fd)

        return cls(
            disk=disk,
            layout=parts.layout,
            name=parts.journal.identity.name,
            table=parts.table,
            statistics=parts.statistics,
            facts=parts.facts,
            plan=plan,
            parts=reader,
            close=close,
        )

    def close(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            close()

    def jobs(self) -> list[int]:
        """Numbers of the jobs of the current plan, in plan order."""
        return [job for job, wanted in enumerate(self.table.wanted) if wanted]

    def rows(self, state: int | None = None) -> Iterator[tuple[int, PlannedJob, Ended | None]]:
        """Number, plan and record of every job of the current plan (in this state), in plan
        order; no record of jobs that are not finished. Raises OSError, StorageError."""
        if self._close is None:
            raise UsageError("this report is closed: read it inside of `with load(...)`, or load it again")
        group: list[int] = []
        for job in self.jobs():
            if state is not None and self.table.state[job] != state:
                continue
            group.append(job)
            if len(group) == GROUP:
                yield from self.read(group)
                group = []
        if group:
            yield from self.read(group)

    def read(self, jobs: list[int]) -> Iterator[tuple[int, PlannedJob, Ended | None]]:
        """The same for these jobs."""
        state, ids = self.table.state, self.table.ids
        finished = [job for job in jobs if state[job] in (COMPLETED, FAILED)]
        parts = dict(zip(finished, self._parts(finished), strict=True))
        for job, planned in zip(jobs, self._planned(jobs), strict=True):
            part = parts.get(job)
            yield job, planned, None if part is None else ended_record(msgspec.json.encode(ids[job]), part)

    def _planned(self, jobs: list[int]) -> list[PlannedJob]:
        """Domain and params as the plan has them; empty params if their line is lost."""
        plan = self._plan
        if plan is not None and all(map(plan.has, jobs)):
            return [decode_line(line) for line in plan.lines(jobs).split(b"\n")]
        return [self._planned_alone(job) for job in jobs]

    def _planned_alone(self, job: int) -> PlannedJob:
        line = self._plan.line(job) if self._plan is not None else b""
        if line:
            return decode_line(line)
        domain = self.table.domains[self.table.domain_of[job]] or None
        return PlannedJob(self.table.ids[job], domain, msgspec.Raw(b"{}"))
