"""Deterministic simulation: the real core under a fake engine, fake time and kills.

    python tools/simulate.py --seeds 2000        many histories, prints a failing seed
    python tools/simulate.py --seed 1234 -v      one history again, exactly

One history is one experiment: random jobs (good, long, raising, crashing, hanging ones),
random batches and take-backs, workers that die at random, drains, kills of the supervisor
(with the records that were not synced dropped or kept), resumes with other worker counts.
At its end the promises of the design hold, or the seed is printed.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import defaultdict, deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec

from supervisor.core import events as facts
from supervisor.core.events import (
    Command,
    Effects,
    Event,
    KillWorker,
    RevokeJobs,
    SignalWorker,
    StartJobs,
    StartWorker,
    StopWorker,
)
from supervisor.core.jobs import COMPLETED, FAILED
from supervisor.core.position import Position
from supervisor.core.record_types import AnyRecord, Ended, Leased, Reset, RunStarted, WorkerStarted
from supervisor.core.scheduler import Scheduler
from supervisor.core.settings import Settings
from supervisor.core.table import JobTable
from workers.messages import Completed, Failed, Failure

GOOD, RAISES, CRASHES, HANGS, FLAKY = "good", "raises", "crashes", "hangs", "flaky"
EPOCH = "2025-10-14T00:00:00.000Z"


class Violation(AssertionError):
    """A promise did not hold."""


class FakeJob(msgspec.Struct):
    id: str
    kind: str
    seconds: float


class FakeWorker:
    """Runs leases in order on simulated time, as a worker process would."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.queue: deque[tuple[int, int]] = deque()
        self.revoked: set[int] = set()
        self.busy_with: tuple[int, int] | None = None
        self.ready = False
        self.finishing = False
        self.stopping = False
        self.dead = False


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
        self.executions: dict[int, list[float]] = defaultdict(list)
        self.crashes_seen: dict[int, int] = defaultdict(int)

    def plan_event(self, delay: float, what: str, worker: FakeWorker) -> None:
        self.ticket += 1
        heapq.heappush(self.agenda, (self.now + delay, self.ticket, what, worker))

    # -- commands

    def perform(self, command: Command) -> None:
        match command:
            case StartWorker(_, incarnation):
                worker = self.workers[incarnation] = FakeWorker(incarnation)
                self.inbox.append(facts.WorkerStarted(incarnation, 1000 + incarnation, 0.0))
                fate = "never_ready" if self.rng.random() < 0.02 else "ready"
                self.plan_event(self.rng.choice([0.004, 0.3]), fate, worker)
            case StartJobs(incarnation, first, jobs, _):
                if (worker := self.workers.get(incarnation)) and not worker.dead:
                    worker.queue.extend(enumerate(jobs, first))
                    self.next_job(worker)
            case RevokeJobs(incarnation, leases):
                if worker := self.workers.get(incarnation):
                    self.revoke(worker, leases)
            case StopWorker(incarnation):
                if worker := self.workers.get(incarnation):
                    worker.finishing = True
                    self.next_job(worker)
            case KillWorker(incarnation):
                if worker := self.workers.get(incarnation):
                    self.plan_event(self.rng.choice([0.0, 0.01]), "killed", worker)
            case SignalWorker(incarnation, _):
                if worker := self.workers.get(incarnation):
                    worker.stopping = True

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
            self.inbox.append(facts.LeasesDropped(worker.incarnation, dropped))
        if worker.queue:
            lease, job = worker.busy_with = worker.queue.popleft()
            self.executions[job].append(self.now)
            worker.revoked.discard(lease)
            kind, seconds = self.jobs[job].kind, self.jobs[job].seconds
            crash = kind == CRASHES or (kind == FLAKY and self.crashes_seen[job] < 2)
            if kind != HANGS:
                self.plan_event(seconds, "crashed" if crash else "ended", worker)
        elif worker.finishing:
            self.plan_event(0.001, "exited", worker)

    def happen(self) -> None:
        """Let the next thing on the agenda happen."""
        self.now, _, what, worker = heapq.heappop(self.agenda)
        if worker.dead:
            return
        if what == "ready":
            worker.ready = True
            self.inbox.append(facts.WorkerReady(worker.incarnation))
            self.next_job(worker)
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
        else:
            outcome = Completed(lease, fake.seconds, b'{"of":%d}' % job)
        self.inbox.append(facts.JobsFinished(worker.incarnation, [outcome]))
        self.next_job(worker)

    def die(self, worker: FakeWorker, what: str) -> None:
        worker.dead = True
        signal = {"crashed": 11, "killed": 9, "murdered": 9, "asked": 15}.get(what)
        self.inbox.append(facts.WorkerDied(worker.incarnation, None if signal else 0, signal))

    def end_all(self) -> None:
        """The supervisor died: its workers die with it, unread words are lost."""
        for worker in self.workers.values():
            worker.dead = True
        self.workers.clear()
        self.inbox.clear()
        self.agenda.clear()


class History:
    """One experiment from its first run to its end."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.rng = random.Random(seed)
        self.verbose = verbose
        self.jobs = self._make_jobs()
        self.world = World(self.rng, self.jobs)
        self.records: list[AnyRecord] = []
        self.synced = 0  # how many of the records are on the disk
        self.completed_at: dict[int, float] = {}
        self.runs = 0
        self.settings = Settings(
            timeout=60.0, retries=self.rng.choice([0, 0, 2]), grace=self.rng.choice([0.5, 20.0])
        )
        self.murders: dict[int, int] = defaultdict(int)  # external kills, by the job that was hit

    def _make_jobs(self) -> list[FakeJob]:
        rng = self.rng
        kinds = [GOOD] * 90 + [RAISES] * 4 + [CRASHES] * 2 + [HANGS] * 1 + [FLAKY] * 3
        tiny = rng.random() < 0.6
        return [
            FakeJob(
                f"job/{number}",
                rng.choice(kinds),
                rng.choice([1e-5, 1e-4, 0.001] if tiny and rng.random() < 0.98 else [0.01, 0.3, 5.0]),
            )
            for number in range(rng.choice([1, 7, 60, 400]))
        ]

    # -- one run

    def table(self) -> JobTable:
        """Recovery: the plan, then every record that is left."""
        table = JobTable()
        for job in self.jobs:
            table.add(job.id)
        for record in self.records:
            table.apply(record)
        return table

    def play(self) -> None:
        for _ in range(200):
            if self.run():
                self.check_end()
                return
        raise Violation("the experiment does not come to an end in 200 runs")

    def run(self) -> bool:
        """One run of the supervisor; True if the experiment is finished."""
        self.runs += 1
        world, rng = self.world, self.rng
        table = self.table()
        self.records.append(RunStarted(self.runs, EPOCH))
        leases = [r.lease + len(r.jobs) for r in self.records if isinstance(r, Leased)]
        incarnations = [r.incarnation + 1 for r in self.records if isinstance(r, (WorkerStarted, Leased))]
        position = Position(self.runs, max(leases, default=1), max(incarnations, default=1))
        core = self.core = Scheduler(table, self.settings, rng.choice([1, 2, 6]), position)
        retry = [job for job in range(len(table)) if table.state[job] == FAILED and rng.random() < 0.2]
        if retry:
            self.records.append(Reset([table.ids[job] for job in retry], "retry", EPOCH))
            for job in retry:
                table.reset(job, forget_charges=False)
        self.carry_out(core, core.begin(world.now, EPOCH, len(self.records) + 1, retry=retry))
        self.step(core, [facts.TimePassed()])
        trouble = world.now + rng.expovariate(1 / 3.0)
        drained_at = None
        while not core.finished:
            if drained_at is None and world.now >= trouble:
                what = rng.random()
                trouble = world.now + rng.expovariate(1 / 3.0)
                if what < 0.1 and self.runs < 150:
                    self.kill_supervisor()
                    return False
                if what < 0.15:
                    drained_at = world.now
                    self.step(core, [facts.SignalReceived(rng.choice([2, 15]))])
                    continue
                if what < 0.5 and world.workers:
                    self.murder()
            self.turn(core)
            if drained_at is not None and world.now > drained_at + self.settings.grace + 2.0:
                raise Violation(f"the drain took {world.now - drained_at:.1f} s")
        if not core.draining and core.dispatcher.failure:
            return False
        return not core.draining

    def turn(self, core: Scheduler) -> None:
        """Advance to what comes first; deliver what has come, in batches."""
        world = self.world
        deadline = core.next_deadline()
        sync_due = self.synced < len(self.records)
        if not world.inbox and not sync_due and not world.agenda and deadline is None:
            raise Violation("nothing will ever happen again, and the run is not finished")
        if not world.inbox:
            if world.agenda and (deadline is None or world.agenda[0][0] <= deadline):
                world.happen()
            elif deadline is not None:
                world.now = max(world.now, deadline)
            while world.agenda and world.agenda[0][0] <= world.now + self.rng.choice([0.0, 0.001]):
                world.happen()
        events, world.inbox = world.inbox, []
        if sync_due and self.rng.random() < 0.5:
            self.synced = len(self.records)
            events.append(facts.Synced(self.synced))
        self.step(core, self.coalesced(events) or [facts.TimePassed()])

    def coalesced(self, events: list[Event]) -> list[Event]:
        """Neighbouring outcomes of a worker arrive as one batch, as the engine reads them."""
        merged: list[Event] = []
        for event in events:
            last = merged[-1] if merged else None
            if (
                isinstance(event, facts.JobsFinished)
                and isinstance(last, facts.JobsFinished)
                and last.incarnation == event.incarnation
            ):
                merged[-1] = facts.JobsFinished(event.incarnation, last.outcomes + event.outcomes)
            else:
                merged.append(event)
        return merged

    def step(self, core: Scheduler, events: list[Event]) -> None:
        self.carry_out(core, core.handle(events, self.world.now, EPOCH, len(self.records) + 1))
        counts = core.table.counts(job for _, job in core.dispatcher.running())
        parts = counts.completed + counts.failed + counts.in_progress + counts.pending
        if parts != counts.total or min(counts.pending, counts.in_progress) < 0:
            raise Violation(f"jobs are not all accounted for: {counts}")

    def carry_out(self, core: Scheduler, effects: Effects) -> None:
        self.records.extend(effects.records)
        for record in effects.records:
            if isinstance(record, Ended) and record.outcome == "completed":
                self.note_completion(core, record)
        for command in effects.commands:
            if isinstance(command, StartJobs):
                for job in command.jobs:
                    if job in self.completed_at:
                        raise Violation(f"{self.jobs[job].id} is completed and was handed out again")
            self.world.perform(command)
        if self.verbose:
            for thing in (*effects.records, *effects.commands):
                print(f"{self.world.now:10.4f}  {thing}")

    def note_completion(self, core: Scheduler, record: Ended) -> None:
        job = core.table.numbers[record.job]
        if job in self.completed_at:
            raise Violation(f"{record.job} was completed twice")
        if record.result != msgspec.Raw(b'{"of":%d}' % job):
            raise Violation(f"{record.job} got the result of another job")
        self.completed_at[job] = self.world.now

    # -- trouble

    def murder(self) -> None:
        """Somebody kills a worker from outside."""
        worker = self.rng.choice([w for w in self.world.workers.values() if not w.dead] or [None])
        if worker is None:
            return
        polite = self.rng.random() < 0.3
        if worker.busy_with is not None and not polite:
            self.murders[worker.busy_with[1]] += 1
        self.world.die(worker, "asked" if polite else "murdered")

    def kill_supervisor(self) -> None:
        if self.rng.random() < 0.3:  # the power goes as well
            keep = self.rng.randint(self.synced, len(self.records))
            dropped = self.records[keep:]
            del self.records[keep:]
            numbers = {job.id: number for number, job in enumerate(self.jobs)}
            for record in dropped:
                if isinstance(record, Ended) and record.outcome == "completed":
                    del self.completed_at[numbers[record.job]]
        self.synced = len(self.records)
        self.world.end_all()

    # -- promises at the end

    def check_end(self) -> None:
        table = self.table()
        for number, job in enumerate(self.jobs):
            state, charges = table.state[number], table.charges.get(number)
            crashes = charges.crashes if charges else 0
            if state not in (COMPLETED, FAILED):
                raise Violation(f"{job.id} ({job.kind}) is in state {state} after the end")
            if (state == COMPLETED) != (number in self.completed_at):
                raise Violation(f"{job.id}: journal and memory disagree")
            if job.kind in (RAISES, CRASHES, HANGS) and state == COMPLETED:
                raise Violation(f"{job.id} {job.kind} and is completed")
            if job.kind == GOOD and state == FAILED and self.murders[number] < self.settings.crash_limit:
                raise Violation(f"{job.id} is good and was given up: {charges}")
            if job.kind in (GOOD, RAISES, HANGS) and crashes > self.murders[number]:
                raise Violation(f"{job.id} was blamed for {crashes} crashes, {self.murders[number]} hit it")


def play(seed: int, *, verbose: bool = False) -> History:
    """One whole history; raises Violation."""
    history = History(seed, verbose=verbose)
    history.play()
    return history


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate experiments deterministically.")
    parser.add_argument("--seeds", type=int, default=1000, metavar="N")
    parser.add_argument("--start", type=int, default=0, metavar="SEED")
    parser.add_argument("--seed", type=int, help="replay one history")
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    runs = jobs = 0
    for seed in seeds:
        try:
            history = play(seed, verbose=arguments.verbose)
        except Exception as error:
            print(f"seed {seed}: {type(error).__name__}: {error}")
            if arguments.verbose:
                raise
            return 1
        runs += history.runs
        jobs += len(history.jobs)
    print(f"{len(seeds)} histories, {jobs} jobs, {runs} runs, no violation")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
