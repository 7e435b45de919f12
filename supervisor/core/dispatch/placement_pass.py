"""One look at all lines of jobs with equal needs, in the order of their first jobs: who gets a worker now. Pure.

A job that fits goes to an idle worker; if there is none, a worker is started and its amounts are kept for it
meanwhile. One that does not fit is passed over, which `placement` counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from supervisor.core.dispatch.crews import ByLoad, Crew
from supervisor.core.dispatch.job_queue import Head
from supervisor.core.dispatch.retry_policy import START_FAILURES, Sort
from supervisor.core.dispatch.turn import Turn
from supervisor.core.state.worker_state import READY, STARTING, STOPPING, Holding, WorkerState

if TYPE_CHECKING:
    from supervisor.core.dispatch.dispatcher import Dispatcher
    from supervisor.core.dispatch.placement import Placement


# How many kinds of jobs that do not fit are counted, the first ones: see `Placement`.
MOST_WAITING = 32


class Went(Enum):
    """What became of the next jobs of a kind.

    PROVIDED: they have a worker, or will have one. UNFIT: what they need is not free. BARRED: the worker that they
    need may not be started now. NOWHERE: no worker is left for anybody.
    """

    PROVIDED, UNFIT, BARRED, NOWHERE = range(4)


class Walked(Enum):
    """How far a walk along the lines has come.

    NOWHERE: no worker is left for anybody. A_CLAIM_WAS_MET: maybe in another place than the one where others have left
    room for it, or by a worker that runs such a job already; those before it in the order have waited for nothing, and
    are next.
    """

    TO_THE_END, NOWHERE, A_CLAIM_WAS_MET = range(3)


class PlacementPass:
    """One look at all lines. `held`: places that get nothing. `short`: busy workers that may get more jobs."""

    def __init__(
        self, placement: Placement, dispatcher: Dispatcher, turn: Turn, held: Collection[int] = ()
    ) -> None:
        self._placement = placement
        self._dispatcher = dispatcher
        self._turn = turn
        self._pace = dispatcher.pace
        self._allowed = None if self._pace is None else self._pace.allowed(turn.now)
        self._crews = {
            number: Crew(place) for number, place in placement.places.items() if number not in held
        }
        self._workers = 0
        self._short: list[WorkerState] = []
        for worker in list(dispatcher.workers.values()):
            if (crew := self._crews.get(worker.place)) is not None:
                crew.add(worker)
            if worker.status != READY:
                continue
            self._workers += 1
            if worker.leases.size:
                self._short.append(worker)
            elif dispatcher.has_jobs_left(turn, worker) and crew is not None:
                crew.add_idle(worker)
        for crew in self._crews.values():
            crew.count_free()
        self._batches: list[tuple[int, Sequence[int]]] = []  # (kind, jobs) that were handed out in this pass
        self._counted: dict[int, int] = {}  # by kind: how many of these it knows, in which it was passed over
        self._by_load: dict[str, ByLoad] = {}  # by what places are looked for
        self._kept: dict[int, int] = {}  # kind -> jobs for which amounts are kept until a worker is there
        self._room: tuple[float, float] | None = None  # see `Placement.room`; None: to be looked at anew
        # Kinds that may get something even where no room is left: their jobs run, a worker for them is being
        # started, or they have the claim.
        self._known = {worker.holding.kind for worker in dispatcher.workers.values() if worker.holding}
        if placement.claim is not None:
            self._known.add(placement.claim.kind)
        self._started: set[Sort] = set()
        self._barred: set[Sort] = set()  # workers that jobs wait for, and that may not be started now

    def run(self) -> None:
        queue, walked = self._dispatcher.queue, Walked.A_CLAIM_WAS_MET
        while walked is Walked.A_CLAIM_WAS_MET:
            walked = self._walk()
        if walked is Walked.NOWHERE:
            return
        while not queue.has_ready() and self._hand_out_alone():
            pass
        self._start_for_waiting_leases()
        if self._barred and not self._batches:
            self._give_up_if_nothing_else_is_left()

    def _walk(self) -> Walked:
        """Look at each line, or at those up to the claimant."""
        queue, claim = self._dispatcher.queue, self._placement.claim
        order, at = queue.in_order(), 0
        again: list[tuple[Head, int]] = []  # heap of lines that come once more, further on
        waiting: list[int] = []  # the first kinds whose first job does not fit, in order
        while at < len(order) or again:
            if again and (at == len(order) or again[0] < order[at]):
                head, kind = heapq.heappop(again)
            else:
                head, kind = order[at]
                at += 1
            if len(waiting) == MOST_WAITING and self._surely_waits(kind):
                if not self._is_a_core_free():
                    again, at = self._known_ones(again, (head, kind)), len(order)
                continue
            line, kept = queue.lines[kind], self._kept.get(kind, 0)
            if not line.has_ready():
                queue.touch(kind)
                continue
            if kept >= line.size():
                continue  # all its jobs are provided for
            if (now := line.head(kept)) > head:  # jobs have ended since they were queued
                queue.touch(kind)
                heapq.heappush(again, (now, kind))
                continue
            went = self._hand_out(kind, waiting)
            if went is Went.NOWHERE:
                self._count_for_others([*again, *order[at:]], waiting)
                return Walked.NOWHERE
            if claim is not None and self._placement.claim is not claim:
                self._counted.update(dict.fromkeys(waiting, len(self._batches)))
                return Walked.A_CLAIM_WAS_MET
            if went is Went.UNFIT:
                self._wait(kind, waiting)
            elif went is Went.PROVIDED and line.has_ready():
                heapq.heappush(again, (line.head(self._kept.get(kind, 0)), kind))
        return Walked.TO_THE_END

    def _hand_out(self, kind: int, waiting: list[int]) -> Went:
        """Place the next jobs of a kind."""
        if self._surely_waits(kind):
            return Went.UNFIT
        with_devices = self._placement.kinds.kinds[kind].amounts.gpus
        if self._allowed is None and not with_devices and self._hand_out_quickly(kind, waiting):
            return Went.PROVIDED
        fitting = self._fitting(kind)
        if (found := self._idle(fitting)) is not None:
            return self._give(*found, waiting)
        for crew in self._crews.values():
            if kind in crew.promised:
                crew.promised.remove(kind)
                self._keep(kind, None)
                return Went.PROVIDED
        if (coming := self._find_worker(fitting)) is not None:
            self._keep(kind, coming)
            return Went.PROVIDED
        if self._pace is None and self._top_up(kind, waiting):
            return Went.PROVIDED
        if not fitting:
            return Went.UNFIT
        if self._bar(fitting):
            return Went.BARRED
        # Another place may have workers for others.
        return Went.NOWHERE if len(self._crews) == 1 else Went.UNFIT

    def _surely_waits(self, kind: int) -> bool:
        """A quick look: whether a kind surely has to wait, because no place has enough cores or memory left."""
        if kind in self._known:
            return False
        if self._room is None:
            self._room = self._placement.room()
        cpus, memory = self._room
        kinds = self._placement.kinds
        return kinds.cpus[kind] > cpus or kinds.memory[kind] > memory

    def _is_a_core_free(self) -> bool:
        """Whether there is a place with cores left for any kind."""
        if self._room is None:
            self._room = self._placement.room()
        return self._room[0] >= self._placement.kinds.least_cpus

    def _known_ones(self, again: list[tuple[Head, int]], here: tuple[Head, int]) -> list[tuple[Head, int]]:
        """The lines behind `here` that may get something although no core is left, as a heap."""
        lines = self._dispatcher.queue.lines
        ready = [(lines[kind].head(), kind) for kind in self._known if lines[kind].has_ready()]
        found = {entry for entry in ready if entry > here} | {
            entry for entry in again if entry[1] in self._known
        }
        return sorted({kind: (head, kind) for head, kind in found}.values())

    def _wait(self, kind: int, waiting: list[int]) -> None:
        """The first job of a kind does not fit."""
        if len(waiting) < MOST_WAITING:
            waiting.append(kind)
            self._count_batches(kind)

    def _idle(self, fitting: Sequence[Holding]) -> tuple[WorkerState, Holding] | None:
        """An idle worker for one of these."""
        for holding in fitting:
            if workers := self._crews[holding.place].idle.get(holding.devices):
                return workers[0], holding
        return None

    def _hand_out_quickly(self, kind: int, waiting: list[int]) -> bool:
        """As `_hand_out` for a kind without devices, if that is soon done: looks at few of many places."""
        if (holding := self._emptiest("idle", kind, lambda crew: crew.has_idle(()))) is not None:
            self._give(self._crews[holding.place].idle[()][0], holding, waiting)
            return True
        holding = self._emptiest("starting", kind, lambda crew: crew.starting > 0)
        if holding is not None and self._take_starting(holding):
            self._keep(kind, holding)
            return True
        holding = self._emptiest(
            "free", kind, lambda crew: bool(crew.free) and self._may_start((crew.place.number, ()))
        )
        if holding is not None and self._start(holding):
            self._keep(kind, holding)
            return True
        return False

    def _emptiest(self, which: str, kind: int, offers: Callable[[Crew], bool]) -> Holding | None:
        """What a job without devices would be given in the emptiest of the places that offer something."""
        if (places := self._by_load.get(which)) is None:
            places = self._by_load[which] = ByLoad(self._crews.values())
        return places.first(offers, lambda place: self._placement.new_holding(kind, place, ()))

    def _bar(self, fitting: Sequence[Holding]) -> bool:
        """Whether no worker for any of these may be started now, which is noted."""
        sorts = [(holding.place, holding.devices) for holding in fitting]
        if any(map(self._may_start, sorts)):
            return False
        self._barred.update(sorts)
        return True

    def _find_worker(self, fitting: Sequence[Holding]) -> Holding | None:
        """The holding for which there will be a worker; None if there is none for any."""
        for find in (self._take_starting, self._start, self._free_a_slot):
            for holding in fitting:
                if find(holding):
                    return holding
        return None

    def _may_start(self, sort: Sort) -> bool:
        """Whether a worker of this sort may be started; after a failure one at a time, to see whether it is of
        use."""
        again = sort in self._started and self._dispatcher.starts.number(sort)
        return not again and self._dispatcher.may_start(sort)

    def _fitting(self, kind: int) -> list[Holding]:
        """What the next job of a kind would be given, in each place in which it fits, the emptiest first."""
        crews = list(self._crews.values())
        if len(crews) > 1:
            crews.sort(key=lambda crew: crew.place.load())
        found = (self._placement.new_holding(kind, crew.place, crew.sets()) for crew in crews)
        return [holding for holding in found if holding is not None]

    def _take_starting(self, holding: Holding) -> bool:
        """Whether a worker is being started that a job without devices may have."""
        crew = self._crews[holding.place]
        if holding.devices or not crew.starting:
            return False
        crew.starting -= 1
        return True

    def _start(self, holding: Holding) -> bool:
        """Start a worker, if there is a free slot."""
        crew = self._crews[holding.place]
        if not crew.free or not self._may_start((holding.place, holding.devices)):
            return False
        self._started.add((holding.place, holding.devices))
        slot = crew.free.pop(0)
        self._dispatcher.start_one(
            self._turn,
            slot,
            crew.place.number,
            slot - crew.place.first_slot,
            holding if holding.devices else None,
        )
        return True

    def _free_a_slot(self, holding: Holding) -> bool:
        """Whether a slot becomes free for a worker with these devices: an idle one with others has to go."""
        crew = self._crews[holding.place]
        if not self._may_start((holding.place, holding.devices)):
            return False
        if crew.coming:
            crew.coming -= 1
            return True
        for devices in crew.sets():
            if devices != holding.devices:
                self._dispatcher.dismiss(self._turn, crew.idle[devices].pop())
                return True
        return False

    def _give(self, worker: WorkerState, holding: Holding, waiting: list[int]) -> Went:
        if self._allowed is not None:
            assert self._pace is not None
            if not self._allowed:
                self._pace.wait()
                return Went.NOWHERE
            self._allowed -= 1
            self._pace.spend(1)
        self._crews[holding.place].idle[holding.devices].remove(worker)
        ahead, share = self._placement.batch(holding.kind, self._workers)
        worker.holding = holding
        count = min(ahead, share) if self._pace is None else 1
        jobs = self._dispatcher.lease(self._turn, worker, count, holding.kind)
        if jobs:
            self._crews[holding.place].place.take(holding.amounts, holding.devices)
            self._short.append(worker)
            self._went(holding.kind, jobs, waiting)
        return Went.PROVIDED

    def _went(self, kind: int, jobs: Sequence[int], waiting: list[int]) -> None:
        """These jobs of a kind were handed out."""
        self._room = None
        self._known.add(kind)
        self._batches.append((kind, jobs))
        self._placement.provide(kind, jobs)
        self._placement.went_ahead(len(jobs), waiting)

    def _count_batches(self, kind: int) -> None:
        """The first job of this kind does not fit. A batch that was handed out before it was looked at may reach
        beyond it in the order."""
        lines = self._dispatcher.queue.lines
        head = lines[kind].head()
        new = self._batches[self._counted.get(kind, 0) :]
        later = sum(lines[other].behind(head, jobs) for other, jobs in new if len(jobs) > 1)
        self._placement.went_ahead(later, [kind])
        self._room = None

    def _count_for_others(self, lines: Sequence[tuple[Head, int]], waiting: list[int]) -> None:
        """No worker is left for the jobs of these kinds. Batches may have gone ahead of those that do not fit."""
        if not any(len(jobs) > 1 for _, jobs in self._batches):
            return
        for _, kind in sorted(lines):
            if len(waiting) == MOST_WAITING:
                return
            if self._dispatcher.queue.lines[kind].has_ready() and not self._fitting(kind):
                self._wait(kind, waiting)

    def _top_up(self, kind: int, waiting: list[int]) -> bool:
        """More leases for a worker that runs jobs of this kind and holds few; whether there was one."""
        ahead, share = self._placement.batch(kind, self._workers)
        if ahead < 2:
            return False  # whoever runs one has enough
        short, others = self._short, []
        for at, worker in enumerate(short):
            holding = worker.holding
            if holding is None or holding.kind != kind:
                others.append(worker)
                continue
            count = worker.lease_count()
            if count > ahead // 2 or self._turn.now >= worker.begun + self._dispatcher.revocations.after:
                continue  # it has enough, or runs a long job: new leases would be revoked
            crew, claim = self._crews.get(worker.place), self._placement.claim_against(kind)
            if crew is None or (claim is not None and not crew.place.respects(claim, holding)):
                continue
            if jobs := self._dispatcher.lease(self._turn, worker, min(ahead - count, share), kind):
                self._short = others + short[at + 1 :]
                self._went(kind, jobs, waiting)
                return True
        self._short = others
        return False

    def _keep(self, kind: int, holding: Holding | None) -> None:
        """Keep amounts until a worker is there; None if its worker has them already."""
        self._room = None
        self._placement.provide(kind, [self._dispatcher.queue.lines[kind].peek()])
        self._kept[kind] = self._kept.get(kind, 0) + min(self._placement.batch(kind, self._workers))
        if holding is not None:
            self._crews[holding.place].place.take(holding.amounts, holding.devices)

    def _start_for_waiting_leases(self) -> None:
        """Leases that wait behind another one are jobs for a free slot as well: they are revoked when its worker is
        ready."""
        if self._pace is not None:
            return  # every job starts at once
        for worker in list(self._dispatcher.workers.values()):
            holding = worker.holding
            if worker.leases.size < 2 or holding is None or worker.status != READY:
                continue
            for _ in range(worker.lease_count() - 1):
                fitting = self._fitting(holding.kind)
                if any(self._crews[each.place].has_idle(each.devices) for each in fitting):
                    break  # it gets them as soon as they are revoked
                if (found := self._find_worker(fitting)) is None:
                    break
                self._crews[found.place].place.take(found.amounts, found.devices)

    # -------------------------------------------------------------- jobs that run alone

    def _hand_out_alone(self) -> bool:
        """Lease a job that must run alone, if there is a place in which no other job is leased; from then on no other
        one gets anything there. Whether there was one."""
        dispatcher, queue = self._dispatcher, self._dispatcher.queue
        if not queue.has_alone() or dispatcher.ledger.awaiting_sync:
            return False
        busy = self._busy_places()
        kind = self._placement.kinds.kind_of[queue.peek_alone()]
        fitting = [holding for holding in self._fitting(kind) if holding.place not in busy]
        if (found := self._idle(fitting)) is not None:
            worker, holding = found
            worker.holding = holding
            dispatcher.send_alone(self._turn, worker)
            self._crews.pop(holding.place).place.take(holding.amounts, holding.devices)
            return True
        promised = any(kind in crew.promised for crew in self._crews.values())
        if fitting and not promised and self._find_worker(fitting) is None:
            self._bar(fitting)
        return False

    def _busy_places(self) -> set[int]:
        """Where a worker has a lease, this pass's included."""
        return {worker.place for worker in self._dispatcher.workers.values() if worker.leases}

    # ------------------------------------------------------------ workers that cannot start

    def _give_up_if_nothing_else_is_left(self) -> None:
        """End the run if all that is left are jobs for which no worker gets ready."""
        dispatcher = self._dispatcher
        if dispatcher.queue.waiting() or dispatcher.ledger.awaiting_sync:
            return
        if any(
            worker.leases or worker.status in (STARTING, STOPPING) for worker in dispatcher.workers.values()
        ):
            return
        if all(dispatcher.starts.number(sort) >= START_FAILURES for sort in self._barred):
            dispatcher.give_up(self._turn)
