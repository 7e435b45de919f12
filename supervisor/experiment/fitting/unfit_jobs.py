"""Jobs that can never run with what there is: refused at the first start, named on a resume."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.core.dispatch.fit import why_unfit
from supervisor.core.dispatch.job_kinds import JobKinds
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.needs import Totals
from supervisor.core.terms.wording import count, one_line


def refuse_unfit(table: JobTable, mask: bytes, kinds: JobKinds, totals: Totals) -> None:
    """Raises UsageError if one of the jobs in `mask` can never run. `mask`: 1 for each job of this run."""
    unfit = {number for number, kind in enumerate(kinds.kinds) if why_unfit(kind.amounts, totals)}
    if not unfit:
        return
    jobs = [job for job, kind in enumerate(kinds.kind_of) if kind in unfit and mask[job]]
    if jobs:
        raise UsageError(f"{describe_unfit(table, jobs, kinds, totals)}. Ask for less, or offer more.")


def describe_unfit(table: JobTable, jobs: Sequence[int], kinds: JobKinds, totals: Totals) -> str:
    """The first of some jobs that cannot run, why, and how many more there are."""
    first = jobs[0]
    why = why_unfit(kinds.of(first).amounts, totals)
    text = f"job {one_line(table.ids[first])!r}: {why}"
    if len(jobs) > 1:
        text += f"; {count(len(jobs) - 1, 'more job')} cannot run either"
    return text
