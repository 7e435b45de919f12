"""Which of a script's jobs an experiment has: all of them, or one per domain and those that were
named. Pure.

`--only` names jobs of the script, not of the pilot: what matches becomes part of the experiment.
What was once named stays part of it, so that the next resume does not take it for gone.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence

from supervisor.core.table import JobTable


class Pick:
    """Asked for each job, in the order of the script.

    only: patterns of job ids. earlier: the jobs of the experiment so far, if it had one per domain
    as well.
    """

    def __init__(self, *, all_tasks: bool, only: Sequence[str] = (), earlier: JobTable | None = None) -> None:
        self.all = all_tasks
        self._only = list(only)
        self._domains: set[str] = set()
        self._earlier = earlier
        self._shared = _with_several(earlier) if earlier is not None else set()

    def is_first(self, domain: str | None) -> bool:
        """Whether the job is wanted for its domain's sake: nobody has to ask for its id."""
        if self.all or domain is None:
            return True
        first = domain not in self._domains
        self._domains.add(domain)
        return first

    def may_name(self, domain: str | None) -> bool:
        """Whether another job of the domain may be wanted."""
        return bool(self._only) or domain in self._shared

    def names(self, job_id: str) -> bool:
        """Whether this one was named, now or in an earlier run."""
        if matches(job_id, self._only):
            return True
        if self._earlier is None or not self._shared:
            return False
        number = self._earlier.numbers.get(job_id)
        return number is not None and bool(self._earlier.wanted[number])


def _with_several(table: JobTable) -> set[str]:
    """Domains of which an experiment has more than the one job of a pilot."""
    amounts = Counter(zip(table.domain_of, table.wanted, strict=True))
    return {table.domains[domain] for (domain, wanted), many in amounts.items() if wanted and many > 1}


def matches(job_id: str, globs: Sequence[str]) -> bool:
    """As a shell matches file names, upper and lower case told apart; `*` matches `/` too."""
    return any(fnmatch.fnmatchcase(job_id, glob) for glob in globs)
