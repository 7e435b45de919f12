"""Which version of the code made each result of earlier runs, and how many results each version has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from supervisor.core.state.columns import get
from supervisor.core.terms.code_spans import UNKNOWN, CodeSpans
from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.storage.journal.journal_format import contents
from supervisor.storage.journal.record_locations import NOWHERE, grouped
from supervisor.storage.recovery.recovered_experiment import Recovered


class MadeBy:
    """For all jobs that were finished when it was made. If only one version of the code ever ran, no record
    is read."""

    def __init__(self, found: Recovered) -> None:
        self.spans: CodeSpans = found.history.codes
        self._table = found.table
        self._leases = None if self.spans.uniform or not self.spans.spans else _leases(found)

    def version(self, job: int) -> str:
        """`unknown` if an older longhaul has recorded it."""
        if self._leases is None:
            return self.spans.spans[0].version if self.spans.spans else UNKNOWN
        lease = self._leases[job] if job < len(self._leases) else 0
        return self.spans.version(lease) or UNKNOWN

    def counts(self, but: Collection[int] = ()) -> dict[str, int]:
        """Completed jobs of the plan by version, the oldest first, without those in `but`."""
        table = self._table
        but = frozenset(but)
        if self._leases is None and table.wanted.count(1) == len(table.wanted):
            left = table.state.count(COMPLETED) - sum(table.state[job] == COMPLETED for job in but)
            return {self.version(0): left} if left else {}
        found = Counter(
            self.version(job)
            for job, state in enumerate(table.state)
            if state == COMPLETED and table.wanted[job] and job not in but
        )
        return {version: found[version] for version in [UNKNOWN, *self.spans.known()] if found[version]}


def _leases(found: Recovered) -> list[int]:
    """By job number. An index does not hold them, so they are read from the records."""
    table, locations = found.table, found.locations
    locations.grow(len(table))
    finished = [
        job
        for job, state in enumerate(table.state)
        if state in (COMPLETED, FAILED) and locations.origin[job] != NOWHERE and not locations.lease[job]
    ]
    for jobs in grouped(finished, locations.length):
        parts = [b"{%b}" % part for part in found.parts(jobs)]
        for job, read in zip(jobs, contents(parts), strict=True):
            locations.lease[job] = read.lease
    return list(get(locations.lease, range(len(table))))
