"""Leases whose jobs have ended, and whose outcomes wait for files. Pure.

A node that shares no file system with the supervisor tells an outcome only when the files of the job are on the
supervisor's disk. Until then the lease is no longer its worker's, which goes on with its next job or ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class HeldOutcome(NamedTuple):
    """The lease of a job that has ended. `since`: when it was told to have ended (run clock)."""

    incarnation: int
    slot: int
    job: int
    since: float


class HeldOutcomes(dict[int, HeldOutcome]):
    """By lease."""

    def of_worker(self, incarnation: int) -> int:
        """How many of them are of this worker."""
        return sum(held.incarnation == incarnation for held in self.values())

    def open_leases(self) -> Iterator[tuple[int, int, int]]:
        """(incarnation, lease, job)."""
        return ((held.incarnation, lease, held.job) for lease, held in self.items())
