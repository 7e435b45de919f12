"""Jobs, workers and time for the simulation: what a machine full of processes would do.

Nothing of the supervisor is in here. Workers run their leases in order, on simulated time,
and tell what happened as the engine would.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict, deque

import msgspec

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import (
    AnswerControl,
    AnswerWithStacks,
    Command,
    Event,
    KillWorker,
    RevokeJobs,
    SignalWorker,
    StartJobs,
    StartWorker,
    StopWorker,
    Tell,
)
from supervisor.core.terms.jobs import NOTHING_OWN, OwnSettings
from supervisor.core.terms.needs import Needs
from workers.transport.messages import Completed, Failed, Failure

GOOD, RAISES, CRASHES, HANGS, FLAKY = "good", "raises", "crashes", "hangs", "flaky"
HANGS_ONCE, ASKS, GIVES_UP, LEAKS = "hangs once", "asks", "gives up", "leaks"
FELLS = "fells"  # takes its node with it; where there are no nodes it is good
FELLED = 5  # executions of such a job that do so, the first ones
NEEDS = (
    Needs(),
    Needs(cpus=2),
    Needs(cpus=4, memory=500),
    Needs(cpus=0.5, resources={"license": 1}),
    Needs(memory=1200),
    Needs(gpus=1),
    Needs(gpus=0.5, memory=300),
    Needs(cpus=3, gpus=2, resources={"license": 2}),
    Needs(resources={"license": 0.4}),
)
WISHES = 2  # of a job that asks, for other attempts


class FakeJob(msgspec.Struct):
    id: str
    kind: str
    seconds: float
    domain: str | None = None
    own: OwnSettings = NOTHING_OWN


def make_jobs(rng: random.Random) -> list[FakeJob]:
    """The jobs of one history: most are good, many are tiny, some have settings of their own."""
    kinds = [GOOD] * 90 + [RAISES] * 4 + [CRASHES] * 2 + [HANGS] * 1 + [FLAKY] * 3
    kinds += [HANGS_ONCE, GIVES_UP, ASKS, ASKS, LEAKS, FELLS]
    tiny = rng.random() < 0.6
    domains: list[str | None] = rng.choice([[None], ["iris", "wine"], [None, "iris", "wine", "digits"]])
    owns = rng.choice(
        [
            [NOTHING_OWN],
            [NOTHING_OWN, OwnSettings(30.0), OwnSettings(None, 1, 3), OwnSettings(priority=-2)],
            [NOTHING_OWN, *(OwnSettings(needs=rng.choice(NEEDS)) for _ in range(rng.choice([1, 3, 6])))],
        ]
    )
    if rng.random() < 0.2:
        owns = [msgspec.structs.replace(own, needs=rng.choice([None, *NEEDS])) for own in owns * 3]
    return [
        FakeJob(
            f"job/{number}",
            rng.choice(kinds),
            rng.choice([1e-5, 1e-4, 0.001] if tiny and rng.random() < 0.98 else [0.01, 0.3, 5.0]),
            rng.choice(domains),
            rng.choice(owns),
        )
        for number in range(rng.choice([1, 7, 60, 400]))
    ]


class FakeWorker:
    """Runs leases in order on simulated time, as a worker process would."""

    def __init__(self, incarnation: int, devices: tuple[str, ...] | None, place: int) -> None:
        self.incarnation = incarnation
        self.devices = devices
        self.place = place
        self.queue: deque[tuple[int, int]] = deque()
        self.revoked: set[int] = set()
        self.busy_with: tuple[int, int] | None = None
        self.ready = False
        self.finishing = False
        self.stopping = False
        self.dead = False
        self.cut = False  # its node is lost: nobody hears it, and it computes on for a while
        self.last: tuple[int, int] | None = None  # what it began last
        self.held: tuple[int, int] | None = None  # what it was at when it was cut, by what had been heard
        self.kill_asked = False
        self.ended_with_node = ""  # the cause of its death, if it was that of its node

    def at(self) -> tuple[int, int] | None:
        """The lease and the job for which it takes something, as far as anybody can know."""
        if self.cut:  # if it dies by itself, nobody hears that either
            return None if self.ended_with_node else self.held
        if self.dead:
            return None
        return self.busy_with or (self.queue[0] if self.queue else None)

    def has_leases(self) -> bool:
        return not self.dead and (self.busy_with is not None or bool(self.queue))


class World:
    """Jobs, workers and time. Survives the supervisor; its events wait to be delivered."""

    def __init__(self, rng: random.Random, jobs: list[FakeJob]) -> None:
        self.rng = rng
        self.jobs = jobs
        self.now = 0.0
        self.agenda: list[tuple[float, int, str, FakeWorker]] = []
        self.ticket = 0
        self.workers: dict[int, FakeWorker] = {}
        self.inbox: list[Event] = []
        self.nodes = False  # whether places can be lost
        self.felled: list[int] = []  # places that a job took with it
        self.executions: dict[int, list[float]] = defaultdict(list)
        self.wishes: dict[int, int] = defaultdict(int)
        self.crashes_seen: dict[int, int] = defaultdict(int)

    def plan_event(self, delay: float, what: str, worker: FakeWorker) -> None:
        self.ticket += 1
        heapq.heappush(self.agenda, (self.now + delay, self.ticket, what, worker))

    # -- commands

    def perform(self, command: Command) -> None:
        if isinstance(command, StartWorker):
            self.start_worker(command)
            return
        if isinstance(command, (Tell, AnswerControl, AnswerWithStacks)):
            return
        worker = self.workers.get(command.incarnation)
        if worker is not None and isinstance(command, KillWorker):
            worker.kill_asked = True
        if worker is None or worker.dead or worker.cut:
            return
        match command:
            case StartJobs(_, first, jobs):
                worker.queue.extend(enumerate(jobs, first))
                self.next_job(worker)
            case RevokeJobs(_, leases):
                self.revoke(worker, leases)
            case StopWorker():
                worker.finishing = True
                self.next_job(worker)
            case KillWorker():
                self.plan_event(self.rng.choice([0.0, 0.01]), "killed", worker)
            case SignalWorker():
                worker.stopping = True

    def start_worker(self, command: StartWorker) -> None:
        incarnation = command.incarnation
        worker = FakeWorker(incarnation, command.devices, command.place)
        self.workers[incarnation] = worker
        self.inbox.append(facts.WorkerLaunched(incarnation, 1000 + incarnation, 0.0))
        fate = "never_ready" if self.rng.random() < 0.02 else "ready"
        self.plan_event(self.rng.choice([0.004, 0.3]), fate, worker)

    def revoke(self, worker: FakeWorker, leases: list[int]) -> None:
        # Seen only before the next job starts, sometimes after it (the race).
        worker.revoked.update(leases)
        if worker.busy_with is None:
            self.next_job(worker)

    # -- what happens by itself

    def next_job(self, worker: FakeWorker) -> None:
        if worker.dead or not worker.ready or worker.busy_with is not None:
            return
        dropped = [lease for lease, _ in worker.queue if lease in worker.revoked or worker.stopping]
        if dropped and self.rng.random() < 0.9:
            worker.queue = deque(entry for entry in worker.queue if entry[0] not in dropped)
            worker.revoked.difference_update(dropped)
            self.say(worker, facts.LeasesDropped(worker.incarnation, dropped))
        if worker.queue:
            lease, job = worker.busy_with = worker.last = worker.queue.popleft()
            self.executions[job].append(self.now)
            worker.revoked.discard(lease)
            kind, seconds = self.jobs[job].kind, self.jobs[job].seconds
            crash = kind == CRASHES or (kind == FLAKY and self.crashes_seen[job] < 2)
            fells = kind == FELLS and self.nodes and len(self.executions[job]) <= FELLED
            if kind != HANGS and not (kind == HANGS_ONCE and len(self.executions[job]) == 1):
                self.plan_event(seconds, "felled" if fells else "crashed" if crash else "ended", worker)
        elif worker.finishing:
            self.plan_event(0.001, "exited", worker)

    def happen(self) -> None:
        """Let the next thing on the agenda happen."""
        self.now, _, what, worker = heapq.heappop(self.agenda)
        if what in (facts.NODE_LOST, facts.NODE_ENDED):
            worker.dead, worker.ended_with_node = True, what
            self.inbox.append(facts.WorkerDied(worker.incarnation, 0, cause=what))
        if worker.dead:
            return
        if what == "ready":
            worker.ready = True
            self.say(worker, facts.WorkerReady(worker.incarnation))
            self.next_job(worker)
        elif what == "felled":
            if not worker.cut:
                self.felled.append(worker.place)
        elif what == "ended":
            self.end_job(worker)
        else:
            if what == "crashed" and worker.busy_with:
                self.crashes_seen[worker.busy_with[1]] += 1
            self.die(worker, what)

    def end_job(self, worker: FakeWorker) -> None:
        if worker.busy_with is None:
            return
        lease, job = worker.busy_with
        worker.busy_with = None
        fake = self.jobs[job]
        if fake.kind == RAISES:
            failure = Failure("ValueError", f"no {job}", "Traceback")
            outcome: Completed | Failed = Failed(lease, fake.seconds, "raised", failure)
        elif fake.kind == GIVES_UP:
            failure = Failure("workers.GiveUp", f"no use {job}", "Traceback")
            outcome = Failed(lease, fake.seconds, "raised", failure, wish="give_up")
        elif fake.kind == ASKS and self.wishes[job] < WISHES:
            self.wishes[job] += 1
            failure = Failure("workers.Retry", f"later {job}", "Traceback")
            after = self.rng.choice([None, 0.0, 7.0])
            outcome = Failed(lease, fake.seconds, "raised", failure, wish="retry", after=after, most=10)
        else:
            outcome = Completed(lease, fake.seconds, b'{"of":%d}' % job)
        self.say(worker, facts.JobsFinished(worker.incarnation, [outcome]))
        self.next_job(worker)

    def die(self, worker: FakeWorker, what: str) -> None:
        worker.dead = True
        signal = {"crashed": 11, "killed": 9, "murdered": 9, "asked": 15}.get(what)
        self.say(worker, facts.WorkerDied(worker.incarnation, None if signal else 0, signal))

    def say(self, worker: FakeWorker, event: Event) -> None:
        if not worker.cut:
            self.inbox.append(event)

    def measure(self, *, low: bool) -> facts.MemoryMeasured:
        """What the workers hold, in units of which a job that leaks holds 3000."""
        used = {}
        for worker in self.workers.values():
            if not (worker.dead or worker.cut):
                leaks = worker.busy_with is not None and self.jobs[worker.busy_with[1]].kind == LEAKS
                used[worker.incarnation] = 3000 if leaks else 100
        return facts.MemoryMeasured(used, self.rng.choice([400, 900]) if low else 10_000)

    def lose_place(self, place: int, cause: str, delay: float) -> None:
        """A node ends: what its workers had said is not heard. They compute for so many seconds."""
        lost = [worker for worker in self.workers.values() if worker.place == place and not worker.dead]
        numbers = {worker.incarnation for worker in lost}
        unheard = {event.incarnation for event in self.inbox if isinstance(event, facts.JobsFinished)}
        self.inbox = [event for event in self.inbox if getattr(event, "incarnation", 0) not in numbers]
        for worker in lost:
            worker.held = worker.at() or (worker.last if worker.incarnation in unheard else None)
            worker.cut = True
            self.plan_event(delay, cause, worker)

    def end_all(self) -> None:
        """The supervisor died: its workers die with it, unread words are lost."""
        for worker in self.workers.values():
            worker.dead = True
        self.workers.clear()
        self.inbox.clear()
        self.felled.clear()
        self.agenda.clear()
