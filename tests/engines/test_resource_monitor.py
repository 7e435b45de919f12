"""When the workers are looked at: as often as somebody needs to know, and no more."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from supervisor.core.state.worker_state import WorkerState
from supervisor.core.terms.events import MemoryMeasured, UsageSampled
from supervisor.core.terms.settings import Settings
from supervisor.engines.resource_monitor import (
    MEMORY_EVERY,
    MEMORY_EVERY_NEAR_LIMIT,
    SAMPLE_EVERY,
    SAMPLE_MANY_EVERY,
    USAGE_EVERY,
    ResourceMonitor,
    Sampler,
)
from supervisor.system.resource_usage import Usage


class Engine:
    """Answers with what it is told to."""

    def __init__(self) -> None:
        self.used: dict[int, int] = {1: 10}
        self.free: int | None = 1000
        self.places: dict[int, int] | None = None

    def memory(
        self, limit: int | None, limits: Mapping[int, int] | None, *, available: bool
    ) -> tuple[dict[int, int], int | None]:
        return ({} if limit is limits is None else self.used), self.free if available else None

    def available_on_places(self) -> dict[int, int] | None:
        return self.places

    def usage(self) -> dict[int, Usage]:
        return {1: Usage(10, 50.0)}


def watch(engine: Engine, **settings: object) -> ResourceMonitor:
    return ResourceMonitor(engine, msgspec.convert(settings, Settings), 0.0)  # type: ignore[arg-type]


def test_without_bounds_memory_is_not_looked_at() -> None:
    monitor = watch(Engine())
    assert monitor.due == 1.0
    assert monitor.measure(1.0) == [UsageSampled({1: 50.0})]
    assert monitor.due == 1.0 + USAGE_EVERY
    assert monitor.usage == {1: Usage(10, 50.0)}


def test_memory_is_looked_at_more_often_when_it_gets_close() -> None:
    engine = Engine()
    monitor = watch(engine, memory_limit=100, keep_free=100)
    assert monitor.measure(0.0) == [MemoryMeasured({1: 10}, 1000)]
    assert monitor.due == MEMORY_EVERY
    engine.used = {1: 51}
    monitor.measure(0.5)
    assert monitor.due == 0.5 + MEMORY_EVERY_NEAR_LIMIT
    engine.used, engine.free, engine.places = {1: 10}, 199, {3: 199}
    assert monitor.measure(0.7) == [MemoryMeasured({1: 10}, 199, places={3: 199})]
    assert monitor.due == 0.7 + MEMORY_EVERY_NEAR_LIMIT


def test_a_short_stall_is_looked_for_as_often_as_it_takes() -> None:
    monitor = watch(Engine(), stall=2.0)
    monitor.measure(1.0)
    assert monitor.due == 2.0


def test_memory_is_measured_if_only_a_job_has_a_limit() -> None:
    engine = Engine()
    limits = {1: 30}
    monitor = ResourceMonitor(engine, Settings(), 0.0, lambda: limits)  # type: ignore[arg-type]
    assert monitor.measure(0.0) == [MemoryMeasured({1: 10})]
    assert monitor.due == MEMORY_EVERY
    limits[1] = 19
    monitor.measure(0.5)
    assert monitor.due == 0.5 + MEMORY_EVERY_NEAR_LIMIT


@pytest.mark.parametrize(("workers", "pause"), [(64, SAMPLE_EVERY), (65, SAMPLE_MANY_EVERY)])
def test_samples_of_many_workers_are_rare(workers: int, pause: float) -> None:
    states = {key: WorkerState(slot=key, incarnation=key) for key in range(workers)}
    sampler = Sampler(states, 0.0)
    usage = {key: Usage(100 << 20, 50.0) for key in range(workers)}
    assert not sampler.is_due(usage, pause - 1)
    assert sampler.is_due(usage, pause)
    record = sampler.sample(usage, pause, "2026-03-01T00:00:00.000Z", 7 << 30)
    assert (len(record.rss), record.rss["3"], record.free) == (workers, 100 << 20, 7 << 30)
    assert not sampler.is_due({**usage}, 2 * pause - 1)
    assert sampler.is_due(usage, 2 * pause)
    assert sampler.sample(usage, 2 * pause, "").free == 0  # where the system does not tell
