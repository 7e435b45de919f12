"""One simulated experiment, from its first run to its end: the real core and store, everything else is fake.

Chance decides what the jobs do, when workers and the supervisor die, and which faults the disk has. All of it
is drawn from one seed, so that a history can be repeated exactly.
"""

from __future__ import annotations

import random
from unittest import mock

import msgspec

from supervisor.core.scheduling import earlier_leases
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.errors import StorageError
from supervisor.core.terms.events import Effects, Event, PlaceFacts, StartJobs, StartWorker
from supervisor.core.terms.jobs import FAILED
from supervisor.core.terms.needs import THOUSAND, Totals
from supervisor.core.terms.records import BY_HAND, LOW_MEMORY, Reset, RunEnded, RunStarted
from supervisor.core.terms.settings import Settings
from supervisor.storage.checkpoint import journal_stretches
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from supervisor.storage.plan import plan_columns
from supervisor.storage.plan.plan_builder import PlanBuilder
from supervisor.storage.recovery.survey import survey
from supervisor.storage.store import Store
from tools.simulation.disk import SimulatedDisk, SimulatedSyncer
from tools.simulation.needs_book import NeedsBook
from tools.simulation.promises import Promises, Violation, check_counts, check_crew, last_written, singly
from tools.simulation.simulated_time import simulated_time
from tools.simulation.world import World, make_jobs

MOST_IDLE_TURNS = 2000  # without any time passing
MOST_TURNS = 10_000  # of one run; the longest histories take about a thousand
EPOCH = "2025-10-14T00:00:00.000Z"
MOST_KILLS, MOST_RUNS = 40, 60  # after so many runs the supervisor is left in peace
LONGEST_FENCE = 3.0  # seconds until what a lost node computes has certainly ended
MOST_RETRIED_RUNS = 10  # in which somebody asks for failed jobs to be tried again


class History:
    """One experiment from its first run to its end."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.rng = random.Random(seed)
        self.verbose = verbose
        self.jobs = make_jobs(self.rng)
        self.world = World(self.rng, self.jobs)
        self.disk = SimulatedDisk(self.rng)
        self.layout = Layout("/simulated", "history")
        self.store: Store
        self.syncer: SimulatedSyncer
        self.runs = 0
        self.last_now = 0.0
        self.idle_turns = 0
        self.settings = Settings(
            timeout=60.0,
            retries=self.rng.choice([0, 0, 2]),
            retry_timeouts=self.rng.choice([0, 1, 2]),
            backoff=self.rng.choice([0.0, 1.0, 5.0]),
            memory_limit=self.rng.choice([None, 1000]),
            retry_over_memory=self.rng.choice([False, True]),
            keep_free=self.rng.choice([None, 1000]),
            rate=self.rng.choice([None, None, None, "100/s"]),
            max_failures=self.rng.choice([None, None, None, "5", "60%"]),
            grace=self.rng.choice([0.5, 20.0]),
        )
        self.promises = Promises(self.jobs, self.settings)
        self.has_nodes = self.rng.random() < 0.2  # several places, which come and go
        self.world.nodes = self.has_nodes
        self.nodes = 0

    @property
    def number_of_jobs(self) -> int:
        return len(self.jobs)

    # -- one run

    def play(self) -> None:
        for _ in range(MOST_RUNS):
            if self.run():
                self.promises.check_end(self.layout, self.disk)
                return
        raise Violation(f"the experiment does not come to an end in {MOST_RUNS} runs")

    def open(self) -> None:
        """Create the experiment, or recover it from what the disk has kept."""
        builder = PlanBuilder()
        for job in self.jobs:
            builder.add(job.id, job.domain, b"{}", job.own)

        def new_syncer(_: object, fd: int, synced: int, __: int) -> SimulatedSyncer:
            self.syncer = SimulatedSyncer(self.disk, fd, synced)
            return self.syncer

        settings = msgspec.to_builtins(self.settings)
        if self.disk.exists(str(self.layout.journal)) or self.disk.exists(str(self.layout.checkpoint)):
            self.store = Store.open(
                self.layout,
                survey(self.layout, self.disk),
                builder,
                lock=Lock.none(),
                settings=settings,
                options={},
                name="simulated",
                syncer=new_syncer,
            )
            return
        table = JobTable()
        builder.fill(table)
        self.store = Store.create(
            self.layout,
            name="simulated",
            plan=builder,
            table=table,
            lock=Lock.none(),
            settings=settings,
            options={},
            disk=self.disk,
            syncer=new_syncer,
        )

    def run(self) -> bool:
        """One run of the supervisor; True if the experiment is finished."""
        self.runs += 1
        self.open()
        try:
            return self.run_opened()
        except StorageError:
            self.promises.forgot |= self.store._journal.full is not None
            self.end_supervisor()
            return False
        finally:
            self.store.release()

    def run_opened(self) -> bool:
        world, rng = self.world, self.rng
        table = self.store.table
        self.promises.check_recovered(self.store)
        position = self.store.history.position()
        position.run += 1
        self.store.append([RunStarted(position.run, EPOCH)])
        retry = self.retry_some(table)
        # In the end there is enough for every job.
        slots = rng.choice([1, 2, 6]) if self.runs < MOST_KILLS else 6
        plenty = self.runs >= MOST_KILLS
        totals = make_totals(rng, slots, plenty=plenty)
        self.places = [PlaceFacts(0, "", slots, totals)]
        if self.has_nodes:
            self.places = [
                self.make_node(plenty=True),
                *([self.make_node(plenty=plenty)] * rng.choice([0, 1])),
            ]
        several = self.places if self.has_nodes else None
        core = self.core = Scheduler(table, self.settings, slots, position, totals=totals, places=several)
        self.needs = NeedsBook(self.jobs, self.totals_by_place(), totals.resources, core, retry)
        late = self.runs < MOST_KILLS and rng.random() < 0.1
        drain_at = world.now + rng.expovariate(1 / 3.0) if late else None
        self.promises.run_begins(world.now)
        self.promises.note_suspects(core, earlier_leases.TOGETHER)
        effects = core.begin(
            world.now, EPOCH, self.store.next_n, retry=retry, drain_at=drain_at, drain_reason="it is late"
        )
        self.carry_out(core, effects)
        self.step(core, [facts.TimePassed()])
        trouble = world.now + rng.expovariate(1 / 3.0)
        drained_at = None
        turns = 0
        while not core.finished:
            turns += 1
            if turns > MOST_TURNS:
                raise Violation("the run does not end: the same happens again and again")
            if drained_at is None and world.now >= trouble:
                what = rng.random()
                trouble = world.now + rng.expovariate(1 / 3.0)
                if what < 0.1 and self.runs < MOST_KILLS:
                    self.kill_supervisor()
                    return False
                if 0.1 <= what < 0.15 and self.runs < MOST_KILLS:
                    drained_at = world.now
                    self.step(core, [facts.SignalReceived(rng.choice([2, 15]))])
                    continue
                self.make_trouble(core, what)
            self.turn(core)
            while world.felled:
                self.lose_node(core, world.felled.pop())
            if core.draining and drained_at is None:
                drained_at = world.now
            most = self.settings.grace + 2.0 + (LONGEST_FENCE if self.has_nodes else 0.0)
            if drained_at is not None and world.now > drained_at + most:
                raise Violation(f"the drain took {world.now - drained_at:.1f} s")
        self.disk.room = None
        self.store.append([RunEnded(position.run, "interrupted" if core.draining else "finished", EPOCH)])
        self.store.save(core.position())
        return not core.draining and not core.dispatcher.failure and not core.unfit_jobs()

    def make_node(self, *, plenty: bool) -> PlaceFacts:
        self.nodes += 1
        slots = 6 if plenty else self.rng.choice([1, 2, 6])
        totals = make_totals(self.rng, slots, plenty=plenty)
        return PlaceFacts(
            self.nodes, f"node{self.nodes}", slots, msgspec.structs.replace(totals, resources={})
        )

    def totals_by_place(self) -> dict[int, Totals]:
        """Also of a place that is never there, so that several are counted as several."""
        found = {place.place: place.totals for place in self.places}
        return {**found, -1: Totals(0)} if self.has_nodes else found

    def change_nodes(self, core: Scheduler) -> None:
        """A node is lost, or one joins; one that is large enough for every job is always there."""
        if len(self.places) > 1 and self.rng.random() < 0.5:
            self.lose_node(core, self.rng.choice(self.places).place, announced=self.rng.random() < 0.3)
            return
        self.places.append(self.make_node(plenty=self.rng.random() < 0.3))
        self.tell_places(core)

    def lose_node(self, core: Scheduler, number: int, *, announced: bool = False) -> None:
        if all(place.place != number for place in self.places):
            return  # it was lost meanwhile
        self.places = [place for place in self.places if place.place != number]
        cause = facts.NODE_ENDED if announced else facts.NODE_LOST
        self.world.lose_place(number, cause, self.rng.choice([0.0, 0.0, LONGEST_FENCE]))
        if not any(place.slots == 6 for place in self.places):
            self.places.append(self.make_node(plenty=True))
        self.tell_places(core, facts.PlaceEnd(number, "its host was lost", announced))

    def tell_places(self, core: Scheduler, *ended: facts.PlaceEnd) -> None:
        self.needs.totals = self.totals_by_place()
        self.step(core, [facts.PlacesChanged(list(self.places), list(ended))])

    def retry_some(self, table: JobTable) -> list[int]:
        """Somebody wants failed jobs to be tried again; which ones."""
        retry = [job for job in range(len(table)) if table.state[job] == FAILED and self.rng.random() < 0.2]
        if self.settings.max_failures is not None:
            return []  # they would stop each run
        if retry:
            for job in retry:
                table.reset(job, forget_charges=False)
            self.store.append([Reset([table.ids[job] for job in retry], "retry", EPOCH)])
            self.promises.called_off.difference_update(table.ids[job] for job in retry)
        return retry

    def turn(self, core: Scheduler) -> None:
        """Advance to what comes first; deliver what has come, in batches."""
        world, store = self.world, self.store
        self.idle_turns = 0 if world.now > self.last_now else self.idle_turns + 1
        self.last_now = world.now
        if self.idle_turns > MOST_IDLE_TURNS:
            raise Violation("the loop spins: a deadline has passed and nothing is done about it")
        deadlines = [time for time in (core.next_deadline(), store.next_deadline()) if time is not None]
        deadline = min(deadlines, default=None)
        disk_works = self.syncer.has_work()
        if not world.inbox and not disk_works and not world.agenda and deadline is None:
            if BY_HAND in core.blocked_by():
                self.step(core, [facts.ControlAsked(0, 0, "resume")])
                return
            if LOW_MEMORY in core.blocked_by():
                world.now += 0.25
                self.step(core, [world.measure(low=self.rng.random() < 0.3)])
                return
            raise Violation("nothing will ever happen again, and the run is not finished")
        if not world.inbox:
            if world.agenda and (deadline is None or world.agenda[0][0] <= deadline):
                world.happen()
            elif deadline is not None:
                world.now = max(world.now, deadline)
            while world.agenda and world.agenda[0][0] <= world.now + self.rng.choice([0.0, 0.001]):
                world.happen()
        if self.disk.room is not None and self.rng.random() < 0.1:
            self.disk.room = None  # somebody has made room
        events, world.inbox = world.inbox, []
        if self.rng.random() < 0.1 or LOW_MEMORY in core.blocked_by():
            events.append(world.measure(low=self.rng.random() < 0.3))
        if disk_works and self.rng.random() < 0.5:
            self.syncer.do_work()
        self.step(core, self.coalesced([*store.poll(world.now), *events]) or [facts.TimePassed()])
        if self.rng.random() < 0.05 and not store._checkpoints.busy:
            store.begin_checkpoint(core.position(), world.now)
        store.work(0.0 if self.rng.random() < 0.5 else 1e9)

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
        self.carry_out(core, core.handle(events, self.world.now, EPOCH, self.store.next_n))
        check_counts(core)
        self.needs.check_idle(core, self.world)

    def carry_out(self, core: Scheduler, effects: Effects) -> None:
        first = self.store.next_n
        self.store.append(effects.records, urgent=effects.urgent)
        self.promises.note(core, self.world, effects.records, first)
        for command in effects.commands:
            if isinstance(command, StartWorker):
                check_crew(core)
            if isinstance(command, StartJobs):
                self.promises.check_hand_out(core, self.world, command)
            self.world.perform(command)
        self.needs.check_turn(core, self.world, effects.commands)
        if self.verbose:
            for thing in (*singly(effects.records), *effects.commands):
                print(f"{self.world.now:10.4f}  {thing}")

    # -- trouble

    def make_trouble(self, core: Scheduler, what: float) -> None:
        """Trouble that a run goes on with; `what`, from 0 to 1, says which, if any."""
        if what < 0.2:
            self.disk.room = self.rng.randrange(2000)
        elif what < 0.23:
            self.disk.failing_syncs = 1
        elif what < 0.35 and self.has_nodes:
            self.change_nodes(core)
        elif what < 0.5 and self.world.workers:
            self.murder()
        elif what < 0.8 or BY_HAND in core.blocked_by():
            self.step(core, [self.order(core)])

    def order(self, core: Scheduler) -> Event:
        """Somebody at another terminal wants something."""
        rng = self.rng
        paused = BY_HAND in core.blocked_by()
        orders = ["pause", "resume", "workers", "cancel", *["retry"] * (self.runs < MOST_RETRIED_RUNS)]
        order = "resume" if paused else rng.choice(orders)
        sizes = [1, 2, 6] if self.runs < MOST_KILLS else [6]
        ids = [rng.choice(self.jobs).id for _ in range(rng.choice([1, 3]))]
        running = [core.table.ids[job] for _, job in core.dispatcher.running()]
        if order == "cancel" and running and rng.random() < 0.5:
            ids.append(rng.choice(running))
        if order == "retry" and rng.random() < 0.5:
            ids = ["*"]
        return facts.ControlAsked(0, 0, order, rng.choice(sizes), ids)

    def murder(self) -> None:
        """Somebody kills a worker from outside."""
        worker = self.rng.choice([w for w in self.world.workers.values() if not w.dead] or [None])
        if worker is None:
            return
        polite = self.rng.random() < 0.3
        if worker.busy_with is not None and not polite:
            self.promises.murders[worker.busy_with[1]] += 1
        self.world.die(worker, "asked" if polite else "murdered")

    def kill_supervisor(self) -> None:
        """SIGKILL, a power cut, or SIGKILL and then somebody damages a file."""
        what = self.rng.random()
        self.promises.forgot |= what < 0.6 or self.store._journal.full is not None
        checkpointed = self.checkpointed()
        written = last_written(self.store._journal)
        synced = self.syncer.synced
        self.end_supervisor()
        if what < 0.4:
            index = self.disk.contents(str(self.layout.stretches)) if what < 0.2 else None
            self.disk.power_cut()
            if index is not None:  # it reached the disk before the journal did
                self.disk.put(str(self.layout.stretches), index)
            self.promises.keep(lambda job, n: n <= synced)
        elif what < 0.5:
            self.promises.keep(lambda job, n: n <= written)
            self.disk.overwrite(str(self.layout.journal), None if self.rng.random() < 0.5 else b"garbage")
            if checkpointed is None:
                self.disk.overwrite(str(self.layout.journal), None)
            self.promises.keep(lambda job, n: checkpointed is not None and self.jobs[job].id in checkpointed)
        elif what < 0.6 and checkpointed is not None:
            self.promises.keep(lambda job, n: n <= written)
            self.disk.overwrite(str(self.layout.checkpoint), b'{"format":' * 3)
        else:
            self.promises.keep(lambda job, n: n <= written)

    def end_supervisor(self) -> None:
        self.disk.process_killed()
        self.world.end_all()

    def checkpointed(self) -> set[str] | None:
        """Ids that the checkpoint on disk holds as completed."""
        text = self.disk.contents(str(self.layout.checkpoint))
        return None if text is None else set(msgspec.json.decode(text)["completed"])


def make_totals(rng: random.Random, slots: int, *, plenty: bool) -> Totals:
    """What there is in one run, in the units of `world.NEEDS`."""
    if plenty:
        return Totals(slots * THOUSAND, 2000, ("0", "1"), {"license": 2 * THOUSAND})
    return Totals(
        slots * THOUSAND,
        rng.choice([None, 600, 2000]),
        rng.choice([(), ("0",), ("0", "1"), ("a", "b", "c")]),
        {"license": rng.choice([400, 1000, 2000])},
    )


def play(seed: int, *, verbose: bool = False) -> History:
    """One whole history; raises Violation."""
    # Few enough that workers hold more, and so short that a journal has several.
    few, short, columns = (
        mock.patch.object(earlier_leases, "TOGETHER", 3),
        mock.patch.object(journal_stretches, "STRETCH", 600),
        mock.patch.object(plan_columns, "ENOUGH", 1),
    )
    with simulated_time(seed), few, short, columns:
        history = History(seed, verbose=verbose)
        history.play()
    return history
