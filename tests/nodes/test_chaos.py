"""Three places under fire, resumed on one machine and back: `tools/torture.py --nodes 3`, for a while."""

from __future__ import annotations

import random
import time
from collections import Counter

from tools.torture import play_round

SECONDS = 20.0


def test_three_places_under_fire_lose_nothing_and_repeat_nothing_that_was_recorded() -> None:
    """SIGKILL and SIGSTOP of workers, agents, whole places and the supervisor, Ctrl+C; every second run is without
    places. The seed is the same each time, what it meets is not."""
    counts: Counter[str] = Counter()
    rng = random.Random(14)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        play_round(rng, counts, nodes=3, sizes=(60, 120), calm_after=8)
    hit = {fault for fault, times in counts.items() if times and ("agent" in fault or "node" in fault)}
    assert hit, counts
