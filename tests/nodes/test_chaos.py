"""Three places under fire, resumed on one machine and back: `tools/torture.py --nodes 3`, for a while."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from tests.conftest import some
from tools.torture import play_round

pytestmark = pytest.mark.slow

MOST = 12  # rounds in which both must be met; two or three are enough mostly


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds", some([0.0, 20.0], 1))
def test_three_places_under_fire_lose_nothing_and_repeat_nothing_that_was_recorded(seconds: float) -> None:
    """SIGKILL and SIGSTOP of workers, agents, whole places and the supervisor, Ctrl+C; every second run is without
    places. The seed is the same each time, what it meets is not: so it goes on until both have been met."""
    counts: Counter[str] = Counter()
    rng = random.Random(14)
    began, rounds, resumed = time.monotonic(), 0, False
    while time.monotonic() - began < seconds or not (resumed and has_hit_nodes(counts)):
        rounds += 1
        assert rounds <= MOST or time.monotonic() - began < seconds, f"hit too little: {counts}"
        torture = play_round(rng, counts, nodes=3, sizes=(300,), calm_after=6)
        resumed |= torture.resumes > 1


def has_hit_nodes(counts: Counter[str]) -> bool:
    """Whether an agent was hit, or a whole place."""
    return any(times and ("agent" in fault or "node" in fault) for fault, times in counts.items())
