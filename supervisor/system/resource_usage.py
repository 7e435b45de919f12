"""Memory and CPU of the workers, each with its descendants.

A memory limit is for what a job allocates. Memory that a worker's processes share counts once. Memory that they
share with the zygote (data of the script's top level) or with the script's process (shared memory that it has
made) does not count: it was there before the job. A worker that writes to a page of the zygote gets its own copy.

One small file per process tells how much it maps. If the sum is within the limit, nothing else is read. Only the
page tables tell what is shared, and reading them is expensive. They are read repeatedly, since a write to a
shared page shows nowhere else, but for at most `SHARE` of a core. A worker counts as over its limit only by
page tables that were read in the same check.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from supervisor.system.process_memory import (
    HAS_CHILDREN,
    HAS_PROC,
    ProcessFamily,
    SharedMemory,
    family,
    family_of,
    full_memory,
    read_shared,
)
from supervisor.system.processes import ProcessFacts, descendants_by_root, facts_of, process_table


class Usage(msgspec.Struct):
    rss_bytes: int  # of the worker and its descendants
    cpu_percent: float


SHARE = 0.005  # of a core, for reading page tables

# Seconds of CPU time that may be saved up. Half of it is reserved for workers whose memory is known to have
# changed. The others, in which only a copy-on-write may have happened, take turns.
SAVED = 0.1


class _Reading(NamedTuple):
    at: float
    family: Sequence[int]
    most: int
    found: int
    cost: float  # seconds


class TimeBudget:
    """CPU time for reading page tables: `SHARE` of the time that passes, saved up to `SAVED` seconds."""

    def __init__(self, now: float) -> None:
        self._at = now
        self.left = SAVED

    def fill(self, now: float) -> None:
        self.left = min(SAVED, self.left + SHARE * (now - self._at))
        self._at = now

    def allows(self, *, urgent: bool) -> bool:
        return self.left > (0.0 if urgent else SAVED / 2)

    def spend(self, seconds: float) -> None:
        self.left -= seconds


class MemoryMeter:
    """Memory of workers. `spent`: a clock of this thread's CPU time."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, spent: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._spent = spent
        self._budget = TimeBudget(clock())
        self._readings: dict[int, _Reading] = {}

    def used(
        self,
        roots: Mapping[int, Sequence[int]],
        limit: int,
        *,
        origins: Sequence[int] = (),
        limits: Mapping[int, int] = MappingProxyType({}),
    ) -> dict[int, int]:
        """Bytes by key, for the processes `roots` and their descendants; more than the limit only if it was read in
        this call. `origins`: processes whose memory existed before the jobs. `limits`: by key, where it is not
        `limit`."""
        if not HAS_PROC or not HAS_CHILDREN:
            return self._used_by_table(roots)
        families = {key: family(pids) for key, pids in roots.items()}
        limit_of = {key: limits.get(key, limit) for key in families}
        suspects = {key for key, members in families.items() if members.most > limit_of[key]}
        self._readings = {key: reading for key, reading in self._readings.items() if key in suspects}
        found = {key: members.most for key, members in families.items()}
        for key in suspects:  # unless it is read now
            bound = limit_of[key]
            found[key] = min(bound, self._readings[key].found) if key in self._readings else bound
        if suspects:
            found.update(self._read(families, suspects, limit_of, origins))
        return found

    def _read(
        self,
        families: Mapping[int, ProcessFamily],
        suspects: set[int],
        limit_of: Mapping[int, int],
        origins: Sequence[int],
    ) -> dict[int, int]:
        """Read as many workers as the budget allows, those first that were read longest ago."""
        now = self._clock()
        self._budget.fill(now)
        found = {}
        processes = sum(len(members.pids) for members in families.values())
        urgent = {key for key in suspects if self._is_urgent(key, families[key], limit_of[key], now)}
        for key in sorted(suspects, key=lambda key: (key not in urgent, self._read_at(key))):
            if not self._budget.allows(urgent=key in urgent):
                break
            members = families[key]
            began = self._spent()
            found[key] = _own_bytes(members, limit_of[key], origins, processes)
            cost = self._spent() - began
            self._budget.spend(cost)
            self._readings[key] = _Reading(now, members.pids, members.most, found[key], cost)
        return found

    def _read_at(self, key: int) -> float:
        return self._readings[key].at if key in self._readings else 0.0

    def _is_urgent(self, key: int, members: ProcessFamily, limit: int, now: float) -> bool:
        """Whether it may be over the limit by what is known, or has waited for two rounds."""
        last = self._readings.get(key)
        if last is None or last.found > limit or last.family != members.pids:
            return True
        round_takes = sum(reading.cost for reading in self._readings.values()) / SHARE
        return last.found + max(0, members.most - last.most) > limit or now - last.at > 2 * round_takes

    def _used_by_table(self, roots: Mapping[int, Sequence[int]]) -> dict[int, int]:
        try:
            table = process_table() if roots else {}
        except OSError:
            return {}
        families = descendants_by_root(table, [pid for pids in roots.values() for pid in pids])
        return {
            key: sum(table[member].rss_bytes for member in {m for pid in pids for m in families[pid]})
            for key, pids in roots.items()
        }


def _own_bytes(members: ProcessFamily, limit: int, origins: Sequence[int], processes: int) -> int:
    """Bytes that these processes hold, without those that they share with `origins`.

    The kernel reports how much a process shares, but not with which. A single process shares with the origins.
    For several, the origins' page tables tell how much of their memory others share; it is divided among all
    `processes`.
    """
    total = SharedMemory(0, 0)
    for pid in members.pids:
        total += read_shared(pid)
    if total.fair <= limit:
        return total.fair
    lent = sum(max(0, full_memory(pid) - read_shared(pid).fair) for pid in origins)
    if len(members.pids) > 1:
        lent = lent * len(members.pids) // processes
    return max(total.private, total.fair - lent)


class UsageMeter:
    """Remembers the last reading, since CPU time in percent needs two."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._cpu: dict[int, dict[int, float]] = {}  # key -> pid -> CPU seconds

    def read(self, roots: Mapping[int, Sequence[int]]) -> dict[int, Usage]:
        """Usage by key, for these processes and their descendants, since the last call."""
        now = time.monotonic()
        elapsed = max(now - self._at, 1e-6)
        try:
            table, families = _families(roots)
        except OSError:  # too many open files: nothing is known this time
            return {}
        readings: dict[int, dict[int, float]] = {}
        usage = {}
        for key, members in families.items():
            before = self._cpu.get(key, {})
            readings[key] = {member: table[member].cpu_seconds for member in members}
            # By process: one that has ended does not reduce the sum.
            spent = sum(max(0.0, cpu - before.get(member, 0.0)) for member, cpu in readings[key].items())
            rss = sum(table[member].rss_bytes for member in members)
            usage[key] = Usage(rss, round(100 * spent / elapsed, 1) if key in self._cpu else 0.0)
        self._cpu, self._at = readings, now
        return usage


def _families(
    roots: Mapping[int, Sequence[int]],
) -> tuple[dict[int, ProcessFacts], dict[int, Sequence[int]]]:
    """The facts of these processes and their descendants, and their pids by key."""
    if not HAS_CHILDREN:  # every process of the machine has to be read
        table = process_table() if roots else {}
        below = descendants_by_root(table, [pid for pids in roots.values() for pid in pids])
        return table, {key: list({m for pid in pids for m in below[pid]}) for key, pids in roots.items()}
    table = {}
    families: dict[int, Sequence[int]] = {}
    for key, pids in roots.items():
        found = {
            member: facts
            for pid in pids
            for member in family_of(pid)
            if (facts := facts_of(member)) is not None
        }
        table.update(found)
        families[key] = list(found)
    return table, families
