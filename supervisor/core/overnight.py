"""What happened to a run as a whole while nobody looked: a fold over its records. Pure."""

from __future__ import annotations

import msgspec

from supervisor.core.record_types import AnyRecord, Noted, Paused, Unpaused
from supervisor.core.statistics import seconds_between


class Stretch(msgspec.Struct):
    """All the times in which nothing was handed out for one reason."""

    times: int = 0
    seconds: float = 0.0
    since: str = ""  # when the one that goes on has begun, ISO 8601


class Counted(msgspec.Struct):
    """Something that was done to jobs, or seen of them."""

    first_job: str
    times: int = 0


OF_JOBS = frozenset(("stalled", "stopped_for_memory", "memory_left_behind"))


class Overnight(msgspec.Struct):
    """Of one run: `waits` by reason (see `record_types.Paused`), `orders` of `longhaul ctl`
    by name, each in the order in which they came."""

    waits: dict[str, Stretch] = {}
    orders: dict[str, int] = {}
    noted: dict[str, Counted] = {}  # `OF_JOBS`: how many, and the first job

    def apply(self, record: AnyRecord) -> None:
        if isinstance(record, Paused):
            stretch = self.waits.setdefault(record.why, Stretch())
            stretch.times += 1
            stretch.since = record.at
        elif isinstance(record, Unpaused):
            stretch = self.waits.setdefault(record.why, Stretch(times=1))
            stretch.seconds += record.seconds
            stretch.since = ""
        elif isinstance(record, Noted) and record.what == "control":
            order = str(record.detail.get("order", ""))
            self.orders[order] = self.orders.get(order, 0) + 1
        elif isinstance(record, Noted) and record.what in OF_JOBS:
            counted = self.noted.setdefault(record.what, Counted(str(record.detail.get("job", ""))))
            counted.times += 1

    def seconds(self, why: str, at: str) -> float:
        """How long it was in all, until now (`at`, ISO 8601)."""
        stretch = self.waits[why]
        return stretch.seconds + (max(0.0, seconds_between(stretch.since, at)) if stretch.since else 0.0)
