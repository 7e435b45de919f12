"""The engine's account of what a worker holds."""

from __future__ import annotations

import random

from supervisor.engines.sent_leases import SentLeases
from workers.transport.messages import Run


def test_what_is_held_is_what_was_sent_and_has_not_ended() -> None:
    seed = random.Random(5)
    leases, open_leases, next_lease = SentLeases(), list[int](), 1
    for _ in range(300):
        assert leases.held() == len(open_leases)
        if seed.random() < 0.5:
            next_lease += seed.randrange(3)  # leases of other workers
            size = seed.randrange(1, 6)
            leases.sent(Run(next_lease, [1] * size, b""))
            open_leases += range(next_lease, next_lease + size)
            next_lease += size
        elif open_leases:
            ended = seed.randrange(len(open_leases))
            leases.finished(open_leases[ended])
            del open_leases[: ended + 1]
