"""Resources into the journal, now and then: which job ate the memory, and when.

Every five minutes, and sooner when a job is half as large again as when it was sampled last:
five minutes are long for a leak.
"""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.core.crew import Worker
from supervisor.core.record_types import Sampled
from supervisor.engines.protocol import Usage

SAMPLE_EVERY = 300.0  # seconds
GROWTH = 1.5
LEAST = 128 << 20  # bytes; smaller jobs eat nobody's memory


class Sampler:
    """Turns readings of the workers of a crew into records."""

    def __init__(self, crew: Mapping[int, Worker], now: float) -> None:
        self._crew = crew
        self._next = now + SAMPLE_EVERY
        self._seen: Mapping[int, Usage] = {}
        self._sampled: dict[tuple[int, int], int] = {}  # bytes, by worker and lease

    def is_due(self, usage: Mapping[int, Usage], now: float) -> bool:
        """Whether a reading belongs into the journal; each one is looked at once."""
        new = usage is not self._seen
        self._seen = usage
        return bool(usage) and (now >= self._next or (new and self._has_grown(usage)))

    def sample(self, usage: Mapping[int, Usage], now: float, at: str) -> Sampled:
        """The record of a reading."""
        self._next = now + SAMPLE_EVERY
        self._sampled = {self._running(key): used.rss_bytes for key, used in usage.items()}
        slots = {key: str(self._crew[key].slot) for key in usage if key in self._crew}
        return Sampled(
            at,
            rss={slot: usage[key].rss_bytes for key, slot in slots.items()},
            cpu={slot: usage[key].cpu_percent for key, slot in slots.items()},
        )

    def _has_grown(self, usage: Mapping[int, Usage]) -> bool:
        known = self._sampled
        return any(
            used.rss_bytes > GROWTH * max(LEAST, known.get(self._running(key), 0))
            for key, used in usage.items()
        )

    def _running(self, incarnation: int) -> tuple[int, int]:
        """A worker and the lease that it is at."""
        worker = self._crew.get(incarnation)
        return incarnation, worker.leases[0][0] if worker is not None and worker.leases else 0
