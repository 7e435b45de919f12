"""Measures memory and CPU of the workers, as often as limits, views and the stall check need it.

Decisions on the readings are made in the core.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from supervisor.core.state.worker_state import WorkerState
from supervisor.core.terms.events import Event, MemoryMeasured, UsageSampled
from supervisor.core.terms.records import Sampled
from supervisor.core.terms.settings import Settings
from supervisor.engines.engine import Engine
from supervisor.system.capacity.free_memory import FreeMemory
from supervisor.system.process_memory import HAS_CHILDREN, HAS_PROC, family
from supervisor.system.resource_usage import MemoryMeter, Usage, UsageMeter
from workers.forking.process_owner import owner_of, process_ids_of
from workers.process.linux import children_of

SAMPLE_EVERY = 60.0  # seconds; curves of a night are made of them

SAMPLE_MANY_EVERY = 300.0  # with more workers than these, whose records are long

MANY = 64

GROWTH = 1.5

LEAST = 128 << 20  # bytes; the growth of smaller jobs is not recorded


class Sampler:
    """Turns readings of the workers into records of the journal."""

    def __init__(self, workers: Mapping[int, WorkerState], now: float) -> None:
        self._workers = workers
        self._next = now + self._pause()
        self._seen: Mapping[int, Usage] = {}
        self._sampled: dict[tuple[int, int], int] = {}  # bytes, by worker and lease

    def is_due(self, usage: Mapping[int, Usage], now: float) -> bool:
        """Whether a reading is to be recorded; each one is checked once."""
        new = usage is not self._seen
        self._seen = usage
        return bool(usage) and (now >= self._next or (new and self._has_grown(usage)))

    def sample(self, usage: Mapping[int, Usage], now: float, at: str, free: int | None = None) -> Sampled:
        """The record of a reading. free: bytes that the machine has left, if that is known."""
        self._next = now + self._pause()
        self._sampled = {self._running(key): used.rss_bytes for key, used in usage.items()}
        slots = {key: str(self._workers[key].slot) for key in usage if key in self._workers}
        return Sampled(
            at,
            rss={slot: usage[key].rss_bytes for key, slot in slots.items()},
            cpu={slot: usage[key].cpu_percent for key, slot in slots.items()},
            free=free or 0,
        )

    def _pause(self) -> float:
        return SAMPLE_EVERY if len(self._workers) <= MANY else SAMPLE_MANY_EVERY

    def _has_grown(self, usage: Mapping[int, Usage]) -> bool:
        known = self._sampled
        return any(
            used.rss_bytes > GROWTH * max(LEAST, known.get(self._running(key), 0))
            for key, used in usage.items()
        )

    def _running(self, incarnation: int) -> tuple[int, int]:
        """A worker and its current lease."""
        worker = self._workers.get(incarnation)
        return incarnation, worker.leases[0][0] if worker is not None and worker.leases else 0


# Seconds; for views and the stall check. Reads the CPU time of all processes of the workers.
USAGE_EVERY = 5.0

# Seconds. A leak of a gigabyte per second exceeds its limit by half a gigabyte when it is noticed, by less
# once a worker holds half of the limit. Each check costs the loop half a millisecond.
MEMORY_EVERY = 0.5

MEMORY_EVERY_NEAR_LIMIT = 0.2

_NO_LIMIT = 1 << 62  # bytes


class ResourceMonitor:
    """`usage`: the last reading, by incarnation. `own_limits`: gives the memory limits of workers whose job has
    one of its own, by incarnation; None if no job has."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        now: float,
        own_limits: Callable[[], Mapping[int, int]] | None = None,
    ) -> None:
        self._engine = engine
        self._limit = settings.memory_limit
        self._own_limits = own_limits
        bounds = (settings.memory_limit, settings.keep_free, own_limits)
        self._measures_memory = any(bound is not None for bound in bounds)
        self._keep_free = settings.keep_free
        self._usage_every = USAGE_EVERY
        if settings.stall is not None:
            self._usage_every = min(USAGE_EVERY, max(0.25, settings.stall / 2))
        self._next_usage = now + min(1.0, self._usage_every)
        self._next_memory = now
        self.usage: dict[int, Usage] = {}

    @property
    def due(self) -> float:
        return min(self._next_usage, self._next_memory) if self._measures_memory else self._next_usage

    def measure(self, now: float) -> list[Event]:
        """Measure what is due; the readings as events."""
        events: list[Event] = []
        if self._measures_memory and now >= self._next_memory:
            limits = self._own_limits() if self._own_limits is not None else None
            used, available = self._engine.memory(self._limit, limits, available=self._keep_free is not None)
            shares = [self._share(key, bytes_used, limits or {}) for key, bytes_used in used.items()]
            share = max(shares, default=0.0)
            close = share > 0.5 or self._is_short(available)
            self._next_memory = now + (MEMORY_EVERY_NEAR_LIMIT if close else MEMORY_EVERY)
            if used or available is not None:
                left = self._engine.left_behind() if share > 1 else {}
                places = None if available is None else self._engine.available_on_places()
                events.append(MemoryMeasured(used, available, left, places))
        if now >= self._next_usage:
            self._next_usage = now + self._usage_every
            self.usage = self._engine.usage()
            if self.usage:
                events.append(UsageSampled({key: used.cpu_percent for key, used in self.usage.items()}))
        return events

    def _share(self, incarnation: int, used: int, limits: Mapping[int, int]) -> float:
        """How much of its limit a worker uses."""
        limit = limits.get(incarnation, self._limit)
        return 0.0 if limit is None else used / limit

    def _is_short(self, available: int | None) -> bool:
        """Whether little memory is available."""
        return self._keep_free is not None and available is not None and available < 2 * self._keep_free


class WorkerProcesses(NamedTuple):
    """pids: of the worker processes, by incarnation.
    adopters: pids of the processes that adopt orphans of workers; none if these go to the system's init.
    origin: pid of the process that workers are forked from, if there is one.
    fresh: incarnations of those that are not forked from it.
    """

    pids: Mapping[int, int]
    adopters: Sequence[int] = ()
    origin: int | None = None
    fresh: Collection[int] = ()


_FOREIGN = -1  # the owner of a process that no worker has started


class OrphanOwners:
    """Which worker each orphan of a job comes from: its memory and CPU count for that worker.

    Otherwise a job could evade its memory limit by forking twice. The zygote adopts orphans. Without a zygote
    they are searched among all processes of the machine. Owners are remembered, since finding them is expensive.
    """

    def __init__(self) -> None:
        self._owners: dict[int, int] = {}

    def roots(self, workers: WorkerProcesses, tag: str) -> dict[int, list[int]]:
        """By incarnation: pids of its worker process and of the orphans that come from it. `tag`: of the
        experiment."""
        found = {number: [pid] for number, pid in workers.pids.items()}
        if not HAS_PROC or not workers.pids:
            return found
        groups = {pid: number for number, pid in workers.pids.items()}
        try:
            self._find_orphans(groups, workers.adopters, tag)
            for pid, owner in self._owners.items():
                if owner in found and (workers.adopters or self._has_no_parent(pid, groups)):
                    found[owner].append(pid)
        except OSError:  # too many open files: orphans are not counted this time
            pass
        return found

    def _find_orphans(self, groups: Mapping[int, int], adopters: Sequence[int], tag: str) -> None:
        if adopters:
            present = [child for adopter in adopters for child in children_of(adopter)]
        else:
            present = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        owners: dict[int, int] = {}
        for pid in sorted(set(present) - groups.keys()):
            owner = self._owners.get(pid)
            if owner is None:
                owner = owner_of(pid, tag, groups, owners)
            owners[pid] = _FOREIGN if owner is None else owner
        self._owners = owners

    def _has_no_parent(self, pid: int, groups: Mapping[int, int]) -> bool:
        """Whether it is no descendant of a worker: those are counted with the worker anyway."""
        ids = process_ids_of(pid)
        if ids is None or ids.parent in groups:
            return False
        return self._owners.get(ids.parent, _FOREIGN) == _FOREIGN


class ResourceMeter:
    """Reads memory and CPU of workers and of their orphans. `limited`: `memory` was called with a limit."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._orphan_owners = OrphanOwners()
        self._usage = UsageMeter()
        self._memory = MemoryMeter()
        self._memory_of_fresh = MemoryMeter()
        self._free = FreeMemory()
        self._first: dict[int, int] = {}  # bytes that a worker mapped before its first job
        self._before: dict[int, tuple[int, int]] = {}  # lease, and the bytes mapped before it
        self.limited = False

    def usage(self, workers: WorkerProcesses) -> dict[int, Usage]:
        return self._usage.read(self._orphan_owners.roots(workers, self._tag))

    def memory(
        self,
        workers: WorkerProcesses,
        limit: int | None,
        limits: Mapping[int, int] | None = None,
        *,
        available: bool,
    ) -> tuple[dict[int, int], int | None]:
        """See `Engine.memory`."""
        used = {}
        if limit is not None or limits is not None:
            limit, limits = _NO_LIMIT if limit is None else limit, limits or {}
            self.limited = HAS_CHILDREN
            self._first = {number: most for number, most in self._first.items() if number in workers.pids}
            self._before = {
                number: before for number, before in self._before.items() if number in workers.pids
            }
            roots = self._orphan_owners.roots(workers, self._tag)
            fresh = {number: roots.pop(number) for number in workers.fresh if number in roots}
            script = os.getpid()
            origins = [script] if workers.origin is None else [workers.origin, script]
            used = self._memory.used(roots, limit, origins=origins, limits=limits)
            if fresh:
                used.update(self._memory_of_fresh.used(fresh, limit, origins=[script], limits=limits))
        return used, self._free.available() if available else None

    def note_before_job(self, number: int, lease: int, workers: WorkerProcesses) -> None:
        """Note the memory of an idle worker that is about to get this lease."""
        roots = self._orphan_owners.roots(workers, self._tag).get(number)
        if roots is not None:
            most = family(roots).most
            self._first.setdefault(number, most)
            self._before[number] = lease, most

    def left_behind(self) -> dict[int, tuple[int, int]]:
        """By incarnation: the lease before which it was last idle, and by how many bytes it had grown
        since before its first job."""
        return {
            number: (lease, max(0, most - self._first[number]))
            for number, (lease, most) in self._before.items()
        }
