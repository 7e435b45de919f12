"""Jobs of earlier runs that may still run on other hosts wait until it is certain that they do not."""

from __future__ import annotations

from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Effects, PlaceFacts, PlacesChanged, StartJobs, StartWorker, Tell
from supervisor.core.terms.jobs import COMPLETED
from supervisor.core.terms.needs import Totals
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import Ended, Leased, Returned, WorkerEnded, WorkerStarted
from supervisor.core.terms.settings import Settings
from tools.simulation.promises import singly
from workers.transport.messages import Completed

AT = "2025-10-14T21:00:00.000Z"
HERE = PlaceFacts(0, "here", 4, Totals(4000))
THERE = {
    1: WorkerStarted(0, 1, 4711, AT, 17.0, "there", 35.0),
    2: WorkerStarted(1, 2, 4711, AT, 17.0, "far", 35.0),
}


class Resumed:
    """A run after one whose supervisor was killed: of four jobs, worker 1 had the first two, worker 2 the third."""

    def __init__(self, elsewhere: dict[int, WorkerStarted], *, places: bool = False) -> None:
        self.table = JobTable()
        for number in range(4):
            self.table.add(f"job/{number}")
        for worker, lease, jobs in ((1, 1, ["job/0", "job/1"]), (2, 3, ["job/2"])):
            self.table.apply(Leased(0, worker, lease, jobs, AT))
        self.now, self.records = 100.0, list[object]()
        self.scheduler = Scheduler(
            self.table, Settings(), 4, Position(2, 10, 10), places=[HERE] if places else None
        )
        self.told: list[str] = []
        mask = bytes(self.table.wanted)
        self._keep(self.scheduler.begin(self.now, AT, 1, mask=mask, elsewhere=elsewhere))

    def _keep(self, effects: Effects) -> list[str]:
        """The jobs that were handed out."""
        self.records += singly(effects.records)
        self.told += [command.text for command in effects.commands if isinstance(command, Tell)]
        started = [command for command in effects.commands if isinstance(command, StartJobs)]
        return [self.table.ids[job] for command in started for job in command.jobs]

    def tell(self, *events: facts.Event, after: float = 0.0) -> list[str]:
        """All records are synced, and new workers are ready at once."""
        self.now += after
        given: list[str] = []
        waiting = [*events, facts.Synced(len(self.records) + 1)]
        while waiting:
            effects = self.scheduler.handle(waiting, self.now, AT, len(self.records) + 1)
            given += self._keep(effects)
            waiting = [
                facts.WorkerReady(command.incarnation)
                for command in effects.commands
                if isinstance(command, StartWorker)
            ]
            if not waiting and self.scheduler.ledger.awaiting_sync:
                waiting = [facts.Synced(len(self.records) + 1)]
        return given

    def ended(self) -> list[tuple[str, str]]:
        return [(each.job, each.outcome) for each in self.records if isinstance(each, Ended)]


def test_what_ran_on_this_machine_runs_again_at_once() -> None:
    core = Resumed({})
    assert sorted(core.tell()) == [f"job/{number}" for number in range(4)]
    assert core.ended() == [("job/0", "lost"), ("job/2", "lost")] and not core.told


def test_what_ends_every_supervisor_is_soon_alone() -> None:
    """A job among thousands of tiny ones ends the supervisor each time, before any outcome was read."""
    jobs, killer = [f"job/{number}" for number in range(5000)], "job/4321"
    held, ends = jobs, 0
    done: set[str] = set()
    while held != [killer]:
        table = JobTable()
        for job in jobs:
            table.add(job)
        for job in done:
            table.state[table.number_of(job)] = COMPLETED
        table.apply(Leased(0, 1, 1, held, AT))
        core = Scheduler(table, Settings(), 1, Position(2, 10_000, 10))
        core.begin(0.0, AT, 1)
        core.handle([facts.TimePassed()], 0.0, AT, 10)
        waiting: list[facts.Event] = [facts.WorkerReady(10), facts.Synced(10_000)]
        core.dispatcher.durations.learn(1e-5, 1)  # tiny: whoever is not held back gets thousands
        for turn in range(1000):
            effects = core.handle(waiting, turn / 1000, AT, 10_000)
            (given,) = [command for command in effects.commands if isinstance(command, StartJobs)]
            held = [table.ids[job] for job in given.jobs]
            if killer in held:
                break
            done.update(held)
            outcomes = [Completed(given.first_lease + at, 1e-5, b"1") for at in range(len(held))]
            waiting = [facts.JobsFinished(10, outcomes)]
        ends += 1
        assert ends <= 2, "one more end tells which group, another one which job"
    assert len(done) > 4000


def test_jobs_that_may_run_elsewhere_wait_and_hold_up_no_others() -> None:
    core = Resumed(THERE)
    assert core.tell() == ["job/3"]
    (told,) = core.told
    assert told.startswith("3 jobs may still run on another host") and told.endswith("at most 35s")
    assert core.scheduler.next_deadline() == 135.0
    assert core.tell(after=34.9) == [] and core.ended() == []
    assert sorted(core.scheduler.position().open_leases)[:3] == [(1, 1, 0), (1, 2, 1), (2, 3, 2)]
    assert sorted(core.tell(after=0.1)) == ["job/0", "job/1", "job/2"]
    assert core.ended() == [("job/0", "lost"), ("job/2", "lost")]
    assert [each.leases for each in core.records if isinstance(each, Returned)] == [[2]]
    assert {each.incarnation for each in core.records if isinstance(each, WorkerEnded)} == {1, 2}


def test_the_run_is_not_over_while_they_wait() -> None:
    core = Resumed(THERE)
    core.tell()
    (worker,) = core.scheduler.workers.values()
    (lease, _), *_ = worker.leases
    core.tell(facts.JobsFinished(worker.incarnation, [Completed(lease, 1.0, b"1")]))
    core.tell(facts.WorkerDied(worker.incarnation, exit_code=0))
    assert not core.scheduler.finished


def test_a_host_where_nothing_is_left_lets_its_own_jobs_go() -> None:
    core = Resumed(THERE, places=True)
    core.tell(PlacesChanged([HERE]))
    cleared = PlaceFacts(1, "back", 4, Totals(4000), "there")
    assert sorted(core.tell(PlacesChanged([HERE, cleared]))) == ["job/0", "job/1"]
    assert core.ended() == [("job/0", "lost")]
    assert core.tell(after=35.0) == ["job/2"]


def test_a_job_that_two_workers_elsewhere_had_waits_for_both() -> None:
    core = Resumed({})
    core.table.open_leases.clear()
    both = JobTable()
    both.add("job/0")
    both.apply(Leased(0, 1, 1, ["job/0"], AT))
    both.apply(Leased(0, 2, 2, ["job/0"], AT))
    core.table, core.records = both, []
    core.scheduler = Scheduler(both, Settings(), 4, Position(2, 10, 10), places=[HERE])
    core._keep(core.scheduler.begin(core.now, AT, 1, mask=b"\1", elsewhere=THERE))
    cleared = PlaceFacts(1, "back", 4, Totals(4000), "there")
    assert core.tell(PlacesChanged([HERE, cleared])) == []
    assert core.tell(after=35.0) == ["job/0"]
