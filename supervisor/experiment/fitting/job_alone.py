"""What a job is given that runs in this process and alone: in the debugger, or once more."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from supervisor.core.terms.needs import THOUSAND, Needs, Totals, amounts_of, units
from supervisor.core.terms.settings import Settings
from supervisor.core.terms.wording import count
from supervisor.experiment.fitting.machine_totals import THIS_MACHINE, Machine, totals_of
from supervisor.system.capacity.gpu_devices import VISIBLE
from workers.job.current_job import current_job


class GivenAlone(NamedTuple):
    """cpus: as in `current_job()`; cap: the threads that go with them, 0 if the job does not name cores. gpus: the
    names of its devices; missing: what to say if there are fewer than it asks for. by_driver: see `Totals`."""

    cpus: float
    cap: int
    gpus: tuple[str, ...]
    missing: str
    by_driver: bool


def given_alone(needs: Needs | None, settings: Settings, machine: Machine = THIS_MACHINE) -> GivenAlone:
    amounts = amounts_of(needs, settings)
    named = settings.job_cpus is not None or (needs is not None and needs.cpus is not None)
    wanted = -(-amounts.gpus // THOUSAND)
    totals = totals_of(settings, machine) if wanted else Totals(0)
    missing = ""
    if len(totals.gpus) < wanted:
        there = count(len(totals.gpus), "GPU") if totals.gpus else "none"
        missing = f"it asks for {count(wanted, 'GPU')}, and there is {there} here (--gpus)"
    cap = max(1, amounts.cpus // THOUSAND) if named else 0
    return GivenAlone(units(amounts.cpus), cap, totals.gpus[:wanted], missing, totals.by_driver)


def ask_for_gpus(all_needs: Iterable[Needs | None], settings: Settings) -> bool:
    """Whether one of these jobs asks for a device: then the others see none."""
    return any(amounts_of(needs, settings).gpus for needs in all_needs)


def give(given: GivenAlone, *, with_gpus: bool) -> None:
    """Set what the job finds in `current_job()` and in the environment. `with_gpus`: some job of the experiment
    asks for a device."""
    current_job().cpus, current_job().gpus = given.cpus, given.gpus
    if with_gpus:
        os.environ[VISIBLE] = ",".join(given.gpus)
        if given.gpus and given.by_driver:
            os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
