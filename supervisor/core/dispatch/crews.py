"""The workers of each place in one pass over the lines of jobs, and the emptiest of many places. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from supervisor.core.places.place import Place
from supervisor.core.state.worker_state import ABANDONED, STARTING, STOPPING, Holding, WorkerState


class Crew:
    """The workers of one place in one pass.

    idle: those without leases, by the devices that they see. promised: for each worker that is being started for
    one kind of jobs, which. starting: how many are for anybody. coming: slots that will be free. free: slots.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._taken: set[int] = set()
        self.idle: dict[tuple[int, ...], list[WorkerState]] = {}
        self.promised: list[int] = []
        self.starting = self.coming = 0
        self.free: list[int] = []

    def add(self, worker: WorkerState) -> None:
        """A worker of this place; `add_idle` comes besides."""
        if worker.status != ABANDONED:
            self._taken.add(worker.slot)
        if worker.status == STARTING and worker.kill_reason is None:
            # Those for one kind have its amounts already.
            if worker.holding is not None:
                self.promised.append(worker.holding.kind)
            else:
                self.starting += 1
        elif worker.status == STOPPING and not worker.leases:
            self.coming += 1

    def count_free(self) -> None:
        """All its workers have been added."""
        first, slots = self.place.first_slot, self.place.slots
        if (most := slots - len(self._taken)) > 0:
            self.free = [slot for slot in range(first, first + slots) if slot not in self._taken][:most]

    def add_idle(self, worker: WorkerState) -> None:
        self.idle.setdefault(worker.devices, []).append(worker)

    def has_idle(self, devices: tuple[int, ...]) -> bool:
        return bool(self.idle.get(devices))

    def sets(self) -> list[tuple[int, ...]]:
        """The devices that idle workers see."""
        return [devices for devices, workers in self.idle.items() if workers]


class ByLoad:
    """Places, the emptiest first. One that has nothing to offer has nothing for the rest of the pass."""

    def __init__(self, crews: Iterable[Crew]) -> None:
        self._heap = [(crew.place.load(), at, crew) for at, crew in enumerate(crews)]
        heapq.heapify(self._heap)

    def first(
        self, offers: Callable[[Crew], bool], fits: Callable[[Place], Holding | None]
    ) -> Holding | None:
        """Of the emptiest place that offers something, and in which a job fits."""
        heap, full, found = self._heap, [], None
        while heap and found is None:
            load, at, crew = heap[0]
            if not offers(crew):
                heapq.heappop(heap)
            elif load != (now := crew.place.load()):  # it has got something meanwhile
                heapq.heapreplace(heap, (now, at, crew))
            elif (found := fits(crew.place)) is None:
                full.append(heapq.heappop(heap))
        for entry in full:
            heapq.heappush(heap, entry)
        return found
