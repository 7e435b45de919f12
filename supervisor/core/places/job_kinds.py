"""Jobs by what they need: a kind is what jobs of equal needs have in common. Pure."""

from __future__ import annotations

from array import array

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.needs import Amounts, Needs, amounts_of
from supervisor.core.terms.settings import Settings


class Kind(msgspec.Struct, frozen=True):
    """amounts: what each job takes. cpus: thousandths of a core, 0 if neither the job nor `--job-cpus` names them.
    silent: neither the jobs nor the experiment say anything of what is needed."""

    amounts: Amounts
    cpus: int
    silent: bool


class JobKinds:
    """`kinds[kind_of[job]]` is what a job needs. Kind 0 is that of the jobs that say nothing."""

    def __init__(self, table: JobTable, settings: Settings) -> None:
        self.kinds: list[Kind] = []
        self.kind_of = array("I", bytes(array("I").itemsize * len(table)))
        numbers: dict[Kind, int] = {}

        def number_of(needs: Needs | None) -> int:
            kind = _kind(needs, settings)
            if kind not in numbers:
                numbers[kind] = len(self.kinds)
                self.kinds.append(kind)
            return numbers[kind]

        number_of(None)
        for job, own in table.own.items():
            if own.needs is not None:
                self.kind_of[job] = number_of(own.needs)
        # By kind, for a quick look at many.
        self.cpus = [kind.amounts.cpus for kind in self.kinds]
        self.memory = [kind.amounts.memory for kind in self.kinds]
        self.least_cpus = min(self.cpus)

    def of(self, job: int) -> Kind:
        return self.kinds[self.kind_of[job]]

    def use_gpus(self) -> bool:
        """Whether any job asks for a device."""
        return any(kind.amounts.gpus for kind in self.kinds)

    def use_memory(self) -> bool:
        """Whether any job says how much memory it takes."""
        return any(kind.amounts.memory for kind in self.kinds)


def job_kinds(table: JobTable, settings: Settings, *, always: bool = False) -> JobKinds | None:
    """None if no job says what it needs, nor the experiment for all: then slots are all that is counted.
    `always`: there are several places, each of which has to be counted."""
    said = any(own.needs is not None for own in table.own.values())
    return JobKinds(table, settings) if always or said or _names_something(settings) else None


def _names_something(settings: Settings) -> bool:
    return any(value is not None for value in (settings.job_cpus, settings.job_memory, settings.job_gpus))


def _kind(needs: Needs | None, settings: Settings) -> Kind:
    amounts = amounts_of(needs, settings)
    named = settings.job_cpus is not None or (needs is not None and needs.cpus is not None)
    silent = needs in (None, Needs()) and not _names_something(settings)
    return Kind(amounts, amounts.cpus if named else 0, silent)
