"""Why a job does not fit, in words: for ever, or now. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from supervisor.core.places.place import Place
from supervisor.core.terms import needs_wording
from supervisor.core.terms.needs import THOUSAND, Amounts, Totals, units
from supervisor.core.terms.wording import count, one_line

if TYPE_CHECKING:
    from supervisor.core.places.job_kinds import JobKinds
    from supervisor.core.state.job_table import JobTable


def why_unfit(amounts: Amounts, *places: Totals, of_nodes: bool = False) -> str:
    """Why a job cannot run even if nothing else does: what it asks for, and what there is; "" if it can.

    places: what each of them has; other resources are the same ones in all. GPUs are counted by device: a share of
    one needs one device, two need two. of_nodes: a place is a node, also if there is only one: no option of ours
    gives it more.
    """
    reasons: list[str] = []
    for totals in places:
        reasons = list(_reasons(amounts, totals))
        if not reasons:
            return ""
    if len(places) > 1 or (of_nodes and places):
        reasons = list(_reasons_of_nodes(amounts, places))
    if reasons:
        return "asks for " + ", and for ".join(reasons)
    none = "no node has all of that" if places else "there is no node"
    return f"asks for {_in_words(amounts)}, and {none}"


def describe_unfit(
    table: JobTable, jobs: Sequence[int], kinds: JobKinds, *places: Totals, of_nodes: bool = False
) -> str:
    """The first of some jobs that cannot run, why, and how many more there are."""
    first = jobs[0]
    why = why_unfit(kinds.of(first).amounts, *places, of_nodes=of_nodes)
    text = f"job {one_line(table.ids[first])!r}: {why}"
    if len(jobs) > 1:
        text += f"; {count(len(jobs) - 1, 'more job')} cannot run either"
    return text


def _reasons(amounts: Amounts, totals: Totals) -> Iterator[str]:
    if amounts.cpus > totals.cpus:
        yield f"{needs_wording.cores(amounts.cpus)}, but there {_are(totals.cpus)} (--workers)"
    if totals.memory is not None and amounts.memory > totals.memory:
        asked, there_is = needs_wording.told_apart(amounts.memory, totals.memory)
        verb = "are" if there_is.endswith("bytes") else "is"
        yield f"{asked} of memory, but there {verb} {there_is} (--memory)"
    there_are = len(totals.gpus) * THOUSAND
    if amounts.gpus > there_are:
        yield f"{needs_wording.devices(amounts.gpus)}, but there {_are(there_are)} (--gpus)"
    yield from _reasons_of_shared(amounts, totals)


def _reasons_of_nodes(amounts: Amounts, nodes: Sequence[Totals]) -> Iterator[str]:
    """What no node has enough of, taken by itself."""
    if amounts.cpus > (most := max(totals.cpus for totals in nodes)):
        yield f"{needs_wording.cores(amounts.cpus)}, but no node has {_more_than(most)}"
    memory = [totals.memory for totals in nodes if totals.memory is not None]
    if len(memory) == len(nodes) and amounts.memory > (most := max(memory)):
        asked, there_is = needs_wording.told_apart(amounts.memory, most)
        yield f"{asked} of memory, but no node has more than {there_is}"
    if amounts.gpus > (most := max(len(totals.gpus) for totals in nodes) * THOUSAND):
        yield f"{needs_wording.devices(amounts.gpus)}, but no node has {_more_than(most)}"
    yield from _reasons_of_shared(amounts, nodes[0])


def _reasons_of_shared(amounts: Amounts, totals: Totals) -> Iterator[str]:
    for name, amount in amounts.resources:
        there = totals.resources.get(name, 0)
        if amount > there:
            option = "--resource" if there else _option_for(name, totals)
            yield f"{name}={units(amount):g}, but there {_are(there)} ({option})"


def _more_than(most: int) -> str:
    return f"more than {units(most):g}" if most else "any"


def _in_words(amounts: Amounts) -> str:
    asked = {"cpus": amounts.cpus, "gpus": amounts.gpus}
    known = {name: units(amount) for name, amount in asked.items() if amount}
    memory = {"memory": amounts.memory} if amounts.memory else {}
    others = {"resources": {name: units(amount) for name, amount in amounts.resources}}
    return needs_wording.amounts_in_words({**known, **memory, **others})


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
        yield f"{needs_wording.cores(amounts.cpus)} ({_free(free)})"
    if total.memory is not None and amounts.memory > (free := max(0, total.memory - place.memory)):
        asked, left = needs_wording.told_apart(amounts.memory, free)
        yield f"{asked} of memory ({left if free else 'none'} free)"
    if amounts.gpus:
        part = min(THOUSAND, amounts.gpus)
        room = sum(taken + part <= THOUSAND for taken in place.devices)
        if room * THOUSAND < amounts.gpus:
            most = max((THOUSAND - taken for taken in place.devices), default=0)
            yield f"{needs_wording.devices(amounts.gpus)} ({_free(room * THOUSAND if part == THOUSAND else most)})"
    for name, amount in amounts.resources:
        if amount > (free := total.resources.get(name, 0) - place.shared.taken.get(name, 0)):
            yield f"{name}={units(amount):g} ({_free(free)})"


def _free(amount: int) -> str:
    return f"{units(amount):g} free" if amount > 0 else "none free"
