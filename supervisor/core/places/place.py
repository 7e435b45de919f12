"""What the jobs of one place take together, whether one more fits, and why one never can. Pure.

One machine is one place. Amounts of running jobs are summed anew whenever jobs are handed out: what is derived
cannot drift from what it is derived from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from supervisor.core.state.worker_state import Holding
from supervisor.core.terms import needs_wording
from supervisor.core.terms.events import PlaceFacts
from supervisor.core.terms.needs import THOUSAND, Amounts, Totals, units
from supervisor.core.terms.wording import count, one_line

if TYPE_CHECKING:
    from supervisor.core.places.job_kinds import JobKinds
    from supervisor.core.state.job_table import JobTable


class Place:
    """`cpus`, `memory`, `devices` (by number) and `resources`: what is taken. Thousandths, memory in bytes.

    number, name: of the place. slots: how many workers it may have; the first has the number `first_slot`.
    A claim is what a waiting job has first call on; see `fits`.
    """

    def __init__(self, facts: PlaceFacts, first_slot: int = 0) -> None:
        self.number, self.name = facts.place, facts.name
        self.first_slot, self.slots = first_slot, facts.slots
        self.totals = facts.totals
        self.clear()

    def load(self) -> float:
        """The share of the cores that is taken."""
        return self.cpus / max(1, self.totals.cpus)

    def clear(self) -> None:
        self.cpus = self.memory = 0
        self.devices = [0] * len(self.totals.gpus)
        self.resources = dict.fromkeys(self.totals.resources, 0)

    def take(self, amounts: Amounts, devices: Sequence[int], *, cpus: bool = True) -> None:
        """`cpus` False: all but the cores."""
        self.cpus += amounts.cpus if cpus else 0
        self.memory += amounts.memory
        for device in devices:
            self.devices[device] += min(THOUSAND, amounts.gpus)
        for name, amount in amounts.resources:
            self.resources[name] = self.resources.get(name, 0) + amount

    def fits(
        self,
        amounts: Amounts,
        claim: Holding | None = None,
        ready: Iterable[tuple[int, ...]] = (),
        avoid: Collection[int] = (),
    ) -> tuple[int, ...] | None:
        """The devices that a job with these amounts would get; None if it does not fit now.

        claim: what must stay possible: what is taken then is at most the totals less these amounts. ready: sets of
        devices that idle workers have already, which are preferred. avoid: devices that are taken last.
        """
        claimed = claim.amounts if claim is not None else NOTHING
        total = self.totals
        if self.cpus + amounts.cpus + claimed.cpus > total.cpus:
            return None
        memory = total.memory if amounts.memory else None
        if memory is not None and self.memory + amounts.memory + claimed.memory > memory:
            return None
        reserved = dict(claimed.resources)
        for name, amount in amounts.resources:
            taken = self.resources.get(name, 0) + reserved.get(name, 0)
            if taken + amount > total.resources.get(name, 0):
                return None
        return self._choose(amounts.gpus, claim, ready, avoid) if amounts.gpus else ()

    def respects(self, claim: Holding, running: Holding) -> bool:
        """Whether a worker may go on with jobs like the one that it runs: of everything that these take there is
        as much left as was claimed."""
        amounts, claimed, total = running.amounts, claim.amounts, self.totals
        if self.cpus + claimed.cpus > total.cpus:
            return False
        if amounts.memory and total.memory is not None and self.memory + claimed.memory > total.memory:
            return False
        reserved = dict(claimed.resources)
        return all(
            self.resources[name] + reserved.get(name, 0) <= total.resources.get(name, 0)
            for name, _ in amounts.resources
        ) and all(
            self.devices[device] + self._claimed(claim, device) <= THOUSAND for device in running.devices
        )

    def free_soonest(self, amounts: Amounts) -> tuple[int, ...]:
        """The devices with the least in use, as many as the amounts need."""
        number = -(-amounts.gpus // THOUSAND)
        order = sorted(range(len(self.devices)), key=lambda device: (self.devices[device], device))
        return tuple(sorted(order[:number]))

    def at_once(self, amounts: Amounts) -> int:
        """How many jobs with these amounts fit together if nothing else runs."""
        total = self.totals
        bounds = [total.cpus // amounts.cpus]
        if amounts.memory and total.memory is not None:
            bounds.append(total.memory // amounts.memory)
        if amounts.gpus >= THOUSAND:
            bounds.append(len(total.gpus) * THOUSAND // amounts.gpus)
        elif amounts.gpus:
            bounds.append(len(total.gpus) * (THOUSAND // amounts.gpus))
        bounds += [total.resources.get(name, 0) // amount for name, amount in amounts.resources]
        return min(bounds)

    def _choose(
        self, gpus: int, claim: Holding | None, ready: Iterable[tuple[int, ...]], avoid: Collection[int]
    ) -> tuple[int, ...] | None:
        part = min(THOUSAND, gpus)
        room = [
            device
            for device, taken in enumerate(self.devices)
            if taken + part + self._claimed(claim, device) <= THOUSAND
        ]
        number = -(-gpus // THOUSAND)
        if len(room) < number:
            return None
        possible = set(room)
        for devices in ready:
            if len(devices) == number and possible.issuperset(devices):
                return devices
        # A share goes to the fullest device that has room, so that whole ones stay free.
        room.sort(key=lambda device: (device in avoid, -self.devices[device], device))
        return tuple(sorted(room[:number]))

    def _claimed(self, claim: Holding | None, device: int) -> int:
        if claim is None or device not in claim.devices:
            return 0
        return min(THOUSAND, claim.amounts.gpus)


NOTHING = Amounts(cpus=0)


# ------------------------------------------------------------------- in words


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
        yield f"{needs_wording.cores(amounts.cpus)}, but there {_are(totals.cpus)} (--workers)"
    if totals.memory is not None and amounts.memory > totals.memory:
        asked, there_is = needs_wording.told_apart(amounts.memory, totals.memory)
        verb = "are" if there_is.endswith("bytes") else "is"
        yield f"{asked} of memory, but there {verb} {there_is} (--memory)"
    there_are = len(totals.gpus) * THOUSAND
    if amounts.gpus > there_are:
        yield f"{needs_wording.devices(amounts.gpus)}, but there {_are(there_are)} (--gpus)"
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
        if amount > (free := total.resources.get(name, 0) - place.resources.get(name, 0)):
            yield f"{name}={units(amount):g} ({_free(free)})"


def _free(amount: int) -> str:
    return f"{units(amount):g} free" if amount > 0 else "none free"
