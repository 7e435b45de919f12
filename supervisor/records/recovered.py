"""An experiment as its files tell it: what `survey` fills in, `repair` and `reports` read."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from supervisor.core.columns import put
from supervisor.core.jobs import PENDING, Counts
from supervisor.core.position import Position
from supervisor.core.statistics import Statistics
from supervisor.core.table import JobTable
from supervisor.records.checkpoint import CheckpointReader, Header, entry_part
from supervisor.records.disk import Disk
from supervisor.records.ends import ended_part
from supervisor.records.journal import Scan
from supervisor.records.journal_file import Identity
from supervisor.records.layout import Layout
from supervisor.records.places import read_places
from supervisor.records.plan_file import PlanFile
from supervisor.records.run_facts import RunFacts

NOWHERE, IN_JOURNAL, IN_CHECKPOINT = 0, 1, 2


class Places:
    """Where the record of each finished job is, by job number."""

    def __init__(self) -> None:
        self.origin = bytearray()
        self.held = bytearray()  # the state that the record there gives the job
        self.offset = array("Q")
        self.length = array("I")
        self.lease = array("Q")

    def grow(self, jobs: int) -> None:
        missing = jobs - len(self.origin)
        if missing > 0:
            missing += 1024
            self.origin.extend(bytes(missing))
            self.held.extend(bytes(missing))
            for column in (self.offset, self.length, self.lease):
                column.frombytes(bytes(missing * column.itemsize))

    def note(self, job: int, origin: int, held: int, offset: int, length: int, lease: int) -> None:
        if job >= len(self.origin):
            self.grow(job + 1)
        self.origin[job] = origin
        self.held[job] = held
        self.offset[job] = offset
        self.length[job] = length
        self.lease[job] = lease

    def note_all(
        self, jobs: Sequence[int], origin: int, held: bytes, offsets: Any, lengths: Any, leases: Any
    ) -> None:
        """The same for many."""
        self.grow(max(jobs, default=-1) + 1)
        put(self.held, jobs, held)
        put(self.lease, jobs, array("Q", leases))
        self.move_all(jobs, origin, offsets, lengths)

    def move_all(self, jobs: Sequence[int], origin: int, offsets: Any, lengths: Any) -> None:
        """The same records, found in another place."""
        put(self.origin, jobs, bytes([origin]) * len(jobs))
        put(self.offset, jobs, array("Q", offsets))
        put(self.length, jobs, array("I", lengths))


class Recovered:
    """An experiment as its files tell it. Holds them open; `close` when done.

    Parameters that matter to others
    --------------------------------
    table, statistics, facts: the state, see there. findings: what to tell the user.
    checkpoint_state: good, missing, damaged. journal_state: good, torn, damaged, missing,
    behind. gaps: jobs (numbers) that were finished once, but whose record is lost.
    """

    def __init__(self, disk: Disk, layout: Layout) -> None:
        self.disk = disk
        self.layout = layout
        self.forget()
        self.plan: PlanFile | None = None
        self.checkpoint: CheckpointReader | None = None
        self.checkpoint_state = "missing"
        self.journal_state = "missing"
        self.journal_fd = -1
        self.scan: Scan | None = None
        self.identity = Identity(layout.experiment_id, "", "", 0)
        self.last_n = 0
        self.gaps: list[int] = []
        self.gone_ids: set[str] = set()
        self.findings: list[str] = []

    def forget(self) -> None:
        """Begin anew: no job, no run is known."""
        self.table = JobTable()
        self.statistics = Statistics()
        self.facts = RunFacts()
        self.places = Places()

    @property
    def experiment_id(self) -> str:
        return self.layout.experiment_id

    @property
    def name(self) -> str:
        """Empty if no file tells it any more."""
        return self.identity.name

    @property
    def settings(self) -> dict[str, Any]:
        """As the last run had them."""
        return self.facts.settings

    @property
    def options(self) -> dict[str, Any]:
        return self.facts.options

    @property
    def code(self) -> dict[str, Any]:
        """What the last run recorded about the function's code."""
        return self.facts.run_started.code if self.facts.run_started is not None else {}

    @property
    def position(self) -> Position:
        """Where the next run begins."""
        return self.facts.position()

    def running(self) -> list[int]:
        """Jobs that were running when the last record was written: the first open lease of
        each worker."""
        return [next(iter(leases.values())) for leases in self.table.open_leases.values() if leases]

    def counts(self) -> Counts:
        """How the jobs stand; those that were running are in progress."""
        counts = self.table.counts()
        table = self.table
        cut = sum(1 for job in set(self.running()) if table.state[job] == PENDING and table.wanted[job])
        counts.in_progress += cut
        counts.pending -= cut
        return counts

    @property
    def header(self) -> Header | None:
        return self.checkpoint.header if self.checkpoint is not None else None

    @property
    def needs_generation(self) -> bool:
        """Whether the journal has to be written anew before anything is appended."""
        return self.journal_state not in ("good", "torn")

    def parts(self, jobs: Sequence[int]) -> list[bytes]:
        """The Ended parts (see `ends.ended_part`) of finished jobs."""
        found = dict.fromkeys(jobs, b"")
        for origin, fd in ((IN_JOURNAL, self.journal_fd), (IN_CHECKPOINT, self._checkpoint_fd())):
            chosen = [job for job in jobs if self.places.origin[job] == origin]
            offsets = [self.places.offset[job] for job in chosen]
            newline = origin == IN_JOURNAL
            lengths = [self.places.length[job] - newline for job in chosen]
            for job, text in zip(chosen, read_places(self.disk, fd, offsets, lengths), strict=True):
                found[job] = ended_part(text) if origin == IN_JOURNAL else entry_part(text)[1]
        return [found[job] for job in jobs]

    def _checkpoint_fd(self) -> int:
        return self.checkpoint.fd if self.checkpoint is not None else -1

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files. What was counted can still be looked at."""
        for closable in (self.plan, self.checkpoint):
            if closable is not None:
                closable.close()
        self.plan = self.checkpoint = None
        if self.journal_fd >= 0:
            self.disk.close(self.journal_fd)
            self.journal_fd = -1
