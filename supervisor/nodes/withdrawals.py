"""Leases that were taken back from a worker: which of them will certainly not start. Pure.

A worker reads its inbox before a job, unless it has done so in the last millisecond. So if it has said nothing of the
end of the job before, some time after the revocation was written, it reads that before the next job. Until this is
known nobody else may get these jobs: where an order is under way for long, the worker may have been quicker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from supervisor.core.terms.events import LeasesWithdrawn

CERTAIN_AFTER = 0.02  # seconds; much more than `workers.worker.INBOX_CHECK_AFTER`

Unstarted = Callable[[int, Sequence[int]], "list[int] | None"]


class Withdrawals:
    """The revocations of one agent. Times are of a monotonic clock that goes on while the agent is stopped."""

    def __init__(self) -> None:
        self._open: list[tuple[float, int, list[int]]] = []  # when it was written, incarnation, leases

    def revoked(self, incarnation: int, leases: list[int], now: float) -> None:
        """`now`: read after the revocation was written."""
        self._open.append((now, incarnation, leases))

    def due(self) -> float | None:
        return self._open[0][0] + CERTAIN_AFTER if self._open else None

    def certain(self, unstarted: Unstarted, now: float) -> list[LeasesWithdrawn]:
        """What can be said now. `now`: read before the worker's messages were. unstarted: as of
        `LocalEngine.unstarted`."""
        found, left = [], []
        for since, incarnation, leases in self._open:
            behind = unstarted(incarnation, leases) if now >= since + CERTAIN_AFTER else None
            if behind is None:
                left.append((since, incarnation, leases))
            elif behind:
                found.append(LeasesWithdrawn(incarnation, behind))
        self._open = left
        return found
