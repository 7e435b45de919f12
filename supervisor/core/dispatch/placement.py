"""Hands jobs out by what they need: which one fits now, into which worker, and who waits for how long. Pure.

One pass goes through the lines of equal needs in the order of their first jobs. A job that fits goes to an idle
worker; if there is none, a worker is started and its amounts are kept for it meanwhile. A job that does not fit is
passed over. When as many later jobs as there are slots have gone ahead of it, it claims its amounts: from then on
the others use only what is left without them. There is one claim at a time.

Jobs of equal needs are handed out in batches, as without needs. Only the job that a worker runs takes something;
the leases that wait behind it take nothing. GPU jobs run in workers that were started with their devices; all
other workers of such an experiment see none.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from supervisor.core.dispatch import pacing
from supervisor.core.dispatch.fit import why_unfit
from supervisor.core.dispatch.job_kinds import JobKinds
from supervisor.core.dispatch.pacing import Durations
from supervisor.core.dispatch.place import Place
from supervisor.core.dispatch.turn import Turn
from supervisor.core.state.worker_state import ABANDONED, READY, STARTING, STOPPING, Holding, WorkerState
from supervisor.core.terms.needs import THOUSAND, Amounts, Totals, given

if TYPE_CHECKING:
    from supervisor.core.dispatch.dispatcher import Dispatcher


class Placement:
    """`totals` are those of the machine; their cores follow the number of slots."""

    def __init__(self, dispatcher: Dispatcher, kinds: JobKinds, totals: Totals) -> None:
        self._dispatcher = dispatcher
        self._queue = dispatcher.queue
        self.kinds = kinds
        self._with_gpus = kinds.use_gpus()
        self._totals = totals
        self._durations = [Durations() for _ in kinds.kinds]
        self._passed_over: dict[int, int] = {}  # later jobs that went ahead of a job while it did not fit
        self._claim: Holding | None = None
        self.resize(dispatcher.slots)

    def resize(self, slots: int) -> None:
        """There are so many slots now: some kinds may no longer fit, or fit again."""
        self.place = Place(_with_cores(self._totals, slots))
        kinds = enumerate(self.kinds.kinds)
        self._queue.close({number for number, kind in kinds if why_unfit(kind.amounts, self.place.totals)})

    def learn(self, worker: WorkerState, seconds: float, outcomes: int) -> None:
        """Outcomes of one worker, which took so many seconds together."""
        if worker.holding is not None:
            self._durations[worker.holding.kind].learn(seconds, outcomes)

    def look(self) -> Place:
        """What is taken now."""
        place = self.place
        place.clear()
        for worker in self._dispatcher.workers.values():
            holding = worker.holding
            if holding is not None and (worker.leases or worker.status == STARTING):
                # Somebody else has the slot of a worker that does not die, and its core with it.
                place.take(holding.amounts, holding.devices, cpus=worker.status != ABANDONED)
        return place

    def devices_of(self, holding: Holding | None) -> tuple[str, ...] | None:
        """What a worker for these devices may see; None if no job of the experiment asks for any."""
        if not self._with_gpus:
            return None
        return tuple(self.place.totals.gpus[device] for device in (holding.devices if holding else ()))

    def grant(self, holding: Holding | None) -> tuple[dict[str, Any], int]:
        """(what a job is given, for the record; thousandths of a core, if it or the experiment names them)."""
        if holding is None or (kind := self.kinds.kinds[holding.kind]).silent:
            return {}, 0
        return given(kind.amounts, self.devices_of(holding) or ()), kind.cpus

    def memory_of(self, worker: WorkerState) -> int:
        """Bytes that the job of this worker asked for; 0 if it did not say."""
        return worker.holding.amounts.memory if worker.holding is not None else 0

    def claimed(self) -> tuple[int, Amounts] | None:
        """The job that has claimed what it needs, with its amounts; None if none has."""
        if self._claim is None or not self._queue.lines[self._claim.kind].has_ready():
            return None
        return self._queue.lines[self._claim.kind].peek(), self._claim.amounts

    # --------------------------------------------------------------------- the pass

    def hand_out(self, turn: Turn) -> None:
        """Give every job that fits to a worker, in order, and start the workers that are missing."""
        claim = self._claim
        if claim is not None and not self._queue.lines[claim.kind].has_ready():
            self._claim = None
        _Pass(self, self._dispatcher, turn).run()

    def went_ahead(self, number: int, waiting: Iterable[int]) -> None:
        """So many jobs went ahead of the first jobs of the kinds in `waiting`, which do not fit. When as many as
        there are slots have done so, such a job claims what it needs, unless another one has a claim."""
        for kind in waiting:
            job = self._queue.lines[kind].peek()
            passed = self._passed_over[job] = self._passed_over.get(job, 0) + number
            if self._claim is None and passed >= self._dispatcher.slots:
                amounts = self.kinds.kinds[kind].amounts
                self._claim = Holding(kind, amounts, self.place.free_soonest(amounts))

    def provide(self, kind: int, jobs: Iterable[int]) -> None:
        """These jobs of one kind have what they need, or a worker with it is being started: they wait no
        longer."""
        for job in jobs if self._passed_over else ():
            self._passed_over.pop(job, None)
        if self._claim is not None and self._claim.kind == kind:
            self._claim = None

    def claim_against(self, kind: int) -> Holding | None:
        """The claim that jobs of this kind have to leave room for."""
        return None if self._claim is None or self._claim.kind == kind else self._claim

    def batch(self, kind: int, workers: int) -> tuple[int, int]:
        """(leases that a worker should hold, jobs that one hand-out may have) of this kind."""
        mean = self._durations[kind].mean
        at_once = self.place.at_once(self.kinds.kinds[kind].amounts)
        share = pacing.share(self._queue.lines[kind].size(), min(workers, at_once), mean)
        return self._dispatcher.leases_ahead(mean), share

    def new_holding(self, kind: int, ready: Iterator[tuple[int, ...]]) -> Holding | None:
        """What a job of this kind would be given now; None if it does not fit."""
        amounts = self.kinds.kinds[kind].amounts
        devices = self.place.fits(amounts, self.claim_against(kind), ready)
        return None if devices is None else Holding(kind, amounts, devices)


class _Pass:
    """One look at all lines. `idle`, `short`: workers that may get jobs; `coming`: slots that will be free."""

    def __init__(self, placement: Placement, dispatcher: Dispatcher, turn: Turn) -> None:
        self._placement = placement
        self._dispatcher = dispatcher
        self._turn = turn
        self._place = placement.look()
        self._pace = dispatcher.pace
        self._allowed = None if self._pace is None else self._pace.allowed(turn.now)
        workers = dispatcher.workers.values()
        ready = [worker for worker in workers if worker.status == READY]
        self._workers = len(ready)
        self._idle = [
            worker for worker in ready if not worker.leases and dispatcher.has_jobs_left(turn, worker)
        ]
        self._short = [worker for worker in ready if worker.leases]
        # Workers that are being started: those for one kind have its amounts, the others are for anybody.
        starting = [worker for worker in workers if worker.status == STARTING and worker.kill_reason is None]
        self._promised = [worker.holding.kind for worker in starting if worker.holding is not None]
        self._starting = len(starting) - len(self._promised)
        self._coming = sum(worker.status == STOPPING and not worker.leases for worker in workers)
        self._free = dispatcher.free_slots(turn)
        self._batches: list[tuple[int, Sequence[int]]] = []  # (kind, jobs) that were handed out in this pass
        self._kept: dict[int, int] = {}  # kind -> jobs for which amounts are kept until a worker is there

    def run(self) -> None:
        queue = self._dispatcher.queue
        lines = [(line.head(), kind) for kind, line in enumerate(queue.lines) if line.has_ready()]
        heapq.heapify(lines)
        waiting: list[int] = []  # kinds whose first job does not fit, in order
        while lines:
            _, kind = heapq.heappop(lines)
            line = queue.lines[kind]
            if self._kept.get(kind, 0) >= line.size():
                continue  # all its jobs are provided for
            went = self._hand_out(kind, waiting)
            if went is None:
                return
            if not went:
                waiting.append(kind)
                self._count_batches(kind)
            elif line.has_ready():
                heapq.heappush(lines, (line.head(self._kept.get(kind, 0)), kind))
        if not queue.has_ready():
            self._hand_out_alone()

    def _hand_out(self, kind: int, waiting: list[int]) -> bool | None:
        """Place the next jobs of a kind. False if they have to wait; None if no worker is left for anybody."""
        placement = self._placement
        holding = placement.new_holding(kind, (worker.devices for worker in self._idle))
        if holding is None:
            return self._pace is None and self._top_up(kind, waiting)
        for worker in self._idle:
            if worker.devices == holding.devices:
                return self._give(worker, holding, waiting)
        if kind in self._promised:
            self._promised.remove(kind)
            self._keep(holding, held=True)
        elif not holding.devices and self._starting:
            self._starting -= 1
            self._keep(holding)
        elif self._free:
            self._start(holding)
            self._keep(holding)
        elif self._free_a_slot(holding):
            self._keep(holding)
        else:
            return None if self._pace is not None or not self._top_up(kind, waiting) else True
        return True

    def _start(self, holding: Holding) -> None:
        self._dispatcher.start_one(self._turn, self._free.pop(0), holding if holding.devices else None)

    def _give(self, worker: WorkerState, holding: Holding, waiting: list[int]) -> bool | None:
        if self._allowed is not None:
            assert self._pace is not None
            if not self._allowed:
                self._pace.wait()
                return None
            self._allowed -= 1
            self._pace.spend(1)
        self._idle.remove(worker)
        ahead, share = self._placement.batch(holding.kind, self._workers)
        worker.holding = holding
        count = min(ahead, share) if self._pace is None else 1
        jobs = self._dispatcher.lease(self._turn, worker, count, holding.kind)
        if jobs:
            self._place.take(holding.amounts, holding.devices)
            self._short.append(worker)
            self._went(holding.kind, jobs, waiting)
        return True

    def _went(self, kind: int, jobs: Sequence[int], waiting: list[int]) -> None:
        """These jobs of a kind were handed out."""
        self._batches.append((kind, jobs))
        self._placement.provide(kind, jobs)
        self._placement.went_ahead(len(jobs), waiting)

    def _count_batches(self, kind: int) -> None:
        """The first job of this kind does not fit. A batch that was handed out before it was looked at may reach
        beyond it in the order."""
        lines = self._dispatcher.queue.lines
        head = lines[kind].head()
        later = sum(lines[other].behind(head, jobs) for other, jobs in self._batches if len(jobs) > 1)
        self._placement.went_ahead(later, [kind])

    def _top_up(self, kind: int, waiting: list[int]) -> bool:
        """More leases for a worker that runs jobs of this kind and holds few; whether there was one."""
        claim = self._placement.claim_against(kind)
        for worker in list(self._short):
            holding = worker.holding
            if holding is None or holding.kind != kind:
                continue
            self._short.remove(worker)
            ahead, share = self._placement.batch(kind, self._workers)
            count = worker.lease_count()
            if count > ahead // 2 or self._turn.now >= worker.begun + pacing.REVOKE_AFTER:
                continue  # it has enough, or runs a long job: new leases would be revoked
            if claim is not None and not self._place.respects(claim, holding):
                continue
            if jobs := self._dispatcher.lease(self._turn, worker, min(ahead - count, share), kind):
                self._went(kind, jobs, waiting)
                return True
        return False

    def _keep(self, holding: Holding, *, held: bool = False) -> None:
        """Keep amounts until a worker is there. `held`: its worker has them already."""
        kind = holding.kind
        self._placement.provide(kind, [self._dispatcher.queue.lines[kind].peek()])
        self._kept[kind] = self._kept.get(kind, 0) + min(self._placement.batch(kind, self._workers))
        if not held:
            self._place.take(holding.amounts, holding.devices)

    def _free_a_slot(self, holding: Holding) -> bool:
        """Whether a slot becomes free for a worker with these devices: an idle one with others has to go."""
        if self._coming:
            self._coming -= 1
            return True
        for worker in self._idle:
            if worker.devices != holding.devices:
                self._idle.remove(worker)
                self._dispatcher.dismiss(self._turn, worker)
                return True
        return False

    # -------------------------------------------------------------- jobs that run alone

    def _hand_out_alone(self) -> None:
        """Lease a job that must run alone, if no other job is leased or about to be."""
        dispatcher, queue = self._dispatcher, self._dispatcher.queue
        if not queue.has_alone() or dispatcher.ledger.awaiting_sync:
            return
        if any(worker.leases for worker in dispatcher.workers.values()):
            return
        kind = self._placement.kinds.kind_of[queue.peek_alone()]
        holding = self._placement.new_holding(kind, (worker.devices for worker in self._idle))
        if holding is None:
            return  # a worker with devices is being started for a job that has been cancelled since
        for worker in self._idle:
            if worker.devices == holding.devices:
                worker.holding = holding
                dispatcher.send_alone(self._turn, worker)
                return
        if kind in self._promised or (not holding.devices and self._starting):
            return
        if self._free:
            self._start(holding)
        else:
            self._free_a_slot(holding)


def _with_cores(totals: Totals, slots: int) -> Totals:
    return Totals(slots * THOUSAND, totals.memory, totals.gpus, totals.resources, totals.by_driver)
