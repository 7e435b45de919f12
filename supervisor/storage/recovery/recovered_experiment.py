"""The state of an experiment as read from its files: filled in by `survey`, read by `repair` and `reports`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from supervisor.core.state.job_table import JobTable
from supervisor.core.state.run_history import RunHistory
from supervisor.core.state.statistics import Statistics
from supervisor.core.terms.jobs import PENDING, Counts
from supervisor.storage.checkpoint.checkpoint_format import CheckpointReader, Header, entry_part
from supervisor.storage.checkpoint.journal_stretches import LeaseSpans, Stretches
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_file import Identity
from supervisor.storage.journal.journal_format import ended_part
from supervisor.storage.journal.journal_scan import KnownRun, Scan
from supervisor.storage.journal.record_locations import (
    IN_CHECKPOINT,
    IN_JOURNAL,
    RecordLocations,
    read_records,
)
from supervisor.storage.plan.plan_file import PlanFile


class Recovered:
    """The state of an experiment as read from its files, which stay open until `close`.

    Attributes
    ----------
    table, statistics, history: the state. locations: of the jobs' records.
    findings: sentences for the user.
    checkpoint_state: good, missing or damaged.
    journal_state: good, torn, damaged, missing, or behind (it ends before the checkpoint).
    stretches: an index of the journal's lines, if there is one (see `journal_stretches`). run_leases: of the runs
        that it knows.
    gaps: numbers of jobs that were finished, but whose record is lost.
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
        self.stretches: Stretches | None = None
        self.run_leases = LeaseSpans()
        self.identity = Identity(layout.experiment_id, "", "", 0)
        self.last_n = 0
        self.gaps: list[int] = []
        self.gone_ids: set[str] = set()
        self.findings: list[str] = []

    def forget(self) -> None:
        """Reset: no job and no run is known."""
        self.table = JobTable()
        self.statistics = Statistics()
        self.history = RunHistory()
        self.locations = RecordLocations()

    @property
    def experiment_id(self) -> str:
        return self.layout.experiment_id

    @property
    def name(self) -> str:
        """The experiment's name; empty if no file has it any more."""
        return self.identity.name

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the last run."""
        return self.history.settings

    @property
    def options(self) -> dict[str, Any]:
        return self.history.options

    def running(self) -> list[int]:
        """Jobs that were running when the last record was written."""
        return [job for _, job in self.table.open_leases.running()]

    def counts(self) -> Counts:
        """Jobs by state; those that were running are in progress."""
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
        """Whether the journal must be written again before anything is appended."""
        return self.journal_state not in ("good", "torn")

    def read_journal(
        self, scan: Scan, floor: int, begin: int = 0
    ) -> Iterator[tuple[int, int, list[bytes] | KnownRun]]:
        """`scan.groups()`; after record `floor`, runs of lines that are known from the index are not read. `begin`:
        where the scan begins."""
        self.scan = scan
        known, self.stretches = self.stretches, None
        known = known.verified(self.disk, self.journal_fd) if known is not None and known.n > floor else None
        if known is None:
            yield from scan.groups()
        else:
            self.run_leases = known.leases(floor)
            yield from scan.groups_and_runs(known.pieces(floor, begin), known.end, known.checksum)

    def parts(self, jobs: Sequence[int]) -> list[bytes]:
        """The Ended parts (see `journal_format.ended_part`) of finished jobs."""
        found = dict.fromkeys(jobs, b"")
        for origin, fd in ((IN_JOURNAL, self.journal_fd), (IN_CHECKPOINT, self._checkpoint_fd())):
            chosen = [job for job in jobs if self.locations.origin[job] == origin]
            offsets = [self.locations.offset[job] for job in chosen]
            newline = origin == IN_JOURNAL
            lengths = [self.locations.length[job] - newline for job in chosen]
            for job, text in zip(chosen, read_records(self.disk, fd, offsets, lengths), strict=True):
                found[job] = ended_part(text) if origin == IN_JOURNAL else entry_part(text)[1]
        return [found[job] for job in jobs]

    def _checkpoint_fd(self) -> int:
        return self.checkpoint.fd if self.checkpoint is not None else -1

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. The state can still be read."""
        for closable in (self.plan, self.checkpoint):
            if closable is not None:
                closable.close()
        self.plan = self.checkpoint = None
        if self.journal_fd >= 0:
            self.disk.close(self.journal_fd)
            self.journal_fd = -1
