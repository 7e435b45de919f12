"""When the workers are looked at: memory and CPU, as often as somebody needs to know.

It only measures; what follows from it is the core's to decide.
"""

from __future__ import annotations

from supervisor.core.events import Event, MemoryMeasured, UsageSampled
from supervisor.core.settings import Settings
from supervisor.engines.protocol import Engine, Usage

# For views and the stall watch; it reads what every process of the machine does.
USAGE_EVERY = 5.0
# A leak of a gigabyte per second is over its limit by half of one when it is seen; less, once
# somebody holds half of what is allowed. Each look costs the loop a turn: half a millisecond.
MEMORY_EVERY = 0.5
MEMORY_EVERY_WHEN_CLOSE = 0.2


class Watch:
    """`usage`: the last reading, by incarnation."""

    def __init__(self, engine: Engine, settings: Settings, now: float) -> None:
        self._engine = engine
        self._limit = settings.memory_limit
        self._look_at_memory = settings.memory_limit is not None or settings.keep_free is not None
        self._keep_free = settings.keep_free
        self._usage_every = USAGE_EVERY
        if settings.stall is not None:
            self._usage_every = min(USAGE_EVERY, max(0.25, settings.stall / 2))
        self._next_usage = now + min(1.0, self._usage_every)
        self._next_memory = now
        self.usage: dict[int, Usage] = {}

    @property
    def due(self) -> float:
        return min(self._next_usage, self._next_memory) if self._look_at_memory else self._next_usage

    def look(self, now: float) -> list[Event]:
        """What is due, as events."""
        events: list[Event] = []
        if self._look_at_memory and now >= self._next_memory:
            used, available = self._engine.memory(self._limit, available=self._keep_free is not None)
            close = self._is_close(used, available)
            self._next_memory = now + (MEMORY_EVERY_WHEN_CLOSE if close else MEMORY_EVERY)
            if used or available is not None:
                over = self._limit is not None and max(used.values(), default=0) > self._limit
                left = self._engine.left_behind() if over else {}
                events.append(MemoryMeasured(used, available, left))
        if now >= self._next_usage:
            self._next_usage = now + self._usage_every
            self.usage = self._engine.usage()
            if self.usage:
                events.append(UsageSampled({key: used.cpu_percent for key, used in self.usage.items()}))
        return events

    def _is_close(self, used: dict[int, int], available: int | None) -> bool:
        if self._limit is not None and max(used.values(), default=0) > self._limit // 2:
            return True
        return self._keep_free is not None and available is not None and available < 2 * self._keep_free
