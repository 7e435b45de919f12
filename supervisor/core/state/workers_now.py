"""The workers of a run, and what each turn asks of all of them: kept up to date while they change. Pure.

With a thousand workers, a turn that asked each of them would cost more than all that happened in it. `scan` asks each
of them, and is the reference: it shows what this costs, and the simulation holds both to the same answers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import NamedTuple

from supervisor.core.state.worker_state import ABANDONED, READY, STOPPING, WorkerState

SOME_STALE = 64  # entries of the heap of timeouts that are out of date, beside one for each worker


class Known(NamedTuple):
    """ready: how many may get jobs. abandoned: how many do not die. leases: how many the ready ones hold. least: the
    fewest that one of them holds; 0 if there is none. several: those at work behind whose first job others wait, by
    incarnation. first_timeout: when the first timeout ends, on the run's clock; None if there is none."""

    ready: int
    abandoned: int
    leases: int
    least: int
    several: tuple[int, ...]
    first_timeout: float | None


class _Seen(NamedTuple):
    """One worker, as it is counted now."""

    ready: bool
    abandoned: bool
    held: int  # leases that it is still expected to run
    several: bool


_GONE = _Seen(ready=False, abandoned=False, held=0, several=False)

TimeoutOf = Callable[[WorkerState], float | None]


class Workers(dict[int, WorkerState]):
    """By incarnation, in the order in which they were started. Only `[...] =` and `pop` change it.

    timeout: gives the seconds that the job of a worker may run, None if that has no limit. The second of these limits
    the first job of each.
    """

    def __init__(self, timeout: TimeoutOf = lambda worker: None) -> None:
        super().__init__()
        self._timeout = timeout
        self._changed: set[int] = set()
        self._seen: dict[int, _Seen] = {}
        self._by_held: dict[int, set[int]] = {}  # the ready ones, by how many leases they hold
        self._ready = self._abandoned = self._leases = 0
        self._several: set[int] = set()
        self._timeouts: list[tuple[float, int]] = []  # heap of (not before, incarnation)
        self._timed: dict[int, float] = {}  # the earliest entry of each there

    def __setitem__(self, incarnation: int, worker: WorkerState) -> None:
        super().__setitem__(incarnation, worker)
        worker.report_changes_to(self._changed)

    def pop(self, incarnation: int, default: WorkerState | None = None) -> WorkerState | None:  # type: ignore[override]
        self._changed.add(incarnation)
        return super().pop(incarnation, default)

    # -------------------------------------------------------------------- questions

    @property
    def ready(self) -> int:
        """How many may get jobs."""
        self._catch_up()
        return self._ready

    @property
    def idle(self) -> int:
        """How many of these hold no lease."""
        self._catch_up()
        return len(self._by_held.get(0, ()))

    @property
    def abandoned(self) -> int:
        """How many do not die of SIGKILL."""
        self._catch_up()
        return self._abandoned

    @property
    def leases(self) -> int:
        """Leases that the ready ones are still expected to run."""
        self._catch_up()
        return self._leases

    def least_held(self, *, idle: bool = True) -> int | None:
        """The fewest leases that a ready one holds; None if there is none. `idle`: whether those without any count."""
        self._catch_up()
        return min((held for held in self._by_held if held or idle), default=None)

    def holding(self, most: int) -> list[WorkerState]:
        """The ready ones that hold no more leases than that, those with the fewest first."""
        self._catch_up()
        few = sorted(held for held in self._by_held if held <= most)
        return [self[incarnation] for held in few for incarnation in sorted(self._by_held[held])]

    def with_several(self) -> list[WorkerState]:
        """Those at work behind whose first job other leases wait."""
        self._catch_up()
        return [self[incarnation] for incarnation in sorted(self._several)]

    def first_timeout(self) -> float | None:
        """When the first timeout ends."""
        first = self._first_timeout()
        return None if first is None else first[0]

    def timed_out(self, now: float) -> list[WorkerState]:
        """Those whose job has run for too long. They stay so until they change."""
        found = []
        while (first := self._first_timeout()) is not None and first[0] <= now:
            found.append(self[first[1]])
            del self._timed[heapq.heappop(self._timeouts)[1]]
        self._changed.update(worker.incarnation for worker in found)
        return sorted(found, key=lambda worker: worker.incarnation)

    # ---------------------------------------------------------------- kept up to date

    def _catch_up(self) -> None:
        """Count anew what has changed."""
        while self._changed:
            incarnation = self._changed.pop()
            worker = self.get(incarnation)
            before = self._seen.get(incarnation, _GONE)
            now = _GONE if worker is None else _seen(worker)
            if now != before:
                self._count(incarnation, before, now)
            if worker is None:
                self._timed.pop(incarnation, None)  # its entry in the heap is found to be stale
            elif worker.leases.size:
                self._set_timeout(worker)

    def _count(self, incarnation: int, before: _Seen, now: _Seen) -> None:
        if before.ready:
            same = self._by_held[before.held]
            same.discard(incarnation)
            if not same:
                del self._by_held[before.held]
            self._leases -= before.held
        if now.ready:
            self._by_held.setdefault(now.held, set()).add(incarnation)
            self._leases += now.held
        self._ready += now.ready - before.ready
        self._abandoned += now.abandoned - before.abandoned
        if now.several != before.several:
            (self._several.add if now.several else self._several.discard)(incarnation)
        if now is _GONE:
            self._seen.pop(incarnation, None)
        else:
            self._seen[incarnation] = now

    def _set_timeout(self, worker: WorkerState) -> None:
        """An entry that comes too early is put right when its time has come: jobs end long before as a rule."""
        end = timeout_end(worker, self._timeout)
        known = self._timed.get(worker.incarnation)
        if end is not None and (known is None or end < known):
            self._timed[worker.incarnation] = end
            heapq.heappush(self._timeouts, (end, worker.incarnation))
            if len(self._timeouts) > 2 * len(self._timed) + SOME_STALE:
                self._timeouts = [(at, incarnation) for incarnation, at in self._timed.items()]
                heapq.heapify(self._timeouts)

    def _first_timeout(self) -> tuple[float, int] | None:
        self._catch_up()
        heap = self._timeouts
        while heap:
            at, incarnation = heap[0]
            if self._timed.get(incarnation) == at:
                end = timeout_end(self[incarnation], self._timeout)
                if end == at:
                    return heap[0]
                del self._timed[incarnation]
                if end is not None:
                    self._timed[incarnation] = end
                    heapq.heapreplace(heap, (end, incarnation))
                    continue
            heapq.heappop(heap)
        return None

    def known(self) -> Known:
        """All that is kept; `scan` says the same."""
        several = tuple(worker.incarnation for worker in self.with_several())
        least = self.least_held() or 0
        return Known(self.ready, self.abandoned, self.leases, least, several, self.first_timeout())


def timeout_end(worker: WorkerState, timeout: TimeoutOf) -> float | None:
    """When the job of a worker at work has run for too long; None if it may run on."""
    if not worker.leases or worker.status not in (READY, STOPPING):
        return None
    seconds = timeout(worker)
    return None if seconds is None else worker.since + seconds


def _seen(worker: WorkerState) -> _Seen:
    status, size = worker.status, worker.leases.size
    ready = status == READY
    several = size > 1 and (ready or status == STOPPING)
    return _Seen(ready, status == ABANDONED, size - len(worker.revoked), several)


def scan(workers: Iterable[WorkerState], timeout: TimeoutOf) -> Known:
    """What `Workers.known` keeps, found by a look at each worker: the reference for it."""
    workers = list(workers)
    held = [worker.lease_count() for worker in workers if worker.status == READY]
    at_work = [worker for worker in workers if worker.status in (READY, STOPPING)]
    ends = [end for worker in workers if (end := timeout_end(worker, timeout)) is not None]
    return Known(
        len(held),
        sum(worker.status == ABANDONED for worker in workers),
        sum(held),
        min(held, default=0),
        tuple(worker.incarnation for worker in at_work if worker.leases.size > 1),
        min(ends, default=None),
    )
