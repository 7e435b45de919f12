"""What is remembered of runs beside jobs and statistics: a fold over records, nothing else."""

from __future__ import annotations

from typing import Any

from supervisor.core.code_spans import CodeSpans, unsure
from supervisor.core.overnight import Overnight
from supervisor.core.position import Position
from supervisor.core.record_types import (
    AnyRecord,
    CarriedRun,
    Ended,
    Leased,
    Noted,
    Paused,
    RunStarted,
    Unpaused,
    WorkerEnded,
    WorkerStarted,
)
from supervisor.records.checkpoint import Header


class RunFacts:
    """Settings, numbers that rise over the experiment, and workers that may still live.

    overnight: what happened in the last run. workers: by incarnation; of the last run and
    the one before it, because a run that was killed early may not have got to end what its
    predecessor left behind.
    """

    def __init__(self) -> None:
        self.run = 0
        self.next_lease = 1
        self.next_incarnation = 1
        self.settings: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.run_started: RunStarted | None = None
        self.workers: dict[int, WorkerStarted] = {}
        self.overnight = Overnight()
        self._workers_of_this_run: set[int] = set()

    def take_header(self, header: Header) -> None:
        """Start from what a checkpoint says."""
        self.run = header.run
        self.next_lease = header.next_lease
        self.next_incarnation = header.next_incarnation
        self.settings = header.settings
        self.options = header.options
        self.run_started = header.run_started
        self.workers = {worker.incarnation: worker for worker in header.workers}
        self._workers_of_this_run = set(self.workers)

    def apply(self, record: AnyRecord) -> None:
        if isinstance(record, Ended):
            self.next_lease = max(self.next_lease, record.lease + 1)
        elif isinstance(record, Leased):
            self.next_lease = max(self.next_lease, record.lease + len(record.jobs))
            self.next_incarnation = max(self.next_incarnation, record.incarnation + 1)
        elif isinstance(record, WorkerStarted):
            self.next_incarnation = max(self.next_incarnation, record.incarnation + 1)
            self.workers[record.incarnation] = record
            self._workers_of_this_run.add(record.incarnation)
        elif isinstance(record, WorkerEnded):
            self.workers.pop(record.incarnation, None)
        elif isinstance(record, RunStarted):
            self._begin_run(record)
        elif isinstance(record, (Paused, Unpaused, Noted)):
            self.overnight.apply(record)
            if isinstance(record, Noted) and record.what == "converted" and self.run_started is not None:
                # Kept with what every checkpoint and every new journal has.
                self.run_started.told += [kind for kind in record.detail["kinds"] if kind not in self.told]
            elif isinstance(record, Noted) and record.what == "code_imported":
                self._note_late(record.detail["modules"])
            elif isinstance(record, Noted) and record.what == "code_changed":
                self._note_changed(record.detail.get("lease"), record.detail["file"])
        elif isinstance(record, CarriedRun):
            self.run = max(self.run, record.run)
            self.next_lease = max(self.next_lease, record.next_lease)
            self.next_incarnation = max(self.next_incarnation, record.next_incarnation)

    def _begin_run(self, record: RunStarted) -> None:
        self.run = max(self.run, record.run)
        self.settings = record.settings
        self.options = record.options
        self.run_started = record
        self.overnight = Overnight()
        recent = self._workers_of_this_run
        self.workers = {key: worker for key, worker in self.workers.items() if key in recent}
        self._workers_of_this_run = set()

    def _note_late(self, modules: list[list[str]]) -> None:
        """Modules that only workers have imported, as they were then. The first text counts."""
        if self.run_started is not None:
            late = self.run_started.code.setdefault("late", {})
            for name, file, sha256 in modules:
                late.setdefault(name, [file, sha256, sha256])

    def _note_changed(self, lease: int | None, file: str) -> None:
        """A worker has imported a file that was changed; an older version did not say since when."""
        if lease is not None and self.run_started is not None:
            unsure(self.run_started.codes, lease, file.rpartition("/")[2])

    @property
    def codes(self) -> CodeSpans:
        """Which code each result was made by."""
        return CodeSpans(self.run_started.codes if self.run_started is not None else ())

    def modules(self) -> set[str]:
        """Names of the user's modules that are on record as part of the code."""
        code = self.run_started.code if self.run_started is not None else {}
        own = {"__main__", "__mp_main__", code.get("module", "")}
        return own.union(code.get("modules", ()), code.get("late", ()))

    @property
    def told(self) -> list[str]:
        """Kinds of converted result values that the user knows of."""
        return self.run_started.told if self.run_started is not None else []

    def position(self) -> Position:
        """Where the next run begins."""
        return Position(self.run, self.next_lease, self.next_incarnation)

    def survivors(self, boot_id: str) -> list[tuple[int, float]]:
        """Pid and start time of the workers that may still live, seen from a boot of the
        machine. To be asked before the next run is recorded."""
        if self.run_started is None or self.run_started.boot_id != boot_id:
            return []
        return [(worker.pid, worker.process_start) for worker in self.workers.values()]
