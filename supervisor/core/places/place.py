"""What the jobs of one place take together, and whether one more fits. Pure.

One machine is one place. Cores, memory and devices are of a place; other resources, such as licences, are of all
places together. Amounts of running jobs are summed anew whenever jobs are handed out: what is derived cannot drift
from what it is derived from.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from supervisor.core.state.worker_state import Holding
from supervisor.core.terms.events import PlaceFacts
from supervisor.core.terms.needs import THOUSAND, Amounts

NOTHING = Amounts(cpus=0)


class SharedResources:
    """Resources other than cores, memory and devices, by name in thousandths: what there is for all places together,
    and what is taken."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        self.totals = dict(totals)
        self.clear()

    def clear(self) -> None:
        self.taken = dict.fromkeys(self.totals, 0)

    def take(self, amounts: Amounts) -> None:
        for name, amount in amounts.resources:
            self.taken[name] = self.taken.get(name, 0) + amount

    def fits(self, amounts: Amounts, claimed: Amounts = NOTHING) -> bool:
        """Whether a job may have these beside what is taken and claimed."""
        reserved = dict(claimed.resources)
        return all(
            self.taken.get(name, 0) + reserved.get(name, 0) + amount <= self.totals.get(name, 0)
            for name, amount in amounts.resources
        )

    def respect(self, claimed: Amounts, running: Amounts) -> bool:
        """Whether of everything that a running job has of these there is as much left as was claimed."""
        reserved = dict(claimed.resources)
        return all(
            self.taken.get(name, 0) + reserved.get(name, 0) <= self.totals.get(name, 0)
            for name, _ in running.resources
        )

    def at_once(self, amounts: Amounts) -> float:
        """How many jobs with these amounts there may be together; infinity if they take none of these."""
        return min(
            (self.totals.get(name, 0) // amount for name, amount in amounts.resources), default=math.inf
        )


class Place:
    """`cpus`, `memory` and `devices` (by number): what is taken. Thousandths, memory in bytes.

    number, name: of the place. slots: how many workers it may have; the first has the number `first_slot`.
    shared: what it has together with other places. totals: what there is, that included.
    A claim is what a waiting job has first call on, in its place; see `fits`.
    """

    def __init__(self, facts: PlaceFacts, shared: SharedResources, first_slot: int = 0) -> None:
        self.number, self.name = facts.place, facts.name
        self.first_slot, self.slots = first_slot, facts.slots
        self.shared = shared
        self.totals = msgspec.structs.replace(facts.totals, resources=shared.totals)
        self.clear()

    def load(self) -> float:
        """The share of the cores that is taken."""
        return self.cpus / max(1, self.totals.cpus)

    def clear(self) -> None:
        """Nothing is taken; `shared` is cleared for all places at once."""
        self.cpus = self.memory = 0
        self.devices = [0] * len(self.totals.gpus)

    def take(self, amounts: Amounts, devices: Sequence[int], *, cpus: bool = True) -> None:
        """`cpus` False: all but the cores."""
        self.cpus += amounts.cpus if cpus else 0
        self.memory += amounts.memory
        for device in devices:
            self.devices[device] += min(THOUSAND, amounts.gpus)
        self.shared.take(amounts)

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
        claimed = claim.amounts if claim is not None and claim.place == self.number else NOTHING
        total = self.totals
        if self.cpus + amounts.cpus + claimed.cpus > total.cpus:
            return None
        memory = total.memory if amounts.memory else None
        if memory is not None and self.memory + amounts.memory + claimed.memory > memory:
            return None
        if amounts.resources and not self.shared.fits(amounts, NOTHING if claim is None else claim.amounts):
            return None
        return self._choose(amounts.gpus, claim, ready, avoid) if amounts.gpus else ()

    def respects(self, claim: Holding, running: Holding) -> bool:
        """Whether a worker may go on with jobs like the one that it runs: of everything that these take there is
        as much left as was claimed."""
        amounts, claimed, total = running.amounts, claim.amounts, self.totals
        if amounts.resources and not self.shared.respect(claimed, amounts):
            return False
        if claim.place != self.number:
            return True
        if self.cpus + claimed.cpus > total.cpus:
            return False
        if amounts.memory and total.memory is not None and self.memory + claimed.memory > total.memory:
            return False
        return all(
            self.devices[device] + self._claimed(claim, device) <= THOUSAND for device in running.devices
        )

    def free_soonest(self, amounts: Amounts) -> tuple[int, ...]:
        """The devices with the least in use, as many as the amounts need."""
        number = -(-amounts.gpus // THOUSAND)
        order = sorted(range(len(self.devices)), key=lambda device: (self.devices[device], device))
        return tuple(sorted(order[:number]))

    def at_once(self, amounts: Amounts) -> int:
        """How many jobs with these amounts fit here together if nothing else runs, by what is of this place alone."""
        total = self.totals
        bounds = [total.cpus // amounts.cpus]
        if amounts.memory and total.memory is not None:
            bounds.append(total.memory // amounts.memory)
        if amounts.gpus >= THOUSAND:
            bounds.append(len(total.gpus) * THOUSAND // amounts.gpus)
        elif amounts.gpus:
            bounds.append(len(total.gpus) * (THOUSAND // amounts.gpus))
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
        if claim is None or claim.place != self.number or device not in claim.devices:
            return 0
        return min(THOUSAND, claim.amounts.gpus)
