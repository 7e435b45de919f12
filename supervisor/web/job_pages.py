"""Jobs by filter and order, a page at a time. A choice is kept: leafing through a million jobs costs one search."""

from __future__ import annotations

import fnmatch
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, PENDING, STATE_NAMES

PER_PAGE = 200
_GLOB = re.compile(r"[*?\[]")
_WORD = re.compile(r'(state|domain):("[^"]*"|\S+)\s*')
_SHARE = 20  # a choice that took long is searched anew as rarely as that: a twentieth of the time
_MOST_KEPT = 8
_SORTS = ("job", "state", "domain", "attempts", "seconds")
_CODES = {
    "pending": (PENDING,),
    "in_progress": (INTERRUPTED,),
    "running": (INTERRUPTED,),
    "completed": (COMPLETED,),
    "failed": (FAILED,),
}


class JobFilter(NamedTuple):
    """text: part of an id, small and large letters alike, or a pattern with `*`, `?`, `[`. sort: a column, with `-` in
    front from the greatest down; "" is the order of the script."""

    text: str = ""
    state: str = ""
    domain: str | None = None
    sort: str = ""


class BegunJob(NamedTuple):
    worker: int
    since: str | None
    attempt: int


class JobPage(NamedTuple):
    jobs: Sequence[int]
    total: int
    page: int
    pages: int


def parse_filter(query: Mapping[str, str]) -> JobFilter:
    """From `q`, `state`, `domain`, `sort`; `q` may hold `state:failed domain:lima text` as well. Raises UsageError."""
    text = query.get("q", "")
    state, domain = query.get("state", ""), query.get("domain") or None
    for match in _WORD.finditer(text):
        value = match.group(2).strip('"')
        if match.group(1) == "domain":
            domain = value
        elif known := [name for name in _CODES if name.startswith(value)]:  # also while it is being typed
            state = known[0]
        else:
            continue
        text = text.replace(match.group(), "", 1)
    text = text.strip()
    sort = query.get("sort", "")
    if state and state not in _CODES:
        raise UsageError(f"unknown state {state!r}; expected one of: {', '.join(_CODES)}")
    if sort and sort.removeprefix("-") not in _SORTS:
        raise UsageError(f"unknown column {sort!r} to sort by; expected one of: {', '.join(_SORTS)}")
    return JobFilter(text, state, domain, sort)


def parse_page(text: str) -> int:
    """From 1 on. Raises UsageError."""
    if not text:
        return 1
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise UsageError(f"page {text!r}: expected a number from 1 on")
    return int(text)


def pages_of(jobs: int) -> int:
    return max(1, math.ceil(jobs / PER_PAGE))


class JobChoices:
    """The jobs that a filter lets through, in order. `version` says which state of the table it is."""

    def __init__(self) -> None:
        self._kept: dict[tuple[JobFilter, frozenset[int]], tuple[int, float, float, Sequence[int]]] = {}

    def page(
        self, table: JobTable, wanted: JobFilter, number: int, running: Mapping[int, BegunJob], version: int
    ) -> JobPage:
        jobs = self.chosen(table, wanted, running, version)
        pages = pages_of(len(jobs))
        number = min(number, pages)
        return JobPage(jobs[(number - 1) * PER_PAGE : number * PER_PAGE], len(jobs), number, pages)

    def chosen(
        self, table: JobTable, wanted: JobFilter, running: Mapping[int, BegunJob], version: int
    ) -> Sequence[int]:
        now = time.monotonic()
        by_state = wanted.state in ("running", "in_progress", "pending") or wanted.sort.endswith("state")
        key = wanted, frozenset(running) if by_state else frozenset()
        known = self._kept.pop(key, None)
        if known is not None:
            known_version, at, took, jobs = known
            if version == known_version or now - at < _SHARE * took:
                self._kept[key] = known
                return jobs
        jobs = _search(table, wanted, running)
        self._kept[key] = version, now, time.monotonic() - now, jobs
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return jobs


def _search(table: JobTable, wanted: JobFilter, running: Mapping[int, BegunJob]) -> Sequence[int]:
    everything = table.wanted.count(1) == len(table.wanted)
    jobs: Sequence[int] = (
        range(len(table.ids)) if everything else [job for job, there in enumerate(table.wanted) if there]
    )
    if wanted.state:
        codes = bytes(_CODES[wanted.state])
        states = table.state
        if wanted.state in ("running", "in_progress"):
            jobs = [job for job in jobs if states[job] in codes or job in running]
        elif wanted.state == "pending":
            jobs = [job for job in jobs if _is_waiting(states[job]) and job not in running]
        else:
            jobs = [job for job in jobs if states[job] in codes]
    if wanted.domain is not None:
        numbers = {number for number, name in enumerate(table.domains) if name == wanted.domain}
        jobs = [job for job in jobs if table.domain_of[job] in numbers]
    if wanted.text:
        jobs = _with_text(table.ids, jobs, wanted.text)
    return _sorted(table, jobs, wanted.sort, running)


def _is_waiting(state: int) -> bool:
    return state not in (COMPLETED, FAILED, INTERRUPTED)


def _with_text(ids: Sequence[str], jobs: Sequence[int], text: str) -> list[int]:
    folded = text.casefold()
    if _GLOB.search(text):  # ids may have brackets too
        match = re.compile(fnmatch.translate(text), re.IGNORECASE).match
        return [job for job in jobs if match(ids[job]) or folded in ids[job].casefold()]
    return [job for job in jobs if folded in ids[job].casefold()]


def _sorted(
    table: JobTable, jobs: Sequence[int], sort: str, running: Mapping[int, BegunJob]
) -> Sequence[int]:
    column = sort.removeprefix("-")
    if not column:
        return jobs
    keys: dict[str, Any] = {
        "job": table.ids.__getitem__,
        "domain": lambda job: table.domains[table.domain_of[job]],
        "attempts": table.attempts.__getitem__,
        "seconds": table.seconds.__getitem__,
        "state": lambda job: state_name(table, job, running),
    }
    return sorted(jobs, key=keys[column], reverse=sort.startswith("-"))


def state_name(table: JobTable, job: int, running: Mapping[int, BegunJob]) -> str:
    """completed, failed, in_progress or pending. What a worker has in its queue still waits."""
    if job in running and table.state[job] not in (COMPLETED, FAILED):
        return "in_progress"
    state = table.state[job]
    return STATE_NAMES[state] if state in (COMPLETED, FAILED, INTERRUPTED) else "pending"
