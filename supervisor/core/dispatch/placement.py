"""Hands jobs out by what they need: which one fits now, into which worker, and who waits for how long. Pure.

Cores, memory and devices are counted for each place, other resources for all of them together; one machine is one
place. A job runs in one place, the emptiest in which it fits and a worker is ready for it.

One pass goes through the lines of equal needs in the order of their first jobs. A job that fits goes to an idle
worker; if there is none, a worker is started and its amounts are kept for it meanwhile. A job that does not fit is
passed over. When as many later jobs as there are slots have gone ahead of it, it claims its amounts: from then on
the others use only what is left without them. There is one claim at a time. It is counted for the first kinds that
wait (`MOST_WAITING`): where thousands do, those behind get their turn when these have had theirs.

Jobs of equal needs are handed out in batches, as without needs. Only the job that a worker runs takes something;
the leases that wait behind it take nothing. GPU jobs run in workers that were started with their devices; all
other workers of such an experiment see none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from supervisor.core.dispatch import pacing
from supervisor.core.dispatch.pacing import Durations
from supervisor.core.dispatch.placement_pass import PlacementPass
from supervisor.core.dispatch.turn import Turn
from supervisor.core.places.job_kinds import JobKinds
from supervisor.core.places.place import NOTHING, Place, SharedResources
from supervisor.core.places.shortages import why_unfit
from supervisor.core.state.worker_state import ABANDONED, STARTING, Holding, WorkerState
from supervisor.core.terms.events import PlaceFacts
from supervisor.core.terms.needs import THOUSAND, Amounts, Totals, given

if TYPE_CHECKING:
    from supervisor.core.dispatch.dispatcher import Dispatcher


class Placement:
    """Who runs where.

    places: what there is and what is taken, by the number of the place. shared: what there is for all of them
    together. of_nodes: whether places come and go, and the number of workers with them. claim: what a job that waits
    has first call on.
    """

    def __init__(
        self, dispatcher: Dispatcher, kinds: JobKinds, shared: SharedResources, *, of_nodes: bool
    ) -> None:
        self.shared = shared
        self.of_nodes = of_nodes
        self._dispatcher = dispatcher
        self._queue = dispatcher.queue
        self.kinds = kinds
        self._with_gpus = kinds.use_gpus()
        self._durations = [Durations() for _ in kinds.kinds]
        self._passed_over: dict[int, int] = {}  # later jobs that went ahead of a job while it did not fit
        self.claim: Holding | None = None
        self.places: dict[int, Place] = {}
        self._at_once: dict[int, int] = {}  # by kind: how many jobs fit in all places together

    def set_places(self, facts: Sequence[PlaceFacts], expected: Sequence[Totals] = ()) -> None:
        """These are the places now: some kinds of jobs may no longer fit anywhere, or fit again. While there is no
        place at all, jobs wait for one. `expected`: as of `PlacesChanged`."""
        known, self.places = self.places, {}
        self._at_once.clear()
        self._dispatcher.revocations.elsewhere |= any(each.elsewhere for each in facts)
        for each in facts:
            before = known.get(each.place)
            same = before is not None and before.slots == each.slots
            first = before.first_slot if before is not None and same else self._next_slot(known)
            known[each.place] = self.places[each.place] = Place(each, self.shared, first)
        self._dispatcher.slots = sum(place.slots for place in self.places.values())
        if self.claim is not None and self.claim.place not in self.places:
            self.claim = None
        totals = self.totals()
        self._queue.close(
            {
                number
                for number, kind in enumerate(self.kinds.kinds)
                if totals and why_unfit(kind.amounts, *totals, *expected)
            }
        )

    def _next_slot(self, places: Mapping[int, Place]) -> int:
        """The first number behind the slots of all places, so that no two workers have one number."""
        behind = [place.first_slot + place.slots for place in places.values()]
        behind += [worker.slot + 1 for worker in self._dispatcher.workers.values()] if behind else []
        return max(behind, default=0)

    def resize(self, slots: int) -> None:
        """The only place has so many slots now."""
        (place,) = self.places.values()
        totals = msgspec.structs.replace(place.totals, cpus=slots * THOUSAND)
        self.places = {}
        self.set_places([PlaceFacts(place.number, place.name, slots, totals)])

    def totals(self) -> list[Totals]:
        """What each place has; what a job asks for is judged by it."""
        return [place.totals for place in self.places.values()]

    def learn(self, worker: WorkerState, seconds: float, outcomes: int) -> None:
        """Outcomes of one worker, which took so many seconds together."""
        if worker.holding is not None:
            self._durations[worker.holding.kind].learn(seconds, outcomes)

    def count_taken(self) -> None:
        """Sum what is taken now. Not in the middle of a pass, which adds what it hands out.

        What runs in a place that was lost keeps its share of the licences until it is certain that it has ended.
        """
        self.shared.clear()
        for place in self.places.values():
            place.clear()
        for worker in self._dispatcher.workers.values():
            holding = worker.holding
            if holding is None or not (worker.leases.size or worker.status == STARTING):
                continue
            if holding.place in self.places:
                # Somebody else has the slot of a worker that does not die, and its core with it.
                cores = worker.status != ABANDONED
                self.places[holding.place].take(holding.amounts, holding.devices, cpus=cores)
            else:
                self.shared.take(holding.amounts)

    def devices_of(self, holding: Holding | None) -> tuple[str, ...] | None:
        """What a worker for these devices may see; None if no job of the experiment asks for any."""
        if not self._with_gpus:
            return None
        if holding is None or not holding.devices:
            return ()
        names = self.places[holding.place].totals.gpus
        return tuple(names[device] for device in holding.devices)

    def grant(self, worker: WorkerState) -> tuple[dict[str, Any], int, str]:
        """(what a job is given, for the record; thousandths of a core, if it or the experiment names them; the name
        of its place)."""
        holding, name = worker.holding, self.places[worker.place].name
        if holding is None or (kind := self.kinds.kinds[holding.kind]).silent:
            return {}, 0, name
        return given(kind.amounts, self.devices_of(holding) or ()), kind.cpus, name

    def memory_of(self, worker: WorkerState) -> int:
        """Bytes that the job of this worker asked for; 0 if it did not say."""
        return worker.holding.amounts.memory if worker.holding is not None else 0

    def memory_for_one(self, worker: WorkerState) -> int:
        """Bytes that a job may use that runs alone in its place; 0 if nobody knows."""
        place = self.places.get(worker.place)
        return (place.totals.memory or 0) if place is not None else 0

    def claimed(self) -> tuple[int, Holding] | None:
        """The job that has claimed what it needs, with what it will be given; None if none has."""
        if self.claim is None or not self._queue.lines[self.claim.kind].has_ready():
            return None
        return self._queue.lines[self.claim.kind].peek(), self.claim

    # --------------------------------------------------------------------- the pass

    def hand_out(self, turn: Turn, held: Collection[int] = ()) -> None:
        """Give every job that fits to a worker, in order, and start the workers that are missing. `held`: the places
        in which a job runs alone."""
        if self.claim is not None and not self._queue.lines[self.claim.kind].has_ready():
            self.claim = None
        self.count_taken()
        PlacementPass(self, self._dispatcher, turn, held).run()

    def went_ahead(self, number: int, waiting: Iterable[int]) -> None:
        """So many jobs went ahead of the first jobs of the kinds in `waiting`, which do not fit. When as many as
        there are slots have done so, such a job claims what it needs, unless another one has a claim."""
        for kind in waiting:
            job = self._queue.lines[kind].peek()
            passed = self._passed_over[job] = self._passed_over.get(job, 0) + number
            if self.claim is None and passed >= self._dispatcher.slots:
                self.claim = self._new_claim(kind)

    def _new_claim(self, kind: int) -> Holding | None:
        """In the emptiest place that has enough."""
        amounts = self.kinds.kinds[kind].amounts
        if (place := self.emptiest(amounts)) is None:
            return None
        return Holding(kind, amounts, place.free_soonest(amounts), place.number)

    def emptiest(self, amounts: Amounts) -> Place | None:
        """The emptiest place in which a job with these amounts can ever run."""
        able = (place for place in self.places.values() if not why_unfit(amounts, place.totals))
        return min(able, key=Place.load, default=None)

    def provide(self, kind: int, jobs: Sequence[int]) -> None:
        """These jobs of one kind have what they need, or a worker with it is being started: they wait no
        longer."""
        passed = self._passed_over
        few, others = (passed, jobs) if len(passed) < len(jobs) else (jobs, passed)
        for job in [each for each in few if each in others]:
            del passed[job]
        if self.claim is not None and self.claim.kind == kind:
            self.claim = None

    def claim_against(self, kind: int) -> Holding | None:
        """The claim that jobs of this kind have to leave room for."""
        claim = self.claim
        return None if claim is None or claim.kind == kind else claim

    def room(self) -> tuple[float, float]:
        """The most cores, in thousandths, and the most bytes that any one place has left for a kind without a
        claim: a job that asks for more does not fit now."""
        cpus, memory = 0.0, 0.0
        for place in self.places.values():
            claim = self.claim if self.claim is not None and self.claim.place == place.number else None
            claimed = claim.amounts if claim is not None else NOTHING
            cpus = max(cpus, place.totals.cpus - place.cpus - claimed.cpus)
            total = place.totals.memory
            memory = math.inf if total is None else max(memory, total - place.memory - claimed.memory)
        return cpus, memory

    def batch(self, kind: int, workers: int) -> tuple[int, int]:
        """(leases that a worker should hold, jobs that one hand-out may have) of this kind."""
        mean = self._durations[kind].mean
        amounts = self.kinds.kinds[kind].amounts
        if (at_once := self._at_once.get(kind)) is None:
            at_once = self._at_once[kind] = sum(place.at_once(amounts) for place in self.places.values())
        most = int(min(workers, at_once, self.shared.at_once(amounts)))
        share = pacing.share(self._queue.lines[kind].size(), most, mean)
        return self._dispatcher.leases_ahead(mean), share

    def new_holding(self, kind: int, place: Place, ready: Iterable[tuple[int, ...]]) -> Holding | None:
        """What a job of this kind would be given in this place now; None if it does not fit."""
        amounts = self.kinds.kinds[kind].amounts
        avoid = self._dispatcher.starts.failing_devices(place.number) if amounts.gpus else ()
        devices = place.fits(amounts, self.claim_against(kind), ready, avoid)
        return None if devices is None else Holding(kind, amounts, devices, place.number)
