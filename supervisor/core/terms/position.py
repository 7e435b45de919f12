"""What a checkpoint holds besides the job table and the statistics. Pure."""

from __future__ import annotations

import msgspec


class InProgress(msgspec.Struct):
    """A job that runs, or that was interrupted in the middle and will run again."""

    job: int  # number in the plan
    attempt: int
    worker: int | None  # slot; None if it is not running now
    since: str  # ISO 8601 UTC; "" if unknown


class Position(msgspec.Struct):
    """The position of the core: the numbers to go on with. `open_leases` are (incarnation, lease, job number)."""

    run: int = 0
    next_lease: int = 1
    next_incarnation: int = 1
    in_progress: list[InProgress] = []
    open_leases: list[tuple[int, int, int]] = []
