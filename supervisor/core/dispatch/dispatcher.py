"""Starts and ends workers, hands jobs out, revokes leases. Pure.

The dispatcher owns the workers. Each holds a few milliseconds of work; long jobs are handed out one by
one. Leases that wait behind a long job are revoked and given to others. Free slots get new workers as
long as there are jobs for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.core.dispatch import pacing, retry_policy
from supervisor.core.dispatch.alone_jobs import AloneJobs
from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.dispatch.pacing import Durations, TokenBucket
from supervisor.core.dispatch.placement import Placement
from supervisor.core.dispatch.retry_policy import Sort, StartFailures
from supervisor.core.dispatch.revocations import Revocations
from supervisor.core.dispatch.turn import Turn
from supervisor.core.places.job_kinds import JobKinds
from supervisor.core.places.place import SharedResources
from supervisor.core.state.columns import get
from supervisor.core.state.held_outcomes import HeldOutcomes
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.worker_state import (
    ABANDONED,
    DOOMED,
    READY,
    STARTING,
    STOPPING,
    Holding,
    KillReason,
    WorkerState,
)
from supervisor.core.state.workers_now import Workers
from supervisor.core.terms.events import (
    NODE_ENDED,
    NODE_LOST,
    KillWorker,
    PlaceFacts,
    StartJobs,
    StartWorker,
    StopWorker,
    Tell,
    WorkerDied,
)
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import Leased
from supervisor.core.terms.settings import Settings, starts_per_second
from supervisor.core.terms.wording import one_line

MOST_HELD = (
    4  # outcomes of a worker that wait for files, before it gets no more jobs: its node has to keep them
)
_ANY: Sort = (0, ())  # the only sort of workers where no job says what it needs


class Dispatcher:
    """`slots`: how many workers there may be. `failure`: why none can be started. `job_bytes`: average size of a
    job's line in the plan."""

    def __init__(
        self,
        table: JobTable,
        ledger: Ledger,
        settings: Settings,
        slots: int,
        position: Position,
        job_bytes: float,
    ) -> None:
        self.table = table
        self.ledger = ledger
        self.queue = ledger.queue
        self.settings = settings
        self.slots = slots
        self.next_lease = position.next_lease
        self.next_incarnation = position.next_incarnation
        self.workers = Workers(self.timeout)
        self.held = HeldOutcomes()
        self.failure = ""
        self.last_start_error = ""
        self._most_ahead = pacing.most_ahead(job_bytes)  # leases that one worker may hold
        self.revocations = Revocations(ledger)
        self.starts = StartFailures()
        self.pace = None if settings.rate is None else TokenBucket(starts_per_second(settings.rate))
        self._waiting_reported_until = 0.0  # the user knows that jobs wait until then
        self.alone = AloneJobs()
        self.durations = Durations()
        self.placement: Placement | None = None  # if jobs say what they need
        # Nodes that get nothing now, because they have little memory left.
        self.short_places: set[int] = set()

    def place_by_needs(
        self, kinds: JobKinds, places: Sequence[PlaceFacts], shared: SharedResources, *, of_nodes: bool
    ) -> None:
        """From now on hand jobs out by what they need and what the places have, each and together."""
        self.placement = Placement(self, kinds, shared, of_nodes=of_nodes)
        self.placement.set_places(places)

    # --------------------------------------------------------------------- questions

    def running(self) -> list[tuple[WorkerState, int]]:
        """Workers that are at a job, with the job's number."""
        pairs = []
        for worker in self.workers.values():
            current = worker.running()
            if current is not None and self.ledger.is_current(*current):
                pairs.append((worker, current[1]))
        return pairs

    def nothing_left(self) -> bool:
        """Every job that this run may run has ended (superseded leases do not count)."""
        if self.queue.has_any() or self.ledger.awaiting_sync or self.held:
            return False
        is_current = self.ledger.is_current
        return not any(
            is_current(lease, job) for worker in self.workers.values() for lease, job in worker.leases
        )

    def only_waiting(self) -> bool:
        """Whether nothing runs and nothing can be handed out until some job's time has come."""
        queue = self.queue
        if not queue.waiting() or queue.has_ready() or queue.has_alone() or self.ledger.awaiting_sync:
            return False
        return not any(worker.leases for worker in self.workers.values())

    def next_deadline(self) -> float | None:
        """When a timeout, a revocation or another try to start a worker is due."""
        times = [
            worker.begun + self.revocations.after
            for worker in self.workers.with_several()
            if worker.lease_count() > 1 and pacing.is_behind(worker, self.workers.values())
        ]
        if (confirmed := self.revocations.next_deadline()) is not None:
            times.append(confirmed)
        if (timeout := self.workers.first_timeout()) is not None:
            times.append(timeout)
        if (start := self.starts.next_time()) is not None:
            times.append(start)
        if self.pace is not None and self.pace.due is not None:
            times.append(self.pace.due)
        return min(times, default=None)

    def coalescing_delay(self) -> float:
        """Seconds for which outcomes may gather before the loop processes them."""
        workers = self.workers
        if changing := len(workers) - workers.ready:  # they start or end
            return pacing.MANY_CHANGES_DELAY if changing >= pacing.MANY_WORKERS else 0.0
        # Where jobs say what they need, workers may have nothing to do for long.
        idle = 0 if self.placement is None else workers.idle
        least = workers.least_held(idle=self.placement is None)
        return (
            0.0
            if least is None
            else pacing.coalescing_delay(
                self.durations.quick, least, workers.ready - idle, self.revocations.gathering
            )
        )

    # ----------------------------------------------------------------- what it learns

    def learn(self, worker: WorkerState, seconds: float, outcomes: int) -> None:
        """Learn that `outcomes` jobs of this worker took `seconds` together."""
        self.durations.learn(seconds, outcomes)
        if self.placement is not None:
            self.placement.learn(worker, seconds, outcomes)

    def worker_is_ready(self, worker: WorkerState, turn: Turn) -> None:
        worker.set_status(READY)
        worker.begin(turn.now, turn.at)
        self.starts.forget(worker.sort())

    def count_refused_start(self, turn: Turn, worker: WorkerState, error: str, *, stopped: bool) -> None:
        """No process could be started."""
        if self.starts.is_new(worker.sort(), worker.incarnation, self.next_incarnation):
            self.count_start_failure(turn, worker, error, stopped=stopped)

    def count_start_failure(self, turn: Turn, worker: WorkerState, error: str, *, stopped: bool) -> None:
        """Back off. Give up after `START_FAILURES` workers in a row that never got ready, if no worker
        runs or is starting; where jobs say what they need, `Placement` gives up."""
        if stopped:
            self.starts.forget_delays()
            return
        self.starts.count(worker.sort(), turn.now)
        last_error = error.strip() or "the workers died before they were ready"
        self.last_start_error = last_error
        if self._anybody(READY, STOPPING):
            place = self.name_of_place(worker.place)
            where = f" on {one_line(place)}" if place else ""
            text = f"a worker could not be started{where}, the others continue: {last_error.splitlines()[-1]}"
            turn.effects.commands.append(Tell("warning", text))
        elif (
            self.placement is None
            and self.starts.number(worker.sort()) >= retry_policy.START_FAILURES
            and not self._anybody(STARTING)
        ):
            self.give_up(turn)

    def give_up(self, turn: Turn) -> None:
        """End the run: no worker can be started."""
        self.failure = self.last_start_error
        self.kill_all(turn)

    def wait_for_space(self, turn: Turn, worker: WorkerState) -> None:
        """A worker found a disk full. Free space may come back, so this is tried without a limit."""
        self.starts.wait(worker.sort(), turn.now + retry_policy.NO_SPACE_WAIT)
        last_error = worker.error.strip().splitlines()[-1]
        text = (
            f"a worker could not be started, another try in {retry_policy.NO_SPACE_WAIT:.0f} s: {last_error}"
        )
        turn.effects.commands.append(Tell("warning", text))

    def _anybody(self, *statuses: str) -> bool:
        return any(worker.status in statuses for worker in self.workers.values())

    # ------------------------------------------------------------------------ kills

    def kill(
        self, turn: Turn, worker: WorkerState, outcome: str, message: str = "", *, stack: bool = False
    ) -> None:
        """Kill a worker. The attempt that it runs gets this outcome and, if not empty, this message.

        `stack`: ask for its Python stack first.
        """
        if worker.status in (DOOMED, ABANDONED) or worker.kill_reason is not None:
            return
        lease = worker.leases[0][0] if worker.leases else 0
        worker.kill_reason = KillReason(outcome, lease, message)
        if worker.status != STARTING:
            worker.set_status(DOOMED)
        turn.effects.commands.append(KillWorker(worker.incarnation, stack and bool(lease)))

    def kill_all(self, turn: Turn, *, stack: bool = False) -> None:
        """End all workers, start none."""
        self.starts.forget_delays()
        for worker in self.workers.values():
            self.kill(turn, worker, "interrupted", stack=stack)
        self.end_held(turn, list(self.held), "interrupted")

    def end_held(self, turn: Turn, leases: Sequence[int], kind: str) -> None:
        """Wait no longer for these outcomes: their attempts end as `kind`."""
        cause = NODE_LOST if kind == "lost" else NODE_ENDED
        message = "stopped before its files had arrived" if kind == "interrupted" else ""
        for lease in leases:
            held = self.held.pop(lease)
            seconds, died = max(0.0, turn.now - held.since), WorkerDied(held.incarnation, cause=cause)
            self.ledger.crashed(turn, held.slot, held.job, lease, kind, seconds, died, message)

    def enforce_limits(self, turn: Turn) -> None:
        """End jobs beyond their timeout; revoke leases that wait behind a long job."""
        for worker in self.workers.timed_out(turn.now):
            self.kill(turn, worker, "timed_out", stack=True)
        for worker in self.workers.with_several():
            # The same sum as in `next_deadline`, or rounding lets the loop spin.
            if (
                worker.lease_count() > 1
                and turn.now >= worker.begun + self.revocations.after
                and pacing.is_behind(worker, self.workers.values())
            ):
                self.revocations.revoke_if_silent(turn, worker)
        self.revocations.take_from_silent(turn)

    def timeout(self, worker: WorkerState) -> float | None:
        """Seconds after which the worker's job has run for too long: its own timeout, else the experiment's, and
        the time for which outcomes may gather before they are told; None if unlimited."""
        seconds = self.settings.timeout
        if self.table.own:
            own = self.table.own.get(worker.leases[0][1])
            if own is not None and own.timeout is not None:
                seconds = own.timeout or None
        return None if seconds is None else seconds + self.revocations.gathering

    # --------------------------------------------------------------------- staffing

    def start_workers(self, turn: Turn) -> None:
        """Fill the free slots, as far as there are jobs for them; `hand_out` does so for jobs that say what they
        need."""
        self.starts.end_delays(turn.now)  # also while nothing is handed out
        if self.placement is not None or not self.may_start(_ANY) or not (free := self.free_slots()):
            return
        # Leases that wait behind another one are jobs for a free slot as well: they are revoked when its
        # worker is ready.
        behind = sum(
            max(0, worker.lease_count() - 1) for worker in self.workers.values() if worker.status == READY
        )
        if not (self.queue.has_any() or self.ledger.awaiting_sync or behind):
            return
        idle = sum(
            1 for worker in self.workers.values() if worker.status in (STARTING, READY) and not worker.leases
        )
        jobs = self.queue.size() + len(self.ledger.awaiting_sync) + self.queue.has_alone() + behind
        # After a failure one at a time, to see whether it is of any use.
        most = 1 if self.starts.number(_ANY) else self.slots
        for slot in free[: max(0, min(jobs - idle, most))]:
            self.start_one(turn, slot)

    def may_start(self, sort: Sort) -> bool:
        """Whether a worker of this sort may be started now: not soon after one that failed, nor after several
        while others start, which will show whether it is of any use."""
        if self.starts.waits(sort):
            return False
        if self.starts.number(sort) < retry_policy.START_FAILURES:
            return True
        alike = {worker.status for worker in self.workers.values() if worker.sort() == sort}
        return STARTING not in alike or not alike.isdisjoint((READY, STOPPING))

    def free_slots(self) -> list[int]:
        """The slots without a worker, of a run in which slots are all that is counted."""
        most = self.slots - (len(self.workers) - self.workers.abandoned)
        if most <= 0:
            return []
        taken = {worker.slot for worker in self.workers.values() if worker.status != ABANDONED}
        return [slot for slot in range(self.slots) if slot not in taken][:most]

    def start_one(
        self, turn: Turn, slot: int, place: int = 0, local_slot: int = -1, holding: Holding | None = None
    ) -> None:
        """Start a worker. `local_slot`: its number in its place. `holding`: for a job that gets these devices."""
        incarnation = self.next_incarnation
        self.next_incarnation += 1
        worker = WorkerState(slot, incarnation, holding.devices if holding is not None else (), place)
        worker.holding = holding
        self.workers[incarnation] = worker
        devices = self.placement.devices_of(holding) if self.placement is not None else None
        turn.effects.commands.append(StartWorker(slot, incarnation, devices, place, local_slot))

    def dismiss_idle(self, turn: Turn) -> None:
        """No job is left to hand out: stop idle workers, and kill those that only run superseded leases."""
        self.starts.forget_delays()
        for worker in self.workers.values():
            if not worker.leases:
                self.dismiss(turn, worker)
            elif not any(self.ledger.is_of_use(*entry) for entry in worker.leases):
                self.kill(turn, worker, "interrupted")

    def resize(self, turn: Turn, slots: int) -> tuple[int, int]:
        """Change the number of workers; of those that are too many, (idle ones, which are stopped at once;
        busy ones, which finish their job first)."""
        self.slots = slots
        if self.placement is not None:
            self.placement.resize(slots)
            for worker in self.workers.values():  # what waits behind a running job may no longer fit
                if worker.status == READY:
                    self.revocations.revoke_waiting(turn, worker)
        idle = busy = 0
        for worker in self.workers.values():
            if worker.slot < slots or worker.status not in (STARTING, READY):
                continue
            if worker.status == READY and worker.leases:
                busy += 1
                self.revocations.revoke_waiting(turn, worker)
                worker.set_status(STOPPING)
                turn.effects.commands.append(StopWorker(worker.incarnation))
            else:
                idle += 1
                self.dismiss(turn, worker)
        return idle, busy

    def dismiss(self, turn: Turn, worker: WorkerState) -> None:
        """Stop a worker without jobs. One that is still in `setup()` is asked to exit, not killed: its exit
        functions may have a temporary directory to remove."""
        if worker.status == READY or (worker.status == STARTING and worker.pid):
            worker.set_status(STOPPING)
            turn.effects.commands.append(StopWorker(worker.incarnation))
        elif worker.status == STARTING:  # there is no process yet
            self.kill(turn, worker, "interrupted")

    def name_of_place(self, place: int) -> str:
        """For people; "" on this machine alone."""
        known = self.placement.places.get(place) if self.placement is not None else None
        return known.name if known is not None else ""

    # --------------------------------------------------------------------- hand-out

    def hand_out(self, turn: Turn) -> None:
        """Lease jobs to the workers that are short of them, those with the fewest first."""
        held = self.alone.places(self.workers)
        if self.placement is not None:
            held = self.short_places.union(held) if self.short_places else held
            if not held or any(place not in held for place in self.placement.places):
                self.placement.hand_out(turn, held)
                if not self.queue.has_ready():
                    self._tell_waiting(turn)
            return
        if held:
            return
        if not self.queue.has_ready():
            if self.pace is not None:
                self.pace.due = None
            self._hand_out_alone(turn)
            self._tell_waiting(turn)
            return
        if self.pace is not None:
            self._hand_out_paced(turn, self.pace)
            return
        mean = self.durations.mean
        ahead = self.leases_ahead(mean)
        ready = self.workers.ready
        even = pacing.even_share(self.queue.size() + self.workers.leases, ready)
        for worker in self.workers.holding(ahead // 2):
            count = worker.lease_count()
            if count >= even:
                continue
            if worker.leases and turn.now >= worker.begun + self.revocations.after:
                continue  # it runs a long job: new leases would be revoked
            most = min(ahead, even) - count
            if most > 1:
                most = min(most, pacing.share(self.queue.size(), ready, mean))
            self.lease(turn, worker, most)

    def _hand_out_paced(self, turn: Turn, pace: TokenBucket) -> None:
        """With `--rate` each lease starts at once: one job for each idle worker, as the rate allows."""
        allowed = pace.allowed(turn.now)
        for worker in self.workers.holding(0):
            if worker.leases or not self.queue.has_ready():
                continue
            if not allowed:
                pace.wait()
                return
            self.lease(turn, worker, 1)
            if worker.leases:
                allowed -= 1
                pace.spend(1)

    def _hand_out_alone(self, turn: Turn) -> None:
        """Lease a job that must run alone, if no other job is leased."""
        if self.ledger.awaiting_sync or not self.queue.has_alone():
            return
        idle = self.workers.holding(0)
        if idle and not any(worker.leases for worker in self.workers.values()):
            self.send_alone(turn, idle[0])

    def send_alone(self, turn: Turn, worker: WorkerState) -> None:
        """Lease the next job that must run alone to this worker."""
        slots = self.slots if self.placement is None else self.placement.places[worker.place].slots
        self.alone.begin(worker, self.next_lease, slots)
        self._send(turn, worker, [self.queue.take_alone()])

    def _tell_waiting(self, turn: Turn) -> None:
        """Tell the user when nothing runs until a job may be tried again."""
        due = self.queue.next_time()
        if (
            due is None
            or due <= self._waiting_reported_until
            or due < turn.now + retry_policy.WAIT_WORTH_TELLING
        ):
            return
        if self.only_waiting():
            self._waiting_reported_until = due
            number = self.queue.waiting()
            text = f"nothing to run now: {number} {'job waits' if number == 1 else 'jobs wait'} for another attempt"
            turn.effects.commands.append(Tell("info", f"{text}, the first for {due - turn.now:.0f} s"))

    def leases_ahead(self, mean: float | None) -> int:
        """How many leases a worker should hold of jobs that take `mean` seconds."""
        return pacing.leases_ahead(mean, self._most_ahead, gathering=self.revocations.gathering)

    def has_jobs_left(self, turn: Turn, worker: WorkerState) -> bool:
        """Whether a worker may get more jobs (`--max-jobs-per-worker`). One without leases that may not is
        stopped."""
        if self.held and self.held.of_worker(worker.incarnation) >= MOST_HELD:
            return False
        limit = self.settings.max_jobs_per_worker
        if limit is None or worker.handed < limit:
            return True
        if not worker.leases:
            self.dismiss(turn, worker)
        return False

    def lease(self, turn: Turn, worker: WorkerState, count: int, kind: int = 0) -> Sequence[int]:
        """Lease up to `count` jobs of one kind of needs to a worker; those that it got."""
        if not self.has_jobs_left(turn, worker):
            return ()
        if (limit := self.settings.max_jobs_per_worker) is not None:
            count = min(count, limit - worker.handed)
        jobs = self.queue.take(count, empty_handed=not worker.leases, kind=kind)
        if jobs:
            self._send(turn, worker, jobs)
        return jobs

    def _send(self, turn: Turn, worker: WorkerState, jobs: Sequence[int]) -> None:
        first = self.next_lease
        self.next_lease += len(jobs)
        attempts = self.ledger.lease(jobs, first)
        if not worker.leases:
            worker.begin(turn.now, turn.at)
        worker.first_lease = worker.first_lease or first
        worker.add_leases(first, jobs)
        ids = list(get(self.table.ids, jobs))
        got, cpus, place = self.placement.grant(worker) if self.placement is not None else ({}, 0, "")
        turn.effects.records.append(Leased(worker.slot, worker.incarnation, first, ids, turn.at, got, place))
        turn.effects.commands.append(StartJobs(worker.incarnation, first, jobs, attempts, cpus))
