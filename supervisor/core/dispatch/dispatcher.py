"""Who gets the next jobs, which workers there are, and when one has to go. Pure.

The dispatcher owns the workers. It keeps a few milliseconds of work with every worker, hands
long jobs out one by one, takes back what waits behind a long job, and fills free slots
with new workers as long as there are jobs for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from supervisor.core.dispatch import pacing, retry_policy
from supervisor.core.dispatch.ledger import Ledger, Turn
from supervisor.core.dispatch.pacing import Durations, TokenBucket
from supervisor.core.state.columns import get
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.worker_state import (
    ABANDONED,
    DOOMED,
    READY,
    STARTING,
    STOPPING,
    KillReason,
    WorkerState,
)
from supervisor.core.terms.events import KillWorker, RevokeJobs, StartJobs, StartWorker, StopWorker, Tell
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import Leased, Returned
from supervisor.core.terms.settings import Settings, starts_per_second


class Alone(NamedTuple):
    """A job that runs with nothing beside it."""

    incarnation: int
    lease: int
    slots: int  # how many workers there could be when it began


class Dispatcher:
    """`slots`: how many workers there may be. `failure`: why none can be started."""

    def __init__(
        self, table: JobTable, ledger: Ledger, settings: Settings, slots: int, position: Position
    ) -> None:
        self.table = table
        self.ledger = ledger
        self.queue = ledger.queue
        self.settings = settings
        self.slots = slots
        self.next_lease = position.next_lease
        self.next_incarnation = position.next_incarnation
        self.workers: dict[int, WorkerState] = {}
        self.failure = ""
        self.most_ahead = pacing.MOST_AHEAD  # leases that one worker may hold
        self._start_failures = 0
        self._refused_before = 0  # starts up to this incarnation were refused together
        self._start_not_before: float | None = None
        self.pace = None if settings.rate is None else TokenBucket(starts_per_second(settings.rate))
        self._waiting_reported_until = 0.0  # until when it was said that jobs wait
        self._alone: Alone | None = None
        self.durations = Durations()

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
        if self.queue.has_any() or self.ledger.held:
            return False
        is_current = self.ledger.is_current
        return not any(
            is_current(lease, job) for worker in self.workers.values() for lease, job in worker.leases
        )

    def only_waiting(self) -> bool:
        """Whether nothing runs and nothing can be handed out until some job's time has come."""
        queue = self.queue
        if not queue.waiting() or queue.has_ready() or queue.has_alone() or self.ledger.held:
            return False
        return not any(worker.leases for worker in self.workers.values())

    def next_deadline(self) -> float | None:
        """When a timeout, a take-back or another try to start a worker is due."""
        times = []
        for worker in self.workers.values():
            if worker.leases and worker.status in (READY, STOPPING):
                timeout = self.timeout(worker)
                if timeout is not None:
                    times.append(worker.since + timeout)
                if worker.held() > 1 and self._is_behind(worker):
                    times.append(worker.begun + pacing.REVOKE_AFTER)
        if self._start_not_before is not None:
            times.append(self._start_not_before)
        if self.pace is not None and self.pace.due is not None:
            times.append(self.pace.due)
        return min(times, default=None)

    def coalescing_delay(self) -> float:
        """For how many seconds nobody needs us, if nothing but outcomes comes."""
        held = [worker.held() for worker in self.workers.values() if worker.status == READY]
        if not held or len(held) < len(self.workers):
            return 0.0  # somebody starts or goes
        return pacing.coalescing_delay(self.durations.quick, min(held))

    # ----------------------------------------------------------------- what it learns

    def worker_is_ready(self, worker: WorkerState, turn: Turn) -> None:
        worker.status = READY
        worker.begin(turn.now, turn.at)
        self._start_failures = 0

    def count_refused_start(self, turn: Turn, incarnation: int, error: str, *, stopped: bool) -> None:
        """No process could be made. What was asked for at once is refused at once: that is
        one failure, or a shortage of a moment would end a run with many workers."""
        if incarnation >= self._refused_before:
            self._refused_before = self.next_incarnation
            self.count_start_failure(turn, error, stopped=stopped)

    def count_start_failure(self, turn: Turn, error: str, *, stopped: bool) -> None:
        """Back off; give up if so many in a row were never ready, and nobody is at work or
        may still become so."""
        self._start_failures += 1
        self._start_not_before = turn.now + retry_policy.start_delay(self._start_failures)
        if stopped:
            self._start_not_before = None
            return
        last_error = error.strip() or "the workers died before they were ready"
        if self._anybody(READY, STOPPING):
            text = f"a worker could not be started, the others go on: {last_error.splitlines()[-1]}"
            turn.effects.commands.append(Tell("warning", text))
        elif self._start_failures >= retry_policy.START_FAILURES and not self._anybody(STARTING):
            self.failure = last_error
            self.kill_all(turn)

    def wait_for_space(self, turn: Turn, error: str) -> None:
        """A worker found no room on a disk: there may be some later, however often it is tried."""
        self._start_not_before = turn.now + retry_policy.NO_SPACE_WAIT
        last_error = error.strip().splitlines()[-1]
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
        """End a worker's process; the attempt that it is at gets this outcome, and `message`. `stack`: it
        is wanted to know where it was."""
        if worker.status in (DOOMED, ABANDONED) or worker.kill_reason is not None:
            return
        lease = worker.leases[0][0] if worker.leases else 0
        worker.kill_reason = KillReason(outcome, lease, message)
        if worker.status != STARTING:
            worker.status = DOOMED
        turn.effects.commands.append(KillWorker(worker.incarnation, stack and bool(lease)))

    def kill_all(self, turn: Turn, *, stack: bool = False) -> None:
        """Nobody goes on, and nobody is to be started."""
        self._start_not_before = None
        for worker in self.workers.values():
            self.kill(turn, worker, "interrupted", stack=stack)

    def enforce_limits(self, turn: Turn) -> None:
        """End jobs beyond their timeout; take back what waits behind a long job."""
        for worker in self.workers.values():
            if not worker.leases or worker.status not in (READY, STOPPING):
                continue
            timeout = self.timeout(worker)
            # The same sums as in `next_deadline`, or rounding lets the loop spin.
            if timeout is not None and turn.now >= worker.since + timeout:
                self.kill(turn, worker, "timed_out", stack=True)
            elif (
                worker.held() > 1
                and turn.now >= worker.begun + pacing.REVOKE_AFTER
                and self._is_behind(worker)
            ):
                self.revoke_waiting(turn, worker)

    def timeout(self, worker: WorkerState) -> float | None:
        """Of the job that it is at: its own, else that of the experiment."""
        if self.table.own:
            own = self.table.own.get(worker.leases[0][1])
            if own is not None and own.timeout is not None:
                return own.timeout or None
        return self.settings.timeout

    def _is_behind(self, worker: WorkerState) -> bool:
        """Whether another worker is idle or gets on better. If nobody does, the machine is
        overloaded or all are at long jobs, and handing leases around would help nobody."""
        return any(
            not other.leases
            or other.since > worker.since
            or other.begun > worker.begun + pacing.CLEARLY_LATER
            for other in self.workers.values()
            if other.status == READY and other is not worker
        )

    # -------------------------------------------------------------------- take-back

    def revoke_waiting(self, turn: Turn, worker: WorkerState) -> None:
        """Revoke every lease of a worker but the one it is at."""
        waiting = [entry for entry in list(worker.leases)[1:] if entry[0] not in worker.revoked]
        if not waiting:
            return
        numbers = [lease for lease, _ in waiting]
        worker.revoked.update(numbers)
        self.returned(turn, worker, waiting)
        turn.effects.commands.append(RevokeJobs(worker.incarnation, numbers))

    def returned(self, turn: Turn, worker: WorkerState, leases: list[tuple[int, int]]) -> None:
        """These leases of a worker will not be run by it. That is recorded of all of them, also where
        the job is another's by now: whoever reads the records finds by them what it was at."""
        if not leases:
            return
        self.ledger.give_back(leases)
        worker.handed -= len(leases)
        numbers = [lease for lease, _ in leases]
        turn.effects.records.append(Returned(worker.incarnation, numbers, turn.at))

    # --------------------------------------------------------------------- staffing

    def start_workers(self, turn: Turn) -> None:
        """Fill the free slots, as far as there are jobs for them."""
        if self._start_not_before is not None and turn.now < self._start_not_before:
            return
        self._start_not_before = None
        decided = self._anybody(READY, STOPPING) or not self._anybody(STARTING)
        if self._start_failures >= retry_policy.START_FAILURES and not decided:
            return  # those that start will show whether it is of any use to try again
        taken = {worker.slot for worker in self.workers.values() if worker.status != ABANDONED}
        if len(taken) >= self.slots:
            return
        # Leases that wait behind another one are jobs for a free slot as well: once its worker
        # is there, they are taken back.
        behind = sum(max(0, worker.held() - 1) for worker in self.workers.values() if worker.status == READY)
        if not (self.queue.has_any() or self.ledger.held or behind):
            return
        idle = sum(
            1 for worker in self.workers.values() if worker.status in (STARTING, READY) and not worker.leases
        )
        jobs = self.queue.size() + len(self.ledger.held) + self.queue.has_alone() + behind
        wanted = min(self.slots, len(taken) - idle + jobs)
        if self._start_failures:
            wanted = min(wanted, len(taken) + 1)  # one try at a time
        for slot in range(self.slots):
            if len(taken) >= wanted:
                return
            if slot not in taken:
                taken.add(slot)
                self._start_worker(turn, slot)

    def _start_worker(self, turn: Turn, slot: int) -> None:
        incarnation = self.next_incarnation
        self.next_incarnation += 1
        self.workers[incarnation] = WorkerState(slot, incarnation)
        turn.effects.commands.append(StartWorker(slot, incarnation))

    def dismiss_idle(self, turn: Turn) -> None:
        """Nothing more will come: let the idle go, end those that only repeat others' work."""
        self._start_not_before = None
        for worker in self.workers.values():
            if not worker.leases:
                self.dismiss(turn, worker)
            elif not any(self.ledger.is_of_use(*entry) for entry in worker.leases):
                self.kill(turn, worker, "interrupted")

    def resize(self, turn: Turn, slots: int) -> tuple[int, int]:
        """Have so many workers from here on. Of those that are too many, the idle ones go
        and the busy ones finish their job first: how many of each."""
        self.slots = slots
        idle = busy = 0
        for worker in self.workers.values():
            if worker.slot < slots or worker.status not in (STARTING, READY):
                continue
            if worker.status == READY and worker.leases:
                busy += 1
                self.revoke_waiting(turn, worker)
                worker.status = STOPPING
                turn.effects.commands.append(StopWorker(worker.incarnation))
            else:
                idle += 1
                self.dismiss(turn, worker)
        return idle, busy

    def dismiss(self, turn: Turn, worker: WorkerState) -> None:
        """Let one that has nothing to do go. In the middle of its `setup()` it may have made a
        temporary directory, which its exit functions remove: so it is asked, too."""
        if worker.status == READY or (worker.status == STARTING and worker.pid):
            worker.status = STOPPING
            turn.effects.commands.append(StopWorker(worker.incarnation))
        elif worker.status == STARTING:  # there is no process yet
            self.kill(turn, worker, "interrupted")

    # --------------------------------------------------------------------- hand-out

    def hand_out(self, turn: Turn) -> None:
        """Give the workers that run short of leases new ones, the emptiest first."""
        if self._alone is not None and self._alone_runs(self._alone):
            return
        ready = [worker for worker in self.workers.values() if worker.status == READY]
        if not self.queue.has_ready():
            if self.pace is not None:
                self.pace.due = None
            self._hand_out_alone(turn, ready)
            self._tell_waiting(turn)
            return
        if self.pace is not None:
            self._hand_out_paced(turn, ready, self.pace)
            return
        mean = self.durations.mean
        ahead = pacing.leases_ahead(mean, self.most_ahead)
        for worker in sorted(ready, key=WorkerState.held):
            held = worker.held()
            if held > ahead // 2:
                continue
            if worker.leases and turn.now >= worker.begun + pacing.REVOKE_AFTER:
                continue  # it is at a long job: what it got would be taken back
            self._lease(turn, worker, min(ahead - held, pacing.share(self.queue.size(), len(ready), mean)))

    def _hand_out_paced(self, turn: Turn, ready: list[WorkerState], pace: TokenBucket) -> None:
        """With `--rate` a hand-out is a start: one job for each idle worker, as it allows."""
        allowed = pace.allowed(turn.now)
        for worker in ready:
            if worker.leases or not self.queue.has_ready():
                continue
            if not allowed:
                pace.wait()
                return
            self._lease(turn, worker, 1)
            if worker.leases:
                allowed -= 1
                pace.spend(1)

    def _hand_out_alone(self, turn: Turn, ready: list[WorkerState]) -> None:
        """A job that must run alone goes out when nothing else is out."""
        if self.ledger.held or not ready or not self.queue.has_alone():
            return
        if not any(worker.leases for worker in self.workers.values()):
            self._alone = Alone(ready[0].incarnation, self.next_lease, self.slots)
            self._send(turn, ready[0], [self.queue.take_alone()])

    def _alone_runs(self, alone: Alone) -> bool:
        """Whether the job that was handed out alone is still at work; then nobody else is to begin."""
        worker = self.workers.get(alone.incarnation)
        if worker is None or worker.status == ABANDONED or not worker.leases:
            self._alone = None
            return False
        return True

    def workers_that_make_room(self, worker: WorkerState) -> int:
        """How many workers' share of the memory a worker may have: 1, or, while it is at a job that
        runs alone, as many as there might have been when it began."""
        alone = self._alone
        if alone is None or not worker.leases or worker.leases[0][0] != alone.lease:
            return 1
        return alone.slots

    def _tell_waiting(self, turn: Turn) -> None:
        """Say so when the run stands still until a job may be tried again."""
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

    def _lease(self, turn: Turn, worker: WorkerState, count: int) -> None:
        limit = self.settings.max_jobs_per_worker
        if limit is not None:
            count = min(count, limit - worker.handed)
            if count <= 0:
                if not worker.leases:
                    self.dismiss(turn, worker)
                return
        jobs = self.queue.take(count, empty_handed=not worker.leases)
        if jobs:
            self._send(turn, worker, jobs)

    def _send(self, turn: Turn, worker: WorkerState, jobs: Sequence[int]) -> None:
        first = self.next_lease
        self.next_lease += len(jobs)
        attempts = self.ledger.lease(jobs, first)
        if not worker.leases:
            worker.begin(turn.now, turn.at)
        worker.first_lease = worker.first_lease or first
        worker.leases.add(first, jobs)
        worker.handed += len(jobs)
        ids = list(get(self.table.ids, jobs))
        turn.effects.records.append(Leased(worker.slot, worker.incarnation, first, ids, turn.at))
        turn.effects.commands.append(StartJobs(worker.incarnation, first, jobs, attempts))
