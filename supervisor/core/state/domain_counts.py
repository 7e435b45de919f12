"""Counts of jobs by domain, counted in slices, so that no turn of the loop counts a million jobs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import INTERRUPTED, LEASED, Counts

_BLOCK = 8192  # jobs, a millisecond or less

_BLOCKS = 2  # for one call


class DomainCounts:
    """Counts the jobs of the current plan by domain; jobs without a domain are left out."""

    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._last: dict[str, Counts] = {}
        self._sweep: Iterator[None] | None = None

    def counted(self, running: Iterable[int], *, to_the_end: bool = False) -> dict[str, Counts]:
        """Count one slice further; the last complete counts.

        running: numbers of the leased jobs that have started. to_the_end: count all jobs now.
        """
        if len(self._table.domains) == 1:
            return {}  # no job has one
        if self._sweep is None or to_the_end:
            self._sweep = self._count(set(running))
        for number, _ in enumerate(self._sweep, 1):
            if number >= _BLOCKS and not to_the_end:
                return self._last
        self._sweep = None
        return self._last

    def _count(self, running: set[int]) -> Iterator[None]:
        table = self._table
        tally: Counter[tuple[int, int, int]] = Counter()
        for start in range(0, len(table), _BLOCK):
            block = slice(start, start + _BLOCK)
            tally.update(zip(table.domain_of[block], table.state[block], table.wanted[block], strict=True))
            if start + _BLOCK < len(table):
                yield
        counts = [Counts() for _ in table.domains]
        for (domain, state, wanted), number in tally.items():
            if wanted:
                counts[domain].add(state, number)
        for job in running:
            if table.state[job] == LEASED and table.wanted[job]:
                counts[table.domain_of[job]].add(INTERRUPTED, 1)
                counts[table.domain_of[job]].add(LEASED, -1)
        named = zip(table.domains[1:], counts[1:], strict=True)
        self._last = {name: found for name, found in named if found.total}
