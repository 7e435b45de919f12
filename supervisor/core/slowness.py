"""Which running jobs take much longer than the others of their domain. Pure.

Looked at every few seconds and only for jobs that have run for a while, with a bounded
number of comparisons: nothing is done when a job ends.
"""

from __future__ import annotations

from supervisor.core.jobs import COMPLETED
from supervisor.core.table import JobTable

TIMES_SLOWER = 5.0
NOT_BEFORE = 10.0  # seconds: below that nobody waits for a job
_LEAST = 5  # completed jobs that make a median worth comparing with
_NEAR = 10_000  # jobs on each side of the plan that are looked at
_KEPT = 30.0  # seconds that a median is good for


class Slowness:
    """Remembers the medians of domains for half a minute."""

    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._known: dict[int, tuple[float, float | None]] = {}  # domain -> when, median

    def usual(self, job: int, seconds: float, now: float) -> float | None:
        """The median of its domain in seconds, if this job has run for five times as long."""
        if seconds < NOT_BEFORE:
            return None
        domain = self._table.domain_of[job]
        at, found = self._known.get(domain, (float("-inf"), None))
        if now - at >= _KEPT:
            found = self._median(domain, job)
            self._known[domain] = (now, found)
        return found if found is not None and seconds >= TIMES_SLOWER * found else None

    def _median(self, domain: int, near: int) -> float | None:
        table = self._table
        part = slice(max(0, near - _NEAR), near + _NEAR)
        rows = zip(table.state[part], table.domain_of[part], table.seconds[part], strict=True)
        durations = [seconds for state, its, seconds in rows if state == COMPLETED and its == domain]
        if len(durations) < _LEAST:
            return None
        from statistics import median  # brings the whole of fractions along

        return median(durations)
