"""Settings, workers and incidents of the runs, computed from the records alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from supervisor.core.state.statistics import seconds_between
from supervisor.core.terms.code_spans import CodeSpans, unsure
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import (
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

MAIN_MODULES = ("__main__", "__mp_main__")  # what the script is called


class Stretch(msgspec.Struct):
    """All pauses of the hand-out for one reason."""

    times: int = 0
    seconds: float = 0.0
    since: str = ""  # when the present pause began, ISO 8601; "" if there is none


class Counted(msgspec.Struct):
    """An event of one kind that concerned jobs or places: the first of them, and how often."""

    first: str
    times: int = 0


OF_PLACES = ("places_joined", "place_lost", "place_fenced", "place_ended")
OF_JOBS = frozenset(("stalled", "stopped_for_memory", "memory_left_behind"))


class Incidents(msgspec.Struct):
    """Incidents of one run: `waits` by reason (see `records.Paused`), `orders` of `longhaul ctl` by name, both
    in the order of their first occurrence."""

    waits: dict[str, Stretch] = {}
    orders: dict[str, int] = {}
    noted: dict[str, Counted] = {}  # `OF_JOBS`: how many, and the first job
    places: dict[str, Counted] = {}  # `OF_PLACES`: how many, and the first place

    def apply(self, record: AnyRecord) -> None:
        handler = _INCIDENT_HANDLERS.get(type(record))
        if handler is not None:
            handler(self, record)

    def _apply_paused(self, record: Paused) -> None:
        stretch = self.waits.setdefault(record.why, Stretch())
        stretch.times += 1
        stretch.since = record.at

    def _apply_unpaused(self, record: Unpaused) -> None:
        stretch = self.waits.setdefault(record.why, Stretch(times=1))
        stretch.seconds += record.seconds
        stretch.since = ""

    def _apply_noted(self, record: Noted) -> None:
        if record.what == "control":
            order = str(record.detail.get("order", ""))
            self.orders[order] = self.orders.get(order, 0) + 1
        elif record.what in OF_PLACES:
            names = record.detail.get("places") or [record.detail.get("place", "")]
            places = self.places.setdefault(record.what, Counted(str(names[0])))
            places.times += len(names)
        elif record.what in OF_JOBS:
            counted = self.noted.setdefault(record.what, Counted(str(record.detail.get("job", ""))))
            counted.times += 1

    def seconds(self, why: str, at: str) -> float:
        """Total seconds of the pauses for a reason, until `at` (ISO 8601)."""
        stretch = self.waits[why]
        return stretch.seconds + (max(0.0, seconds_between(stretch.since, at)) if stretch.since else 0.0)


_INCIDENT_HANDLERS: dict[type, Callable[[Incidents, Any], None]] = {
    Paused: Incidents._apply_paused,
    Unpaused: Incidents._apply_unpaused,
    Noted: Incidents._apply_noted,
}


class RunHistory:
    """Settings, run, lease and incarnation numbers, and workers that may still be alive.

    incidents: of the last run. workers: by incarnation, of the last two runs: a run that was killed early may
    not have ended the workers of the run before it. Those on other hosts stay until their end is on record.
    """

    def __init__(self) -> None:
        self.run = 0
        self.next_lease = 1
        self.next_incarnation = 1
        self.settings: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.run_started: RunStarted | None = None
        self.workers: dict[int, WorkerStarted] = {}
        self.incidents = Incidents()
        self._workers_of_this_run: set[int] = set()

    def restore(
        self,
        *,
        run: int,
        next_lease: int,
        next_incarnation: int,
        settings: dict[str, Any],
        options: dict[str, Any],
        run_started: RunStarted | None,
        workers: Iterable[WorkerStarted],
    ) -> None:
        """Set the history from a checkpoint, in place of the records before it."""
        self.run = run
        self.next_lease = next_lease
        self.next_incarnation = next_incarnation
        self.settings = settings
        self.options = options
        self.run_started = run_started
        self.workers = {worker.incarnation: worker for worker in workers}
        self._workers_of_this_run = set(self.workers)

    def apply(self, record: AnyRecord) -> None:
        """Take one record into account, in journal order."""
        handler = _HANDLERS.get(type(record))
        if handler is not None:
            handler(self, record)

    def _apply_ended(self, record: Ended) -> None:
        self.next_lease = max(self.next_lease, record.lease + 1)

    def _apply_leased(self, record: Leased) -> None:
        self.next_lease = max(self.next_lease, record.lease + len(record.jobs))
        self.next_incarnation = max(self.next_incarnation, record.incarnation + 1)

    def _apply_worker_started(self, record: WorkerStarted) -> None:
        self.next_incarnation = max(self.next_incarnation, record.incarnation + 1)
        self.workers[record.incarnation] = record
        self._workers_of_this_run.add(record.incarnation)

    def _apply_worker_ended(self, record: WorkerEnded) -> None:
        self.workers.pop(record.incarnation, None)

    def _apply_carried_run(self, record: CarriedRun) -> None:
        self.run = max(self.run, record.run)
        self.next_lease = max(self.next_lease, record.next_lease)
        self.next_incarnation = max(self.next_incarnation, record.next_incarnation)

    def _apply_pause(self, record: Paused | Unpaused) -> None:
        self.incidents.apply(record)

    def _apply_noted(self, record: Noted) -> None:
        self.incidents.apply(record)
        if record.what == "converted" and self.run_started is not None:
            # Stored in RunStarted, which every checkpoint and every new journal holds.
            known = self.run_started.told
            known += [kind for kind in record.detail["kinds"] if kind not in known]
        elif record.what == "code_imported":
            self._note_late(record.detail["modules"])
        elif record.what == "code_changed":
            self._note_changed(record.detail.get("lease"), record.detail["file"])

    def _apply_run_started(self, record: RunStarted) -> None:
        self.run = max(self.run, record.run)
        self.settings = record.settings
        self.options = record.options
        self.run_started = record
        self.incidents = Incidents()
        recent = self._workers_of_this_run
        self.workers = {key: each for key, each in self.workers.items() if key in recent or each.boot_id}
        self._workers_of_this_run = set()

    def _note_late(self, modules: list[list[str]]) -> None:
        """Note modules that only workers have imported, with the text of the first import."""
        if self.run_started is not None:
            late = self.run_started.code.setdefault("late", {})
            for name, file, sha256 in modules:
                late.setdefault(name, [file, sha256, sha256])

    def _note_changed(self, lease: int | None, file: str) -> None:
        """Note that a worker imported a changed file; older versions did not record from which lease on."""
        if lease is not None and self.run_started is not None:
            unsure(self.run_started.codes, lease, file.rpartition("/")[2])

    @property
    def of_nodes(self) -> bool:
        """Whether any run was on several nodes."""
        return self.run_started is not None and self.run_started.nodes

    @property
    def codes(self) -> CodeSpans:
        """Which code each result was made by."""
        return CodeSpans(self.run_started.codes if self.run_started is not None else ())

    def modules(self) -> set[str]:
        """Names of the user's modules that are on record as part of the code."""
        code = self.run_started.code if self.run_started is not None else {}
        own = {*MAIN_MODULES, code.get("module", "")}
        return own.union(code.get("modules", ()), code.get("late", ()))

    def module_texts(self) -> dict[str, str]:
        """Of those, how the sha256 of each file began when the run did (`DIGITS`). The script is not among
        them: all workers execute the text that the supervisor has sent."""
        code = self.run_started.code if self.run_started is not None else {}
        texts = {name: (file, last) for name, (file, _, last) in code.get("late", {}).items()}
        texts |= {name: (file, digest) for name, (file, digest) in code.get("modules", {}).items()}
        return {file: digest for name, (file, digest) in texts.items() if name not in MAIN_MODULES}

    @property
    def reported_conversions(self) -> list[str]:
        """Kinds of converted result values that the user was told of."""
        return self.run_started.told if self.run_started is not None else []

    def position(self) -> Position:
        """Where the next run begins."""
        return Position(self.run, self.next_lease, self.next_incarnation)

    def survivors(self, boot_id: str) -> list[tuple[int, float]]:
        """(pid, start time) of the workers that may still be alive here (`processes.boot_id`). Only valid before the
        next run is recorded."""
        if self.run_started is None:
            return []
        recorded = self.run_started.boot_id
        if "/" not in recorded and recorded == boot_id.partition("/")[0]:
            recorded = boot_id  # of an older version, which did not tell PID namespaces apart
        return [
            (worker.pid, worker.process_start)
            for worker in self.workers.values()
            if (worker.boot_id or recorded) == boot_id
        ]

    def elsewhere(self, boot_id: str) -> dict[int, WorkerStarted]:
        """Workers that may still be alive on other hosts than this one, by incarnation."""
        return {key: each for key, each in self.workers.items() if each.boot_id not in ("", boot_id)}


_HANDLERS: dict[type, Callable[[RunHistory, Any], None]] = {
    Ended: RunHistory._apply_ended,
    Leased: RunHistory._apply_leased,
    WorkerStarted: RunHistory._apply_worker_started,
    WorkerEnded: RunHistory._apply_worker_ended,
    RunStarted: RunHistory._apply_run_started,
    Paused: RunHistory._apply_pause,
    Unpaused: RunHistory._apply_pause,
    Noted: RunHistory._apply_noted,
    CarriedRun: RunHistory._apply_carried_run,
}
