"""The workers as the core sees them. Pure.

The life of one worker process (an incarnation; slots are reused, incarnations never):

    STARTING ──ready──▶ READY ──stopped──▶ STOPPING ──died──▶ (gone)
        │                 │                    │
        └─────────────────┴─────killed─────────┴──▶ DOOMED ──died──▶ (gone)
                                                      └──given up──▶ ABANDONED ──died──▶ (gone)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from supervisor.core.leases import Leases

STARTING, READY, STOPPING, DOOMED, ABANDONED = "starting", "ready", "stopping", "doomed", "abandoned"


class Doom(msgspec.Struct, frozen=True):
    """Why we killed a worker: the outcome that the attempt under `lease` gets."""

    outcome: str
    lease: int
    words: str = ""  # for the record, if the outcome alone does not say it


class Report(msgspec.Struct):
    """What the job under `lease` has said of itself; `at` is when, on the run's clock."""

    lease: int
    fraction: float | None
    metrics: dict[str, Any]
    at: float


MOST_METRICS = 32  # of one job that are kept


class Worker:
    """One incarnation. `leases` are (lease, job number) in hand-out order; the first one
    is the job that runs: it is the first without an outcome."""

    __slots__ = (
        "slot",
        "incarnation",
        "status",
        "pid",
        "leases",
        "revoked",
        "leaving",
        "since",
        "begun",
        "since_at",
        "handed",
        "first_lease",
        "finished",
        "doom",
        "error",
        "no_space",
        "process_start",
        "_report",
        "busy_at",
        "memory",
        "seen",
        "slow",
        "stall_told",
    )

    def __init__(self, slot: int, incarnation: int) -> None:
        self.slot = slot
        self.incarnation = incarnation
        self.status = STARTING
        self.pid = 0
        self.process_start = 0.0
        self.leases = Leases()
        self.revoked: set[int] = set()  # leases taken back, not yet acknowledged
        self.leaving = False  # it gives back, of its own accord, what it was handed
        self.since = 0.0  # when the first of the leases started, as far as we were told (run clock)
        self.begun = 0.0  # when it did, as far as the durations of those before it tell
        self.since_at = ""
        self.handed = 0  # leases ever handed to it, less those taken back
        self.first_lease = 0  # that was handed to it
        self.finished = 0  # outcomes
        self.doom: Doom | None = None
        self._report: Report | None = None
        self.busy_at = 0.0  # when it was last seen to use the CPU (run clock)
        self.memory = 0  # bytes, when it was over its limit
        self.seen: tuple[int, int] | None = None  # a lease, and bytes at the first look during it
        self.slow = 0  # the lease that takes much longer than others
        self.stall_told = 0  # the lease of which it was said that it stands still
        self.error = ""  # its own words, if it was never ready
        self.no_space = False  # it was not, for want of room on a disk

    def begin(self, now: float, at: str) -> None:
        """What it is to do next, it does from now on."""
        self.since, self.since_at, self.begun = now, at, now

    def held(self) -> int:
        """Leases that it is still expected to run."""
        return len(self.leases) - len(self.revoked)

    def running(self) -> tuple[int, int] | None:
        """(lease, job) of the job it is at."""
        if not self.leases or self.status == STARTING:
            return None
        return self.leases[0]

    def settle_together(self, leases: list[int]) -> Sequence[int] | None:
        """Take these leases off its list if they are its first, in order; the jobs' numbers.
        None, and nothing is changed, if they are not."""
        return None if self.revoked else self.leases.take(leases)

    def reported(self, fraction: float | None, metrics: dict[str, Any], now: float) -> None:
        """The job that it is at has said something; what was known before and is not said
        again stays."""
        before = self.report()
        if before is not None:
            fraction = before.fraction if fraction is None else fraction
            metrics = {**before.metrics, **metrics}
        kept = dict(list(metrics.items())[:MOST_METRICS])
        self._report = Report(self.leases[0][0], fraction, kept, now)

    def report(self) -> Report | None:
        """What the job that it is at has said last; its time is a sign of life."""
        report = self._report
        if report is None or not self.leases or self.leases[0][0] != report.lease:
            return None
        return report

    def settle(self, lease: int) -> int | None:
        """Take a lease off its list; the job's number, None if it does not hold it."""
        self.revoked.discard(lease)
        return self.leases.remove(lease)
