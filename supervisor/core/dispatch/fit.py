"""Whether a job can run with what there is, ever or now, in the words of its user. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from supervisor.core.dispatch.place import Place
from supervisor.core.terms.needs import THOUSAND, Amounts, Totals, units
from supervisor.core.terms.needs_wording import cores, devices, told_apart
from supervisor.core.terms.wording import count, one_line

if TYPE_CHECKING:
    from supervisor.core.dispatch.job_kinds import JobKinds
    from supervisor.core.state.job_table import JobTable


def why_unfit(amounts: Amounts, totals: Totals) -> str:
    """Why a job cannot run even if nothing else does: what it asks for, and what there is; "" if it can.

    GPUs are counted by device: a share of one needs one device, two need two.
    """
    reasons = list(_reasons(amounts, totals))
    return "asks for " + ", and for ".join(reasons) if reasons else ""


def describe_unfit(table: JobTable, jobs: Sequence[int], kinds: JobKinds, totals: Totals) -> str:
    """The first of some jobs that cannot run, why, and how many more there are."""
    first = jobs[0]
    text = f"job {one_line(table.ids[first])!r}: {why_unfit(kinds.of(first).amounts, totals)}"
    if len(jobs) > 1:
        text += f"; {count(len(jobs) - 1, 'more job')} cannot run either"
    return text


def _reasons(amounts: Amounts, totals: Totals) -> Iterator[str]:
    if amounts.cpus > totals.cpus:
        yield f"{cores(amounts.cpus)}, but there {_are(totals.cpus)} (--workers)"
    if totals.memory is not None and amounts.memory > totals.memory:
        asked, there_is = told_apart(amounts.memory, totals.memory)
        verb = "are" if there_is.endswith("bytes") else "is"
        yield f"{asked} of memory, but there {verb} {there_is} (--memory)"
    there_are = len(totals.gpus) * THOUSAND
    if amounts.gpus > there_are:
        yield f"{devices(amounts.gpus)}, but there {_are(there_are)} (--gpus)"
    for name, amount in amounts.resources:
        there = totals.resources.get(name, 0)
        if amount > there:
            option = "--resource" if there else _option_for(name, totals)
            yield f"{name}={units(amount):g}, but there {_are(there)} ({option})"


def _option_for(name: str, totals: Totals) -> str:
    """How to offer a resource; those that are offered show a name that is spelled in another way."""
    offered = f"; offered: {', '.join(totals.resources)}" if totals.resources else ""
    return f"--resource {name}=N{offered}"


def _are(amount: int) -> str:
    if not amount:
        return "is none"
    return "is 1" if amount == THOUSAND else f"are {units(amount):g}"


def what_it_lacks(amounts: Amounts, place: Place) -> str:
    """What a job waits for in a place, and how much of that is free there: `3 cores (2 free) and 1 GPU (none
    free)`; "" if nothing keeps it waiting.

    Of GPUs those are free that nobody has; for a share of one it is the largest part that is left.
    """
    return " and ".join(_lacks(amounts, place))


def _lacks(amounts: Amounts, place: Place) -> Iterator[str]:
    total = place.totals
    if amounts.cpus > (free := total.cpus - place.cpus):
        yield f"{cores(amounts.cpus)} ({_free(free)})"
    if total.memory is not None and amounts.memory > (free := max(0, total.memory - place.memory)):
        asked, left = told_apart(amounts.memory, free)
        yield f"{asked} of memory ({left if free else 'none'} free)"
    if amounts.gpus:
        part = min(THOUSAND, amounts.gpus)
        room = sum(taken + part <= THOUSAND for taken in place.devices)
        if room * THOUSAND < amounts.gpus:
            most = max((THOUSAND - taken for taken in place.devices), default=0)
            yield f"{devices(amounts.gpus)} ({_free(room * THOUSAND if part == THOUSAND else most)})"
    for name, amount in amounts.resources:
        if amount > (free := total.resources.get(name, 0) - place.resources.get(name, 0)):
            yield f"{name}={units(amount):g} ({_free(free)})"


def _free(amount: int) -> str:
    return f"{units(amount):g} free" if amount > 0 else "none free"
