"""Which jobs a run hands out: `--only`, one per domain, and on a resume those that run again.

Nothing here writes to the disk; `opening` acts on what is decided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from supervisor.core.state.columns import indices_of
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, PENDING, JobPatterns
from supervisor.core.terms.records import AnyRecord, Reset
from supervisor.experiment.code_changes import CODE, named_versions
from supervisor.system.clock import utc_now

if TYPE_CHECKING:
    from supervisor.experiment.results_by_code import MadeBy


class JobsToRerun(msgspec.Struct):
    """Jobs (numbers) to be made pending, by reason."""

    rerun: list[int] = []
    retry: list[int] = []
    changed: list[int] = []

    def keep_selected(self, mask: bytes) -> None:
        """Each job under one reason only, and only if this run may run it: with --only, no
        result is given up for a job that will not be run."""
        changed, rerun = set(self.changed), set(self.rerun)
        self.rerun = [job for job in self.rerun if mask[job] and job not in changed]
        self.retry = [job for job in self.retry if mask[job] and job not in changed | rerun]


def select(table: JobTable, only: list[str]) -> bytes:
    """A mask of the jobs this run may hand out. Raises UsageError if there are none."""
    if not only:
        return bytes(table.wanted)
    mask = bytearray(len(table))
    named = _patterns(table, only).names
    for job, job_id in enumerate(table.ids):
        mask[job] = table.wanted[job] and named(job_id)
    if not any(mask):
        raise UsageError(f"--only {' '.join(only)}: no job of the script matches{_some_ids(table)}")
    return bytes(mask)


def left_out(table: JobTable, mask: bytes) -> int:
    """How many unfinished jobs of the plan this run does not hand out."""
    if mask.count(1) == len(mask):
        return 0
    unfinished = (PENDING, LEASED, INTERRUPTED)
    return sum(
        1
        for job, state in enumerate(table.state)
        if state in unfinished and table.wanted[job] and not mask[job]
    )


def jobs_again(
    table: JobTable,
    mask: bytes,
    *,
    rerun: list[str],
    changed: list[int],
    retry_failed: bool,
    more: bool = False,
    made: MadeBy | None = None,
    version: str = "",
) -> JobsToRerun:
    """Which completed or failed jobs, of those that `mask` selects, run again: the changed ones, those that a pattern
    of `rerun` names by id or by the code that `made` them, and failed ones once more. `more`: the script has jobs
    that the experiment has not. `version`: that of the present code."""
    again = JobsToRerun(changed=changed)
    if rerun:
        again.rerun = _rerun(table, rerun, more=more, made=made, version=version)
    if retry_failed:
        named = set(again.rerun)
        again.retry = [
            job
            for job in indices_of(table.state, FAILED)
            if table.wanted[job] and job not in named and table.outcome.get(job) != "cancelled"
        ]
    again.keep_selected(mask)
    return again


def _rerun(
    table: JobTable, patterns: list[str], *, more: bool, made: MadeBy | None, version: str
) -> list[int]:
    """The finished jobs that a pattern names, by the id or by the code."""
    codes = [one for one in patterns if one.startswith(CODE) and not _matches_any(table, [one])]
    globs = [one for one in patterns if one not in codes]
    versions = named_versions(codes, version, made.counts()) if made is not None and codes else set()
    finished = [
        job for job, state in enumerate(table.state) if table.wanted[job] and state in (COMPLETED, FAILED)
    ]
    named = _patterns(table, globs).names
    found = [
        job
        for job in finished
        if named(table.ids[job]) or (made is not None and made.version(job) in versions)
    ]
    if not found and globs and not _matches_any(table, globs):
        hint = "; --only runs jobs that the pilot left out" if more else ""
        raise UsageError(
            f"--rerun {' '.join(globs)}: no job of this experiment matches{_some_ids(table)}{hint}"
        )
    return found


def _matches_any(table: JobTable, words: list[str]) -> bool:
    return any(map(_patterns(table, words).names, table.ids))


def _patterns(table: JobTable, words: list[str]) -> JobPatterns:
    return JobPatterns(words, frozenset(words).intersection(table.ids))


def _some_ids(table: JobTable) -> str:
    names = ", ".join(repr(job_id) for job_id in table.ids[:3])
    return f"; ids look like {names}" if names else ""


class PilotSelection:
    """Decides which jobs a pilot runs; called for each job, in the order of the script.

    only: patterns of job ids. earlier: the jobs of the experiment so far, if it had one per domain
    as well.
    """

    def __init__(self, *, all_tasks: bool, only: Sequence[str] = (), earlier: JobTable | None = None) -> None:
        self.all = all_tasks
        self._only = JobPatterns(only)
        self._names_some = bool(only)
        self._domains: set[str] = set()
        self._earlier = earlier
        self._shared = _with_several(earlier) if earlier is not None else set()

    def is_first(self, domain: str | None) -> bool:
        """Whether the job is the first of its domain, or every job is wanted; its id does not matter then."""
        if self.all or domain is None:
            return True
        first = domain not in self._domains
        self._domains.add(domain)
        return first

    def may_name(self, domain: str | None) -> bool:
        """Whether another job of the domain may be wanted."""
        return self._names_some or domain in self._shared

    def names(self, job_id: str) -> bool:
        """Whether this one was named, now or in an earlier run."""
        if self._only.names(job_id):
            return True
        if self._earlier is None or not self._shared:
            return False
        number = self._earlier.numbers.get(job_id)
        return number is not None and bool(self._earlier.wanted[number])


def _with_several(table: JobTable) -> set[str]:
    """Domains of which an experiment has more than the one job of a pilot."""
    amounts = Counter(zip(table.domain_of, table.wanted, strict=True))
    return {table.domains[domain] for (domain, wanted), many in amounts.items() if wanted and many > 1}


def reset_jobs(table: JobTable, again: JobsToRerun) -> list[AnyRecord]:
    """Make jobs pending again; the records that say so."""
    records: list[AnyRecord] = []
    reasons: tuple[tuple[list[int], Literal["changed", "rerun", "retry"]], ...] = (
        (again.changed, "changed"),
        (again.rerun, "rerun"),
        (again.retry, "retry"),
    )
    for jobs, why in reasons:
        for job in jobs:
            table.reset(job, forget_charges=why != "retry")
        if jobs:
            records.append(Reset([table.ids[job] for job in jobs], why, utc_now()))
    return records
