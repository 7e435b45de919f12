"""What must hold for the needs of jobs in every simulated history.

The book knows what each fake job asks for and which worker has leases, from the commands that were carried out.
It sums by itself, in the units of users, and never asks the core what is taken.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.worker_state import ABANDONED, READY, STARTING, STOPPING, Holding
from supervisor.core.terms.events import Command, StartJobs
from supervisor.core.terms.jobs import PENDING
from supervisor.core.terms.needs import Needs, Totals
from tools.simulation.world import FakeJob, FakeWorker, World

_TINY = 1e-9
_Amounts = dict[str, float]


class Overdrawn(AssertionError):
    """A promise about needs did not hold."""


def taken_by(job: FakeJob) -> _Amounts:
    """What one job takes, by name of the resource."""
    needs = job.own.needs or Needs()
    amounts = {"cpus": 1 if needs.cpus is None else needs.cpus, **needs.resources}
    if needs.memory:
        amounts["memory"] = needs.memory
    if needs.gpus:
        amounts["gpus"] = needs.gpus
    return amounts


class NeedsBook:
    """The book of one run. `passed`: for each kind of needs, how many later jobs went ahead of the first job that
    waits, while it did not fit.

    totals: what each place has. shared: what all of them have together, in thousandths.
    """

    def __init__(
        self,
        jobs: list[FakeJob],
        totals: dict[int, Totals],
        shared: dict[str, int],
        core: Scheduler,
        retry: Sequence[int],
    ) -> None:
        self.jobs = jobs
        self.totals = totals
        self.shared = {name: amount / 1000 for name, amount in shared.items()}
        self.in_use = len(totals) > 1 or any(job.own.needs is not None for job in jobs)
        orderly = all(not job.own.priority for job in jobs) and len({job.domain for job in jobs}) == 1
        # Jobs that are taken in the order of the plan, as far as this run has not touched them.
        excluded = {*retry, *core.table.charges}
        waiting = [
            job for job in range(len(jobs)) if core.table.state[job] == PENDING and job not in excluded
        ]
        self.untouched = waiting if orderly else []
        self._claimed: tuple[int, Holding] | None = None
        self.passed: dict[str, int] = defaultdict(int)
        self.heads: dict[str, int] = {}

    def limits(self, core: Scheduler, place: int = 0) -> _Amounts:
        """What there is in a place; with one place its cores follow the slots."""
        totals = self.totals[place]
        cores = core.dispatcher.slots if len(self.totals) == 1 else totals.cpus / 1000
        found: _Amounts = {"cpus": cores, "gpus": len(totals.gpus)}
        if totals.memory is not None:
            found["memory"] = totals.memory
        return found | self.shared

    def check_turn(self, core: Scheduler, world: World, commands: Iterable[Command]) -> None:
        """After a turn, whose commands have been carried out."""
        if not self.in_use:
            return
        started = [command for command in commands if isinstance(command, StartJobs)]
        workers = [world.workers[command.incarnation] for command in started]
        for place in {worker.place for worker in workers}:
            there = [each for each, worker in zip(started, workers, strict=True) if worker.place == place]
            self._check_sums(core, world, place, there)
        for command, worker in zip(started, workers, strict=True):
            self._check_devices(world, worker, command)
        if len(self.totals) == 1:
            self._count_passed(core, started, self._used(world, 0))
        self._check_claim(core, world, started)

    def _used(self, world: World, place: int) -> _Amounts:
        """What the jobs of a place's workers with leases take; of what is shared, those of all places: also of one
        that is lost, while it may compute."""
        used: _Amounts = defaultdict(float)
        for worker in world.workers.values():
            if (at := worker.at()) is not None:
                for name, amount in taken_by(self.jobs[at[1]]).items():
                    used[name] += amount if worker.place == place or name in self.shared else 0
        return used

    def _check_sums(self, core: Scheduler, world: World, place: int, started: list[StartJobs]) -> None:
        """Nothing that a new job takes is promised more than there is in its place."""
        if place not in self.totals:
            raise Overdrawn(f"jobs were handed out in place {place}, which has ended")
        used, limits = self._used(world, place), self.limits(core, place)
        for command in started:
            kinds = {str(taken_by(self.jobs[job])) for job in command.jobs}
            if len(kinds) > 1:
                raise Overdrawn(f"a hand-out has jobs of different needs: {kinds}")
            for name in taken_by(self.jobs[command.jobs[0]]):
                fresh = len(world.workers[command.incarnation].queue) + 1 == len(command.jobs)
                if fresh and name in limits and used[name] > limits[name] + _TINY:
                    raise Overdrawn(f"{used[name]:g} of {limits[name]:g} {name} are promised")

    def _check_devices(self, world: World, worker: FakeWorker, command: StartJobs) -> None:
        wanted = taken_by(self.jobs[command.jobs[0]]).get("gpus", 0)
        number = int(wanted) if wanted >= 1 else 1 if wanted else 0
        if len(worker.devices or ()) != number:
            raise Overdrawn(f"{wanted} devices are wanted, and the worker has {worker.devices}")
        shares: _Amounts = defaultdict(float)
        for other in world.workers.values():
            if (at := other.at()) is not None and other.place == worker.place:
                for device in other.devices or ():
                    shares[device] += min(1, taken_by(self.jobs[at[1]]).get("gpus", 0))
        if any(share > 1 + _TINY for share in shares.values()):
            raise Overdrawn(f"a device is promised more than once: {dict(shares)}")

    # ------------------------------------------------------------------ who goes ahead

    def _count_passed(self, core: Scheduler, started: list[StartJobs], used: _Amounts) -> None:
        went = [job for command in started for job in command.jobs]
        gone = set(went)
        later = [job for job in self.untouched if job in gone]
        self.untouched = [
            job for job in self.untouched if job not in gone and core.table.state[job] == PENDING
        ]
        heads: dict[str, int] = {}
        for job in self.untouched:
            heads.setdefault(str(taken_by(self.jobs[job])), job)
        limits = self.limits(core)
        claimed = core.dispatcher.placement.claimed() if core.dispatcher.placement is not None else None
        # A job of its kind that was tried before stands before it, and is the one that is passed over.
        first = {line.peek() for line in core.queue.lines if line.has_ready()}
        heads = {kind: head for kind, head in heads.items() if head in first}
        for kind, head in heads.items():
            fits = self._fits(head, used, limits)
            # A job whose worker cannot be started claims nothing, and its turn counts from when it can.
            if (
                core.dispatcher.starts.any()
                or fits
                or self.heads.get(kind) != head
                or not self._fits(head, {}, limits)
            ):
                self.passed[kind] = 0
                continue
            passed = sum(job > head for job in later)
            self.passed[kind] += passed
            if passed and self.passed[kind] >= core.dispatcher.slots and claimed is None:
                raise Overdrawn(
                    f"{self.passed[kind]} jobs went ahead of {self.jobs[head].id}, and it claims nothing"
                )
        self.heads = heads

    def _check_claim(self, core: Scheduler, world: World, started: list[StartJobs]) -> None:
        """What was handed out in the turns since the claim leaves room for it: of its place's in that place, of what
        is shared in every place."""
        placement = core.dispatcher.placement
        claimed = placement.claimed() if placement is not None else None
        before, self._claimed = self._claimed, claimed
        if claimed is None or before is None or before != claimed:
            return
        if any(worker.status in (STARTING, STOPPING) for worker in core.workers.values()):
            return  # the claim may have been met by a worker that is coming, and the next job of its kind claims
        claimant, holding = claimed
        claim = taken_by(self.jobs[claimant])
        if any(taken_by(self.jobs[command.jobs[0]]) == claim for command in started):
            return  # a job with the same needs had the claim, and this one claims since then
        used, limits = self._used(world, holding.place), self.limits(core, holding.place)
        for command in started:
            there = world.workers[command.incarnation].place == holding.place
            for name in taken_by(self.jobs[command.jobs[0]]):
                is_meant = name in self.shared or (there and name != "gpus" and name in limits)
                if is_meant and used[name] + claim.get(name, 0) > limits[name] + _TINY:
                    job_id = self.jobs[command.jobs[0]].id
                    raise Overdrawn(
                        f"{job_id} went ahead of {self.jobs[claimant].id}, which had claimed {name}"
                    )

    def _fits(self, job: int, used: _Amounts, limits: _Amounts) -> bool:
        return all(
            used.get(name, 0) + amount <= limits.get(name, math.inf) + _TINY
            for name, amount in taken_by(self.jobs[job]).items()
        )

    def check_idle(self, core: Scheduler, world: World) -> None:
        """After a turn in which jobs may have been handed out: no slot idles while a job fits, with the devices
        that it needs, and no claim forbids it."""
        dispatcher = core.dispatcher
        if not self.in_use or core.stopped or core.blocked_by() or dispatcher.pace is not None:
            return
        if any(worker.status in (STARTING, STOPPING) for worker in core.workers.values()):
            return
        if dispatcher.placement is None or dispatcher.placement.claimed() is not None:
            return
        for place in dispatcher.placement.places.values():
            if place.number not in dispatcher.alone.places(core.workers):
                self._check_idle_in(core, world, place.number, place.slots)

    def _check_idle_in(self, core: Scheduler, world: World, place: int, slots: int) -> None:
        starts = core.dispatcher.starts
        there = [worker for worker in core.workers.values() if worker.place == place]
        alive = [worker for worker in there if worker.status != ABANDONED]
        idle = [worker for worker in alive if worker.status == READY and not worker.leases]
        # After a start that failed a slot may have to wait; a worker that is there need not.
        free = len(alive) < slots and not starts.any()
        seen = [world.workers[worker.incarnation].devices or () for worker in idle]
        used, limits = self._used(world, place), self.limits(core, place)
        for line in core.queue.lines:
            if not line.has_ready():
                continue
            job = line.peek()
            gpus = taken_by(self.jobs[job]).get("gpus", 0)
            slot = free or (idle and not starts.any()) or (not gpus and () in seen)
            if slot and self._fits(job, used, limits) and self._devices_fit(world, place, gpus):
                raise Overdrawn(f"a slot idles in place {place}, and {self.jobs[job].id} fits")

    def _devices_fit(self, world: World, place: int, gpus: float) -> bool:
        """Whether there are so many whole devices, or a device with such a share."""
        shares = dict.fromkeys(self.totals[place].gpus, 0.0)
        for worker in world.workers.values():
            if (at := worker.at()) is not None and worker.place == place:
                for device in worker.devices or ():
                    shares[device] += min(1, taken_by(self.jobs[at[1]]).get("gpus", 0))
        room = [share for share in shares.values() if share + min(1, gpus) <= 1 + _TINY]
        return len(room) >= math.ceil(gpus)
