"""Simulated time and chance for what asks the machine: a seed replays to the last byte.

The core is told the time and the world draws from its seed. What is left, in the records: the
date in some of them, the uuid of an experiment, and how long a slice of a checkpoint took.
"""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from types import SimpleNamespace
from unittest import mock

from supervisor.storage import checkpoint_schedule
from supervisor.storage.checkpoint import checkpoint_writer
from supervisor.storage.checkpoint.journal_index import ENOUGH
from supervisor.system import clock

_DATE = datetime(2025, 10, 14, 22, 0, tzinfo=UTC)
_READING = 2e-5  # seconds that pass from one look at the clock to the next


class _Calendar:
    @staticmethod
    def now(zone: tzinfo | None = None) -> datetime:
        return _DATE


@contextlib.contextmanager
def simulated_time(seed: int) -> Iterator[None]:
    """While it lasts, nothing in the records differs from one replay of a seed to the next. Every
    other seed has indexes beside its checkpoints, which are too small for that otherwise."""
    chance = random.Random(f"uuids of {seed}")
    readings = 0

    def perf_counter() -> float:
        nonlocal readings
        readings += 1
        return readings * _READING

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=chance.getrandbits(128), version=4)

    watch = SimpleNamespace(perf_counter=perf_counter)
    with (
        mock.patch.object(clock, "datetime", _Calendar),
        mock.patch.object(uuid, "uuid4", uuid4),
        mock.patch.object(checkpoint_writer, "time", watch),
        mock.patch.object(checkpoint_schedule, "time", watch),
        mock.patch.object(checkpoint_writer, "ENOUGH", 0 if seed % 2 else ENOUGH),
    ):
        yield
