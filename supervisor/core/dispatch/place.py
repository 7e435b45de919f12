"""What the jobs of one place take together, and whether one more fits. Pure.

One machine is one place. Amounts of running jobs are summed anew whenever jobs are handed out: what is derived
cannot drift from what it is derived from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from supervisor.core.state.worker_state import Holding
from supervisor.core.terms.events import PlaceFacts
from supervisor.core.terms.needs import THOUSAND, Amounts


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
        claimed = claim.amounts if claim is not None else _NOTHING
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
        count = -(-amounts.gpus // THOUSAND)
        order = sorted(range(len(self.devices)), key=lambda device: (self.devices[device], device))
        return tuple(sorted(order[:count]))

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
        count = -(-gpus // THOUSAND)
        if len(room) < count:
            return None
        possible = set(room)
        for devices in ready:
            if len(devices) == count and possible.issuperset(devices):
                return devices
        # A share goes to the fullest device that has room, so that whole ones stay free.
        room.sort(key=lambda device: (device in avoid, -self.devices[device], device))
        return tuple(sorted(room[:count]))

    def _claimed(self, claim: Holding | None, device: int) -> int:
        if claim is None or device not in claim.devices:
            return 0
        return min(THOUSAND, claim.amounts.gpus)


_NOTHING = Amounts(cpus=0)
