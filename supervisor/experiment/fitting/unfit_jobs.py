"""Jobs that can never run with what there is: refused at the first start, named on a resume."""

from __future__ import annotations

from typing import NamedTuple

from supervisor.core.places.job_kinds import JobKinds, job_kinds
from supervisor.core.places.shortages import describe_unfit, why_unfit
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.jobs import COMPLETED
from supervisor.core.terms.needs import THOUSAND, Amounts, Totals
from supervisor.core.terms.settings import Settings
from supervisor.experiment.fitting.machine_totals import (
    THIS_MACHINE,
    Machine,
    detected_devices,
    missing_devices,
    totals_of,
)

_NAME_THEM = "Ask for less, or name them: --gpus 0,1"


class Offer(NamedTuple):
    """What there is for the jobs of an experiment in which some say what they need.

    kinds: the jobs by what they need. missing: what to say of devices that are not there.
    """

    totals: Totals
    kinds: JobKinds
    missing: str

    @property
    def gpu_jobs(self) -> bool:
        """Whether some of the jobs ask for devices."""
        return self.kinds.use_gpus()


def first_offer(
    table: JobTable, mask: bytes, settings: Settings, machine: Machine = THIS_MACHINE
) -> Offer | None:
    """What there is for a new experiment; None if no job says what it needs. `mask`: 1 for each job of this run.

    Raises UsageError if devices are not there, or one of these jobs can never run.
    """
    refuse_missing_devices(settings, machine)
    kinds = job_kinds(table, settings)
    if kinds is None:
        return None
    totals = totals_of(settings, machine)
    if machine.largest is None or totals.cpus < machine.largest * THOUSAND:  # else no option offers more
        refuse_unfit(table, mask, kinds, totals, detected_devices(settings, machine))
    else:
        refuse_unfit(table, mask, kinds, totals, of_nodes=True)
    return Offer(totals, kinds, "")


def later_offer(table: JobTable, settings: Settings, machine: Machine = THIS_MACHINE) -> Offer | None:
    """What there is for an experiment that goes on, maybe on another machine: nothing is refused any more."""
    kinds = job_kinds(table, settings)
    if kinds is None:
        return None
    totals = totals_of(settings, machine)
    missing = missing_devices(settings, machine)
    if not missing and _waits_for_devices(table, kinds, totals):
        missing = detected_devices(settings, machine)
    return Offer(totals, kinds, missing)


def _waits_for_devices(table: JobTable, kinds: JobKinds, totals: Totals) -> bool:
    """Whether a job that is not completed asks for more devices than there are."""
    lacking = {number for number, kind in enumerate(kinds.kinds) if _lack_devices(kind.amounts, totals)}
    return bool(lacking) and any(
        kind in lacking and table.wanted[job] and table.state[job] != COMPLETED
        for job, kind in enumerate(kinds.kind_of)
    )


def refuse_missing_devices(settings: Settings, machine: Machine = THIS_MACHINE) -> None:
    """Raises UsageError if `--gpus` asks for devices that are certainly not there."""
    if text := missing_devices(settings, machine):
        raise UsageError(f"{text}. {_NAME_THEM}")


def refuse_unfit(
    table: JobTable,
    mask: bytes,
    kinds: JobKinds,
    totals: Totals,
    detected: str = "",
    *,
    of_nodes: bool = False,
) -> None:
    """Raises UsageError if one of the jobs in `mask` can never run. `mask`: 1 for each job of this run. `detected`:
    what was found if nobody said which devices there are. `of_nodes`: the totals are those of the largest node."""
    unfit = {number for number, kind in enumerate(kinds.kinds) if why_unfit(kind.amounts, totals)}
    if not unfit:
        return
    jobs = [job for job, kind in enumerate(kinds.kind_of) if kind in unfit and mask[job]]
    if jobs:
        text = describe_unfit(table, jobs, kinds, totals, of_nodes=of_nodes)
        if of_nodes:
            raise UsageError(f"{text}. Ask for less, or let a larger node join the cluster.")
        if detected and _lack_devices(kinds.of(jobs[0]).amounts, totals):
            raise UsageError(f"{text}. {detected}. {_NAME_THEM}")
        raise UsageError(f"{text}. Ask for less, or offer more.")


def _lack_devices(amounts: Amounts, totals: Totals) -> bool:
    return amounts.gpus > len(totals.gpus) * THOUSAND
