"""The order in which the jobs of a run are tried: by priority, then by domains in turn. Pure.

Domains take turns, each in the order of the plan, so that the first results cover every domain. In a plan of
more than `MIXED` jobs only so many are mixed. The others follow in the order of the plan, where lines of
consecutive jobs are read with one call. The order is computed once, at the beginning of a run.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable, Sequence

from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.dispatch.retry_policy import needs_to_be_alone
from supervisor.core.state.columns import indices_of
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import INTERRUPTED, PENDING

MIXED = 20_000  # jobs: enough for hours of long ones; reading more tiny ones one by one would not pay


def line_up(ledger: Ledger, mask: bytes, retry: Sequence[int]) -> None:
    """Fill the queue at the beginning of a run.

    mask: 1 for each job that the run may hand out. retry: failed jobs that were just reset for one more
    attempt; they go last. Jobs that may take down more than their worker run alone.
    """
    table, queue = ledger.table, ledger.queue
    elsewhere = set(retry) | {job for _, job in ledger.awaiting_sync}
    for job, charges in table.charges.items():
        if charges.crashes or charges.losses:
            queue.mark_single(job)
        if needs_to_be_alone(charges) and job not in elsewhere and mask[job] and ledger.is_waiting(job):
            queue.put_alone(job)
            elsewhere.add(job)
    queue.line_up(*lined_up(table, mask, elsewhere))
    for job in retry:
        if needs_to_be_alone(table.charges.get(job), crash_limit=ledger.settings.crash_limit):
            queue.put_alone(job)
        else:
            queue.put_again(job)


def lined_up(table: JobTable, mask: bytes, elsewhere: Container[int]) -> tuple[array[int], dict[int, int]]:
    """(waiting jobs that `mask` selects, in order; priorities other than 0, by job). Higher priorities go
    first, then interrupted jobs, then jobs that were not tried yet."""
    cut, untried = (
        array("I", _selected(indices_of(table.state, state), mask, elsewhere))
        for state in (INTERRUPTED, PENDING)
    )
    priorities = {job: own.priority for job, own in table.own.items() if own.priority}
    if not priorities:
        return cut + mixed(untried, table.domain_of), priorities
    cut_levels, levels = _by_priority(cut, priorities), _by_priority(untried, priorities)
    line = array("I")
    for priority in sorted({*cut_levels, *levels}, reverse=True):
        line.extend(cut_levels.get(priority, array("I")))
        line.extend(mixed(levels.get(priority, array("I")), table.domain_of))
    return line, priorities


def _selected(jobs: array[int], mask: bytes, elsewhere: Container[int]) -> Iterable[int]:
    if mask.count(1) == len(mask) and not elsewhere:
        return jobs
    return (job for job in jobs if mask[job] and job not in elsewhere)


def mixed(jobs: array[int], domain_of: array[int]) -> array[int]:
    """The same jobs, one of each domain in turn."""
    if not jobs or domain_of[1:] == domain_of[:-1]:  # all of one domain: compared in C, unlike in a set
        return jobs
    domains = len(set(domain_of))
    share = len(jobs) if len(jobs) <= MIXED else max(1, MIXED // domains)
    fronts: dict[int, array[int]] = {}
    rest = array("I")
    for job in jobs:
        front = fronts.setdefault(domain_of[job], array("I"))
        (front if len(front) < share else rest).append(job)
    return _in_turn(fronts.values()) + rest


def _in_turn(lines: Iterable[array[int]]) -> array[int]:
    """The first of each array, the second of each, and so on."""
    result = array("I")
    start, live = 0, list(lines)
    while live:
        end = min(map(len, live))
        turns = array("I", bytes(result.itemsize * len(live) * (end - start)))
        for place, line in enumerate(live):
            turns[place :: len(live)] = line[start:end]
        result.extend(turns)
        start, live = end, [line for line in live if len(line) > end]
    return result


def _by_priority(jobs: array[int], priorities: dict[int, int]) -> dict[int, array[int]]:
    levels: dict[int, array[int]] = {}
    for job in jobs:
        levels.setdefault(priorities.get(job, 0), array("I")).append(job)
    return levels
