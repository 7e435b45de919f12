"""What the workers of an engine use, each with all that it has started, and what they had before a job."""

from __future__ import annotations

import os
from collections.abc import Mapping

from supervisor.engines.adopted import Adopted
from supervisor.engines.free_memory import FreeMemory
from supervisor.engines.memory import MemoryMeter
from supervisor.engines.process_memory import HAS_CHILDREN, family
from supervisor.engines.protocol import Usage
from supervisor.engines.usage import UsageMeter

Pids = Mapping[int, int]  # of worker processes, by incarnation


class Measuring:
    """`limited`: whether somebody has asked for memory with a limit."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._adopted = Adopted()
        self._usage = UsageMeter()
        self._memory = MemoryMeter()
        self._free = FreeMemory()
        self._first: dict[int, int] = {}  # what a worker mapped before its first job
        self._before: dict[int, tuple[int, int]] = {}  # lease, and what it mapped before it
        self.limited = False

    def usage(self, workers: Pids, origin: int | None) -> dict[int, Usage]:
        return self._usage.read(self._adopted.roots(workers, origin, self._mark))

    def memory(
        self, workers: Pids, origin: int | None, limit: int | None, *, available: bool
    ) -> tuple[dict[int, int], int | None]:
        used = {}
        if limit is not None:
            self.limited = HAS_CHILDREN
            self._first = {number: most for number, most in self._first.items() if number in workers}
            self._before = {number: before for number, before in self._before.items() if number in workers}
            origins = [os.getpid()] if origin is None else [origin, os.getpid()]
            used = self._memory.used(self._adopted.roots(workers, origin, self._mark), limit, origins=origins)
        return used, self._free.available() if available else None

    def before_a_job(self, number: int, lease: int, workers: Pids, origin: int | None) -> None:
        """An idle worker is about to be given this lease."""
        roots = self._adopted.roots(workers, origin, self._mark).get(number)
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
