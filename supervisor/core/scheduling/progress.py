"""Snapshots of a run for views, with rate and estimated end. Pure.

The rate is computed over a sliding window: the estimate follows a change of pace within minutes, and does not
jump with every job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from supervisor.core.scheduling.needs_observer import NeedsObserver
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.domain_counts import DomainCounts
from supervisor.core.state.snapshot import NeedsSnapshot, NodeSnapshot, RunSnapshot, WorkerSnapshot
from supervisor.core.state.statistics import Statistics
from supervisor.core.state.worker_state import STARTING, WorkerState
from supervisor.core.terms.jobs import Counts
from supervisor.core.terms.needs import units
from supervisor.core.terms.records import BY_HAND, LOW_MEMORY

_PAUSE_TEXTS = {
    "no_space": "no room on the disk, the run continues by itself when there is some",
    "disk_stalled": "the disk does not answer",
    LOW_MEMORY: "less memory is free than --keep-free",
    BY_HAND: "paused by hand, `longhaul ctl resume` continues it",
}

_NOTHING_NEW = ("draining", "paused", "waiting_for_space")  # states

WINDOW = 600.0  # seconds over which the rate is averaged


class ProgressObserver:
    """Builds snapshots of one run."""

    def __init__(
        self,
        scheduler: Scheduler,
        statistics: Statistics,
        *,
        experiment_id: str,
        name: str,
        directory: str,
        now: float,
        unselected: int = 0,
        with_option_names: Callable[[str], str] = str,
    ) -> None:
        self.scheduler = scheduler
        self.statistics = statistics
        self.experiment_id = experiment_id
        self.name = name
        self.directory = directory
        self.started = now
        self.unselected = unselected
        self._needs = NeedsObserver(scheduler, with_option_names)
        self.state = ""  # set when the run is over
        self._domains = DomainCounts(scheduler.table)
        self._paces: deque[tuple[float, int]] = deque([(now, 0)])

    def rate(self, now: float) -> float:
        """Attempts ended per second over the last `WINDOW` seconds."""
        paces, done = self._paces, self.scheduler.finished_attempts
        if now - paces[-1][0] >= 1.0:
            paces.append((now, done))
        while len(paces) > 2 and now - paces[1][0] >= WINDOW:
            paces.popleft()
        since, before = paces[0]
        return (done - before) / (now - since) if now > since else 0.0

    def snapshot(self, now: float, *, checkpoint_age: float | None = None) -> RunSnapshot:
        scheduler = self.scheduler
        grace_ends = scheduler.drain.grace_ends
        running = scheduler.dispatcher.running()
        counts = scheduler.table.counts(job for _, job in running)
        rate = self.rate(now)
        statistics = self.statistics
        domains = self._domains.counted([job for _, job in running], to_the_end=bool(self.state))
        needs = self._needs.snapshot()
        state = self.state or self._state_now()
        return RunSnapshot(
            experiment_id=self.experiment_id,
            name=self.name,
            directory=self.directory,
            state=state,
            counts=counts,
            domains=domains,
            elapsed=now - self.started,
            rate=rate,
            # What nobody hands out now has no end that could be told.
            eta_seconds=None if state in _NOTHING_NEW else self._eta(counts, rate, needs),
            workers=[self._worker(worker, now) for worker in scheduler.workers.values()],
            grace_left=None if grace_ends is None else max(0.0, grace_ends - now),
            waiting_for=", ".join(_PAUSE_TEXTS.get(why, why) for why in scheduler.blocked_by())
            or self._waiting(now),
            retries=statistics.retries,
            crashes=statistics.crashes,
            timeouts=statistics.timeouts,
            gone=scheduler.table.gone(),
            unselected=self.unselected,
            checkpoint_age=checkpoint_age,
            needs=needs,
            nodes=self._nodes(),
        )

    def _state_now(self) -> str:
        if self.scheduler.draining:
            return "draining"
        blocked = self.scheduler.blocked_by()
        if "no_space" in blocked:
            return "waiting_for_space"
        return "paused" if blocked else "running"

    def _waiting(self, now: float) -> str:
        """What a run waits for in which nothing can run, in a sentence; "" if it does not wait."""
        scheduler = self.scheduler
        due = scheduler.queue.next_time()
        if due is None or scheduler.stopped or not scheduler.dispatcher.only_waiting():
            return ""
        number = scheduler.queue.waiting()
        text = f"{number:,} {'job waits' if number == 1 else 'jobs wait'} for another attempt"
        return f"{text}, {max(0.0, due - now):.0f} s left"

    def _eta(self, counts: Counts, rate: float, needs: NeedsSnapshot | None) -> float | None:
        left = counts.left - self.unselected
        if needs is not None and needs.unfit is not None:
            left -= needs.unfit.jobs
        if left <= 0:
            return 0.0
        return left / rate if rate > 0 else None

    def _nodes(self) -> list[NodeSnapshot] | None:
        """None on this machine alone."""
        placement = self.scheduler.dispatcher.placement
        if placement is None or not placement.of_nodes:
            return None
        here: dict[int, list[WorkerState]] = {number: [] for number in placement.places}
        for worker in self.scheduler.workers.values():
            if worker.place in here:
                here[worker.place].append(worker)
        return [
            NodeSnapshot(
                place.name,
                len(workers := here[place.number]),
                sum(bool(worker.leases) and worker.status != STARTING for worker in workers),
                place.slots,
                units(place.totals.cpus),
                place=place.number,
            )
            for place in placement.places.values()
        ]

    def _worker(self, worker: WorkerState, now: float) -> WorkerSnapshot:
        view = WorkerSnapshot(worker.slot, worker.pid, worker.incarnation, worker.status)
        placement = self.scheduler.dispatcher.placement
        if placement is not None and (place := placement.places.get(worker.place)) is not None:
            view.place = place.name
        if worker.leases and worker.status != STARTING:
            job = worker.leases[0][1]
            table = self.scheduler.table
            view.job = table.ids[job]
            view.attempt = table.attempts[job] + 1
            view.seconds = now - worker.since
            view.since = worker.since_at
            view.slow = worker.slow == worker.leases[0][0]
            if (report := worker.report()) is not None:
                view.fraction, view.metrics = report.fraction, report.metrics
                view.reported = now - report.at
        return view
