"""Whether a job can ever run with what there is, in the words of its user. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from supervisor.core.terms.needs import THOUSAND, Amounts, Totals, units
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
        yield f"{_cores(amounts.cpus)}, but there {_are(totals.cpus)} (--workers)"
    if totals.memory is not None and amounts.memory > totals.memory:
        asked, there_is = _told_apart(amounts.memory, totals.memory)
        yield f"{asked} of memory, but there are {there_is} (--memory)"
    devices = len(totals.gpus)
    if amounts.gpus > devices * THOUSAND:
        share = f"{units(amounts.gpus):g} of a GPU" if amounts.gpus < THOUSAND else ""
        wanted = share or count(amounts.gpus // THOUSAND, "GPU")
        yield f"{wanted}, but there {_are(devices * THOUSAND)} (--gpus)"
    for name, amount in amounts.resources:
        there = totals.resources.get(name, 0)
        if amount > there:
            option = f"--resource {name}=N" if not there else "--resource"
            yield f"{name}={units(amount):g}, but there {_are(there)} ({option})"


def _cores(amount: int) -> str:
    return "1 core" if amount == THOUSAND else f"{units(amount):g} cores"


def _are(amount: int) -> str:
    if not amount:
        return "is none"
    return "is 1" if amount == THOUSAND else f"are {units(amount):g}"


def _told_apart(larger: int, smaller: int) -> tuple[str, str]:
    """Two sizes, as short as they still differ: `16G` and `15.4G`, else in bytes."""
    texts = _bytes(larger), _bytes(smaller)
    return texts if texts[0] != texts[1] else (f"{larger:,} bytes", f"{smaller:,} bytes")


def _bytes(number: int) -> str:
    for unit, scale in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20)):
        if number >= scale:
            return f"{number / scale:.2f}".rstrip("0").rstrip(".") + unit
    return f"{number:,} bytes"
