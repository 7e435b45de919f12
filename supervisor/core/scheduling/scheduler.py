"""The core: events in, records and commands out. Pure: it opens no file and reads no clock.

The loop calls `handle` with a batch of events and the time. The scheduler passes each event to its
handler (`_handlers`), checks the deadlines, hands out jobs, and returns `Effects`: the records to be
written first, and the commands to be carried out after them.

A worker holds a queue of leases and runs them in order. The job that it runs is therefore the first of
its leases without an outcome. When a worker dies, that job died with it, and the leases behind it had
not started: no shared memory is needed to tell which.

Reading order: `job_table` (what states a job has), `ledger` (what becomes of a job when a
lease ends), `job_queue` and `dispatcher` (who gets the next jobs), `retry_policy` (what a failure
costs), `pacing` (how many jobs a worker holds), `drain` (an early end), `limits` (memory, failures,
the clock), `orders` (from another terminal). This module connects them: it dispatches the events and
attributes a worker's death to a job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from supervisor.core.dispatch import pacing
from supervisor.core.dispatch.dispatcher import Dispatcher
from supervisor.core.dispatch.job_order import line_up
from supervisor.core.dispatch.job_queue import JobQueue
from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.dispatch.retry_policy import is_no_space
from supervisor.core.dispatch.turn import Turn
from supervisor.core.dispatch.worker_exits import (
    classify_exit,
    exit_phrase,
    with_log_path,
    with_measured_peak,
    worker_ended_record,
)
from supervisor.core.places.job_kinds import JobKinds, job_kinds
from supervisor.core.places.place import SharedResources
from supervisor.core.scheduling.drain import Drain
from supervisor.core.scheduling.earlier_leases import EarlierLeases
from supervisor.core.scheduling.hand_out_pauses import HandOutPauses
from supervisor.core.scheduling.held_files import HeldFiles
from supervisor.core.scheduling.limits import Limits
from supervisor.core.scheduling.orders import Orders
from supervisor.core.scheduling.place_notices import PlaceNotices
from supervisor.core.scheduling.worker_notices import CodeSeen, SharedFiles
from supervisor.core.state.columns import indices_of
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.worker_state import ABANDONED, READY, STARTING, WorkerState
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Effects, PlaceFacts, Tell
from supervisor.core.terms.jobs import INTERRUPTED
from supervisor.core.terms.needs import THOUSAND, Totals
from supervisor.core.terms.position import InProgress, Position
from supervisor.core.terms.records import Noted, WorkerStarted
from supervisor.core.terms.settings import Settings
from workers.transport.messages import Failed, Outcome


def _by_kind(outcomes: list[Any]) -> Iterator[tuple[bool, list[Any]]]:
    """(whether they are failures, outcomes): runs of outcomes of one kind; nearly always one run."""
    if Failed not in set(map(type, outcomes)):
        yield False, outcomes
        return
    for failures, group in groupby(outcomes, lambda outcome: type(outcome) is Failed):
        yield failures, list(group)


class Scheduler:
    """One run of an experiment.

    Parameters
    ----------
    table: all jobs, as the records left them.
    slots: how many workers, at most.
    position: where earlier runs stopped (run, lease and incarnation numbers).
    job_bytes: average size of a job's line in the plan.
    totals: what jobs may take together, if some say what they need; by default the slots' cores alone.
    places: where workers may run, instead of `slots`, and of `totals` but for its `resources`; more may join
        (`PlacesChanged`).
    kinds: of these jobs under these settings, if they are known already.
    """

    def __init__(
        self,
        table: JobTable,
        settings: Settings,
        slots: int,
        position: Position,
        job_bytes: float = 0.0,
        totals: Totals | None = None,
        places: Sequence[PlaceFacts] | None = None,
        kinds: JobKinds | None = None,
    ) -> None:
        self.table = table
        self.settings = settings
        self.run = position.run
        if kinds is None:
            kinds = job_kinds(table, settings, always=places is not None)
        self.queue = (
            JobQueue(table.state) if kinds is None else JobQueue(table.state, kinds.kind_of, len(kinds.kinds))
        )
        self.ledger = Ledger(table, self.queue, settings)
        self.dispatcher = Dispatcher(table, self.ledger, settings, slots, position, job_bytes)
        if kinds is not None:
            here = PlaceFacts(0, "", slots, totals or Totals(slots * THOUSAND))
            self.dispatcher.place_by_needs(
                kinds,
                [here] if places is None else places,
                SharedResources(here.totals.resources),
                of_nodes=places is not None,
            )
        self.workers = self.dispatcher.workers
        self.code_seen = CodeSeen()
        self.drain = Drain(self.dispatcher, settings.grace)
        self.finished_attempts = 0
        self.earlier = EarlierLeases(self.ledger)
        self.held_files = HeldFiles(self.dispatcher, self._count_ended)
        self.pauses = HandOutPauses()
        self.limits = Limits(self.dispatcher, self.drain, self.pauses.since)
        self.orders = Orders(table, self.ledger, self.dispatcher, self.drain, self.pauses.since)
        self.place_notices = PlaceNotices(self.dispatcher, places or ())
        self._handlers: dict[type, Callable[[Any, Turn], None]] = {
            facts.JobsFinished: self._on_jobs_finished,
            facts.LeasesDropped: self._on_leases_dropped,
            facts.LeasesWithdrawn: self._on_leases_withdrawn,
            facts.OutcomesHeld: self.held_files.on_outcomes_held,
            facts.HeldOutcomesLost: self.held_files.on_lost,
            facts.WorkerLaunched: self._on_worker_started,
            facts.WorkerStartFailed: self._on_worker_start_failed,
            facts.WorkerReady: self._on_worker_ready,
            facts.WorkerNotReady: self._on_worker_not_ready,
            facts.JobReported: self._on_job_reported,
            facts.CodeImported: self._on_code_imported,
            facts.FilesShared: SharedFiles().on_files_shared,
            facts.MemoryMeasured: self.limits.on_memory_measured,
            facts.UsageSampled: self.limits.on_usage_sampled,
            facts.WorkerDied: self._on_worker_died,
            facts.WorkerGivenUp: self._on_worker_given_up,
            facts.SignalReceived: self.drain.on_signal,
            facts.TimePassed: self._on_time_passed,
            facts.Synced: self._on_synced,
            facts.HandOutBlocked: self.pauses.on_blocked,
            facts.HandOutUnblocked: self.pauses.on_unblocked,
            facts.ControlAsked: self.orders.on_asked,
            facts.ClockJumped: self._on_clock_jumped,
            facts.PlacesChanged: self._on_places_changed,
            facts.PlaceFenced: self.place_notices.on_fenced,
            facts.CarrierNotice: self.place_notices.on_notice,
        }

    # ------------------------------------------------------------------ the interface

    def begin(
        self,
        now: float,
        at: str,
        first_n: int,
        *,
        mask: bytes | None = None,
        retry: Sequence[int] = (),
        elsewhere: Mapping[int, WorkerStarted] | None = None,
        drain_at: float | None = None,
        drain_reason: str = "",
    ) -> Effects:
        """Close the leases that earlier runs left open, then fill the queue.

        `mask`: 1 for each job that this run may hand out (default: all that are
        wanted). `retry` are failed jobs that were just reset for one more attempt: they
        go after all others, and those that had been quarantined run alone. `elsewhere`: workers
        of earlier runs, by incarnation, that may still live on other hosts. `drain_at`: when
        a drain begins by itself, on the run's clock, and why.
        """
        turn = Turn(now, at, first_n)
        if mask is None:
            mask = bytes(self.table.wanted)
        self.orders.mask = mask
        self.earlier.begin(turn, self.table.open_leases, mask, elsewhere or {})
        line_up(self.ledger, mask, retry)
        self.earlier.hold(turn)
        self.limits.begin(drain_at, drain_reason)
        return turn.effects

    def handle(self, events: Sequence[facts.Event], now: float, at: str, first_n: int) -> Effects:
        """Process a batch of events.

        `now`: seconds on the run's clock, which never jumps and stands still while the
        run is suspended. `at`: the same instant as ISO 8601 UTC. `first_n`: the number
        that the first of the returned records will get.
        """
        turn = Turn(now, at, first_n)
        turn.draining = self.draining
        for event in events:
            self._handlers[type(event)](event, turn)
        if self.orders.ending:
            self.orders.follow_up(turn)
        self._check_deadlines(turn)
        dispatcher = self.dispatcher
        if not self.stopped:
            self.queue.wake(now)
            dispatcher.start_workers(turn)
            if not self.pauses.since:
                dispatcher.hand_out(turn)
        if dispatcher.pace is not None and (self.stopped or self.pauses.since):
            dispatcher.pace.due = None  # no job waits for the rate now
        if self.stopped or self._nothing_left():
            dispatcher.dismiss_idle(turn)
        return turn.effects

    @property
    def draining(self) -> bool:
        return self.drain.begun

    @property
    def stopped(self) -> bool:
        """No job is handed out any more, even if some are left."""
        return self.draining or bool(self.dispatcher.failure)

    @property
    def finished(self) -> bool:
        """No worker is left and none will be started."""
        if self.dispatcher.held or any(worker.status != ABANDONED for worker in self.workers.values()):
            return False
        return self.stopped or (self._nothing_left() and not self.workers)

    def _nothing_left(self) -> bool:
        return self.dispatcher.nothing_left() and not self.earlier

    def next_deadline(self) -> float | None:
        """When `handle` must be called even if nothing happens; None if never."""
        wake = None if self.stopped else self.queue.next_time()
        times = (
            self.drain.grace_ends,
            wake,
            self.limits.next_deadline(),
            self.dispatcher.next_deadline(),
            self.earlier.next_deadline(),
        )
        return min((time for time in times if time is not None), default=None)

    def position(self) -> Position:
        """What a checkpoint needs besides the table and the statistics."""
        table = self.table
        at_work = [
            InProgress(job, table.attempts[job] + 1, worker.slot, worker.since_at)
            for worker, job in self.dispatcher.running()
        ]
        cut = [
            InProgress(job, table.attempts[job], None, "")
            for job in indices_of(table.state, INTERRUPTED)
            if table.wanted[job]
        ]
        open_leases = [
            (worker.incarnation, lease, job)
            for worker in self.workers.values()
            for lease, job in worker.leases
        ]
        dispatcher = self.dispatcher
        open_leases += dispatcher.held.open_leases()
        open_leases += self.earlier.open_leases()
        return Position(
            self.run, dispatcher.next_lease, dispatcher.next_incarnation, at_work + cut, open_leases
        )

    def unfit_jobs(self) -> list[int]:
        """Jobs of this run that cannot run with what there is; they stay pending."""
        return self.ledger.unfit_jobs()

    def own_memory_limits(self) -> Callable[[], dict[int, int]] | None:
        """Gives the limits of workers whose jobs ask for memory (`Limits.own_memory_limits`); None if none does."""
        placement = self.dispatcher.placement
        if placement is None or not placement.kinds.use_memory():
            return None
        return self.limits.own_memory_limits

    def blocked_by(self) -> list[str]:
        return list(self.pauses.since)

    # --------------------------------------------------------------- events: jobs

    def _on_jobs_finished(self, event: facts.JobsFinished, turn: Turn) -> None:
        if self.dispatcher.held:
            event = self.held_files.take_from(event, turn)
        worker = self.workers.get(event.incarnation)
        if worker is None or not event.outcomes:
            return  # the worker has ended already
        finished = 0
        for failures, outcomes in _by_kind(event.outcomes):
            leases = [outcome.lease for outcome in outcomes]
            jobs = None if failures else worker.settle_batch(leases)
            if jobs is not None:
                self.ledger.completed_batch(turn, worker.slot, jobs, leases, outcomes)
            else:
                jobs = self._settle_singly(turn, worker, outcomes)
            finished += len(jobs)
        worker.finished += finished
        self.finished_attempts += finished
        seconds = sum([outcome.seconds for outcome in event.outcomes])
        self.dispatcher.learn(worker, seconds, len(event.outcomes))
        # Outcomes may have gathered for a while before they were read. With more of them unread, time that these
        # do not explain is no sign of a long job: what would be revoked may be done already.
        explained = worker.since + pacing.time_of(seconds, len(event.outcomes))
        worker.begun = turn.now if event.more else min(turn.now, explained)
        worker.since, worker.since_at = turn.now, turn.at

    def _count_ended(self, attempts: int) -> None:
        self.finished_attempts += attempts

    def _settle_singly(self, turn: Turn, worker: WorkerState, outcomes: Sequence[Outcome]) -> list[int]:
        """Process outcomes one by one: failures, or outcomes not of the worker's first leases."""
        ledger, jobs = self.ledger, []
        for outcome in outcomes:
            job = worker.settle(outcome.lease)
            if job is None:
                continue  # not under a lease of this worker
            jobs.append(job)
            if isinstance(outcome, Failed):
                ledger.failed(turn, worker.slot, job, outcome)
            else:
                ledger.completed(turn, worker.slot, job, outcome)
        return jobs

    def _on_leases_dropped(self, event: facts.LeasesDropped, turn: Turn) -> None:
        worker = self.workers.get(event.incarnation)
        if worker is None:
            return
        self.dispatcher.revocations.withdrawn(turn, worker, event.leases)
        unasked = [lease for lease in event.leases if lease not in worker.revoked]
        worker.leaving |= bool(unasked)  # it knew of the drain before this process did
        dropped = {lease: worker.settle(lease) for lease in event.leases}
        returned = [(lease, job) for lease in unasked if (job := dropped[lease]) is not None]
        self.dispatcher.revocations.returned(turn, worker, returned)

    def _on_leases_withdrawn(self, event: facts.LeasesWithdrawn, turn: Turn) -> None:
        if (worker := self.workers.get(event.incarnation)) is not None:
            self.dispatcher.revocations.withdrawn(turn, worker, event.leases)

    def _on_job_reported(self, event: facts.JobReported, turn: Turn) -> None:
        worker = self.workers.get(event.incarnation)
        running = worker.running() if worker is not None else None
        if worker is None or running is None or self.table.ids[running[1]] != event.job:
            return  # from a thread that still runs after the end of its job
        if not self.ledger.is_current(*running):
            return
        if event.notice:
            detail = {"job": event.job, "worker": worker.slot, "text": event.notice}
            turn.effects.records.append(Noted("job_notice", turn.at, detail))
            turn.effects.commands.append(Tell("warning", event.notice))
        else:
            worker.reported(event.fraction, event.metrics, turn.now)

    def _on_code_imported(self, event: facts.CodeImported, turn: Turn) -> None:
        if (worker := self.workers.get(event.incarnation)) is not None:
            first = worker.first_lease or self.dispatcher.next_lease
            self.code_seen.note(event.modules, worker, first, turn)

    # ------------------------------------------------------------ events: workers

    def _on_worker_started(self, event: facts.WorkerLaunched, turn: Turn) -> None:
        worker = self.workers.get(event.incarnation)
        if worker is None:
            return
        worker.pid, worker.process_start = event.pid, event.process_start
        turn.effects.records.append(
            WorkerStarted(
                worker.slot,
                worker.incarnation,
                event.pid,
                turn.at,
                event.process_start,
                event.boot_id,
                event.outlives,
            )
        )

    def _on_worker_ready(self, event: facts.WorkerReady, turn: Turn) -> None:
        worker = self.workers.get(event.incarnation)
        if worker is not None and worker.status == STARTING and worker.kill_reason is None:
            self.dispatcher.worker_is_ready(worker, turn)

    def _on_worker_not_ready(self, event: facts.WorkerNotReady, turn: Turn) -> None:
        worker = self.workers.get(event.incarnation)
        if worker is not None:
            failure = event.failure
            worker.error = failure.traceback or f"{failure.type}: {failure.message}"
            worker.no_space = is_no_space(failure.errno)

    def _on_worker_start_failed(self, event: facts.WorkerStartFailed, turn: Turn) -> None:
        worker = self.workers.pop(event.incarnation, None)
        if worker is not None and worker.kill_reason is None:
            self.dispatcher.count_refused_start(turn, worker, event.error, stopped=self.stopped)

    def _on_worker_died(self, event: facts.WorkerDied, turn: Turn) -> None:
        worker = self.workers.pop(event.incarnation, None)
        if worker is None:
            return
        self.dispatcher.revocations.ended(worker)
        kind = classify_exit(worker, event, draining=self.draining)
        waiting = list(worker.leases)
        if waiting and worker.status != STARTING:
            lease, job = waiting.pop(0)
            if worker.kill_reason is not None and worker.kill_reason.lease != lease:
                kind = "interrupted"  # the job that it was killed for had ended; this one is not to blame
            seconds = max(0.0, turn.now - worker.since)
            message = (
                worker.kill_reason.message
                if worker.kill_reason is not None and kind == worker.kill_reason.outcome
                else self.place_notices.why_ended.get(worker.place, "")
                if event.cause
                else ""
            )
            if kind == "over_memory":
                event = with_measured_peak(event, worker.memory)
            self.ledger.crashed(turn, worker.slot, job, lease, kind, seconds, event, message)
            self.finished_attempts += 1
        self.ledger.give_back(waiting)
        turn.effects.records.append(worker_ended_record(worker, event, kind, turn.at))
        self._count_useless_worker(turn, worker, event)

    def _count_useless_worker(self, turn: Turn, worker: WorkerState, event: facts.WorkerDied) -> None:
        """Count a worker that died without finishing a job, so that it is not replaced for ever."""
        if worker.kill_reason is not None or event.cause:
            return
        if worker.no_space:
            self.dispatcher.wait_for_space(turn, worker)
            return
        if worker.status == STARTING:
            message = worker.error or f"a worker died before it was ready: {exit_phrase(event)}"
        elif worker.status == READY and not worker.finished and not worker.leases:
            message = f"a worker died before it had a job: {exit_phrase(event)}"
        else:
            return
        error = with_log_path(message, event)
        self.dispatcher.count_start_failure(turn, worker, error, stopped=self.stopped)

    def _on_worker_given_up(self, event: facts.WorkerGivenUp, turn: Turn) -> None:
        worker = self.workers.get(event.incarnation)
        if worker is None:
            return
        worker.set_status(ABANDONED)
        text = f"worker {worker.slot} (pid {worker.pid}) does not die of SIGKILL"
        if not self.stopped:
            text += "; another one takes its place"
        turn.effects.commands.append(Tell("warning", text))

    # ---------------------------------------------------- events: signals and time

    def _check_deadlines(self, turn: Turn) -> None:
        self.earlier.end_if_due(turn)
        self.limits.drain_if_due(turn)
        self.drain.kill_if_due(turn)
        self.dispatcher.enforce_limits(turn)

    def _on_time_passed(self, event: facts.TimePassed, turn: Turn) -> None:
        """Deadlines are checked after every batch anyway."""

    def _on_synced(self, event: facts.Synced, turn: Turn) -> None:
        self.ledger.synced(event.n)

    def _on_places_changed(self, event: facts.PlacesChanged, turn: Turn) -> None:
        if self.dispatcher.placement is not None:
            self.place_notices.on_changed(event, turn)
            self.dispatcher.placement.set_places(event.places, event.expected)
        self.earlier.on_places(turn, event.places)

    def _on_clock_jumped(self, event: facts.ClockJumped, turn: Turn) -> None:
        self.limits.on_clock_jumped(event)
        self.pauses.on_suspended(event, turn)
