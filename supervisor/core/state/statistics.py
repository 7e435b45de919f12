"""Counters and sums of an experiment, computed from its records alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any

import msgspec

from supervisor.core.terms.records import (
    AnyRecord,
    CarriedRun,
    Completions,
    Ended,
    Leased,
    Reset,
    RunEnded,
    RunStarted,
    Unpaused,
)


class Statistics(msgspec.Struct):
    """All runs of an experiment together. Durations in seconds.

    `wall_seconds` sums the runs; a run that was killed counts until its last record.
    `active_seconds` is, per run, from the first hand-out to the last outcome.
    """

    runs: int = 0
    attempts: int = 0
    crashes: int = 0
    timeouts: int = 0
    over_memory: int = 0
    interrupted: int = 0
    lost: int = 0
    cancelled: int = 0
    retries: int = 0  # attempts that ended with the job to be run again after an error or crash
    reruns: int = 0  # completed jobs made pending again by --rerun or --changed rerun
    outcomes: int = 0  # attempts that ended completed or failed
    busy_seconds: float = 0.0  # sum over attempts
    wall_seconds: float = 0.0
    active_seconds: float = 0.0
    paused_seconds: float = 0.0
    # Of the run that is going on, ISO 8601; "" when there is none.
    run_since: str = ""
    first_lease_at: str = ""
    last_outcome_at: str = ""
    last_at: str = ""

    def apply(self, record: AnyRecord | Completions) -> None:
        """Take one record into account, in journal order."""
        handler = _HANDLERS.get(type(record))
        if handler is None or handler(self, record):
            self.last_at = getattr(record, "at", self.last_at)

    # A handler returns whether `last_at` becomes the time of the record.

    def _apply_ended(self, record: Ended) -> bool:
        self.attempts += 1
        self.busy_seconds += record.seconds
        self.last_outcome_at = record.at
        if record.outcome == "completed":
            self.outcomes += record.state == "completed"
        elif record.state:
            self._apply_unsuccessful(record)
        return True

    def _apply_unsuccessful(self, record: Ended) -> None:
        self.outcomes += record.state == "failed"
        self.crashes += record.outcome == "crashed"
        self.timeouts += record.outcome == "timed_out"
        self.over_memory += record.outcome == "over_memory"
        self.interrupted += record.outcome == "interrupted"
        self.lost += record.outcome == "lost"
        if record.outcome == "cancelled":
            self.cancelled += 1
            self.attempts -= not record.lease  # it was not running
        again = record.state in ("pending", "in_progress")
        self.retries += again and record.outcome not in ("interrupted", "lost")

    def completed(self, seconds: Sequence[float], at: str) -> None:
        """Take attempts that took so long and completed into account, the last of them `at`; `apply` of their records
        is the reference."""
        self.attempts += len(seconds)
        self.outcomes += len(seconds)
        # Not `sum`: since Python 3.12 it rounds less than repeated addition does. A replay adds the lines
        # one by one and must come to the same value.
        self.busy_seconds = reduce(add, seconds, self.busy_seconds)
        self.last_outcome_at = self.last_at = at

    def _apply_completions(self, batch: Completions) -> bool:
        self.completed(batch.seconds, batch.at)
        return False

    def _apply_leased(self, record: Leased) -> bool:
        self.first_lease_at = self.first_lease_at or record.at
        return True

    def _apply_run_started(self, record: RunStarted) -> bool:
        self._close_run()
        self.runs = max(self.runs + 1, record.run)
        self.run_since = record.at
        return True

    def _apply_run_ended(self, record: RunEnded) -> bool:
        self.last_at = record.at
        self._close_run()
        return False

    def _apply_unpaused(self, record: Unpaused) -> bool:
        self.paused_seconds += record.seconds
        return True

    def _apply_reset(self, record: Reset) -> bool:
        self.reruns += len(record.jobs) if record.why in ("rerun", "changed") else 0
        return True

    def _apply_carried_run(self, record: CarriedRun) -> bool:
        carried = msgspec.convert(record.statistics, Statistics)
        for field in self.__struct_fields__:
            setattr(self, field, getattr(carried, field))
        return False

    def _close_run(self) -> None:
        """Add the open run, if there is one, to the sums."""
        if self.run_since and self.last_at:
            self.wall_seconds += max(0.0, seconds_between(self.run_since, self.last_at))
        if self.first_lease_at and self.last_outcome_at:
            self.active_seconds += max(0.0, seconds_between(self.first_lease_at, self.last_outcome_at))
        self.run_since = self.first_lease_at = self.last_outcome_at = ""

    def closed(self) -> Statistics:
        """A copy in which the open run counts until its last record."""
        copy = msgspec.structs.replace(self)
        copy._close_run()
        return copy


_HANDLERS: dict[type, Callable[[Statistics, Any], bool]] = {
    Completions: Statistics._apply_completions,
    Ended: Statistics._apply_ended,
    Leased: Statistics._apply_leased,
    RunStarted: Statistics._apply_run_started,
    RunEnded: Statistics._apply_run_ended,
    Unpaused: Statistics._apply_unpaused,
    Reset: Statistics._apply_reset,
    CarriedRun: Statistics._apply_carried_run,
}


def seconds_between(earlier: str, later: str) -> float:
    """Seconds from one ISO 8601 instant to another."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
