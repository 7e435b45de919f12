"""What jobs take of what there is, which one waits for what, and how many do not fit: for onlookers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from supervisor.core.dispatch.placement import Placement
from supervisor.core.places.place import Place
from supervisor.core.places.shortages import what_it_lacks, why_unfit
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.snapshot import NeedsSnapshot, UnfitJobs, WaitingJob
from supervisor.core.state.worker_state import ABANDONED, STARTING
from supervisor.core.terms.needs import Amounts, units


class NeedsObserver:
    """Looks at the needs of one run between its turns. `with_option_names`: gives options the names that they have
    in this script."""

    def __init__(self, scheduler: Scheduler, with_option_names: Callable[[str], str]) -> None:
        self._scheduler = scheduler
        self._with_option_names = with_option_names
        placement = scheduler.dispatcher.placement
        said = placement is not None and not all(kind.silent for kind in placement.kinds.kinds)
        self._placement = placement if said else None
        self._with_memory = placement is not None and placement.kinds.use_memory()
        self._with_gpus = placement is not None and placement.kinds.use_gpus()

    def snapshot(self) -> NeedsSnapshot | None:
        """None if no job says what it needs. Of several places the sums."""
        placement = self._placement
        if placement is None:
            return None
        placement.count_taken()
        places = list(placement.places.values())
        totals = [place.totals for place in places]
        taken, there_is = placement.shared.taken, placement.shared.totals
        return NeedsSnapshot(
            cpus=(units(sum(place.cpus for place in places)), units(sum(total.cpus for total in totals))),
            memory=_memory(places) if self._with_memory else None,
            gpus=_gpus(places) if self._with_gpus else None,
            resources={name: (units(taken[name]), units(there_is[name])) for name in sorted(there_is)},
            waiting=self._waiting(placement),
            unfit=self._unfit(placement),
        )

    def _waiting(self, placement: Placement) -> WaitingJob | None:
        """The job that has a claim; without one, and if nothing runs, the one whose turn it is."""
        if self._scheduler.stopped or self._scheduler.blocked_by():
            return None  # nothing is handed out anyway
        claimed = placement.claimed()
        found = self._next_of_an_idle_run(placement) if claimed is None else None
        if claimed is not None:
            found = claimed[0], claimed[1].amounts, placement.places[claimed[1].place]
        if found is None:
            return None
        job, amounts, place = found
        lacks = what_it_lacks(amounts, place)
        return WaitingJob(self._scheduler.table.ids[job], lacks) if lacks else None

    def _next_of_an_idle_run(self, placement: Placement) -> tuple[int, Amounts, Place] | None:
        """A worker that does not die keeps memory and devices, and then nothing may fit for a while."""
        workers = [worker for worker in self._scheduler.workers.values() if worker.status != ABANDONED]
        if any(worker.leases or worker.status == STARTING for worker in workers):
            return None
        lines = [line for line in self._scheduler.queue.lines if line.has_ready()]
        if not lines:
            return None
        job = min(lines, key=lambda line: line.head()).peek()
        amounts = placement.kinds.of(job).amounts
        place = placement.emptiest(amounts)
        return (job, amounts, place) if place is not None else None

    def _unfit(self, placement: Placement) -> UnfitJobs | None:
        number, first = self._scheduler.queue.count_closed()
        if first is None:
            return None
        amounts = placement.kinds.of(first).amounts
        why = why_unfit(amounts, *placement.totals(), of_nodes=placement.of_nodes)
        return UnfitJobs(number, self._scheduler.table.ids[first], self._with_option_names(why))


def _memory(places: Sequence[Place]) -> tuple[int, int | None]:
    totals = [place.totals.memory for place in places]
    known = [total for total in totals if total is not None]
    return sum(place.memory for place in places), sum(known) if len(known) == len(totals) else None


def _gpus(places: Sequence[Place]) -> tuple[float, int]:
    taken = sum(sum(place.devices) for place in places)
    return units(taken), sum(len(place.totals.gpus) for place in places)
