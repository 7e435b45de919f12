"""Leases that were taken back from a worker elsewhere: when others may have their jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import pytest

from supervisor.core.dispatch.pacing import CONFIRM_AFTER
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Command, Event, KillWorker, PlaceFacts, RevokeJobs, StartJobs
from supervisor.core.terms.jobs import COMPLETED
from supervisor.core.terms.needs import Totals
from supervisor.core.terms.position import Position
from supervisor.core.terms.settings import Settings
from supervisor.nodes.fencing import CERTAIN_AFTER, Withdrawals
from supervisor.nodes.node_agent import nap_after
from workers.transport.messages import Completed


class Played:
    """A scheduler with two workers, the first with a long job and others behind it."""

    def __init__(self, *, elsewhere: bool) -> None:
        table = JobTable()
        for number in range(40):
            table.add(f"job/{number}")
        self.core = Scheduler(table, Settings(), 0, Position(), places=[])
        self.now = 0.0
        self.said: list[Command] = []
        self.core.begin(0.0, "", 1)
        places = [PlaceFacts(n, f"node{n}", 1, Totals(1000), elsewhere=elsewhere) for n in range(2)]
        self.tell(facts.PlacesChanged(places[:1]))
        self.tell(facts.WorkerReady(1))
        each = 0.02 if elsewhere else 0.01  # elsewhere a worker holds twice as much work
        self.tell(facts.JobsFinished(1, [Completed(1, each, b"0")]))
        (self.batch,) = self.handed(1)[1:]
        assert len(self.batch.jobs) > 3
        self.tell(facts.PlacesChanged(places))
        self.now += 1.0
        self.tell(facts.WorkerReady(2))
        (revoked,) = [command for command in self.said if isinstance(command, RevokeJobs)]
        self.revoked = revoked.leases

    def tell(self, *events: Event) -> None:
        self.said += self.core.handle(events, self.now, "", 1).commands

    def handed(self, incarnation: int) -> list[StartJobs]:
        return [c for c in self.said if isinstance(c, StartJobs) and c.incarnation == incarnation]

    def handed_again(self) -> bool:
        return any(job in self.batch.jobs for command in self.handed(2) for job in command.jobs)


def test_on_this_machine_others_get_them_when_the_worker_has_not_answered_at_once() -> None:
    played = Played(elsewhere=False)
    assert not played.handed_again()
    played.now += 1.01 * CONFIRM_AFTER
    played.tell(facts.TimePassed())
    assert played.handed_again()


def test_elsewhere_others_get_them_when_it_is_certain_that_they_do_not_start() -> None:
    played = Played(elsewhere=True)
    assert played.revoked == list(range(played.batch.first_lease + 1, played.revoked[-1] + 1))
    assert not played.handed_again()
    played.tell(facts.LeasesWithdrawn(1, played.revoked[1:]))
    assert played.handed_again()
    assert all(played.batch.jobs[1] not in command.jobs for command in played.handed(2))
    played.tell(facts.LeasesDropped(1, played.revoked))
    assert played.core.workers[1].revoked == set()


def test_one_that_had_started_after_all_is_not_run_twice() -> None:
    played = Played(elsewhere=True)
    first = played.batch.first_lease
    played.tell(facts.LeasesWithdrawn(1, played.revoked[1:]))
    outcomes = [Completed(first, 1.0, b"1"), Completed(first + 1, 1.0, b"2")]
    played.tell(facts.JobsFinished(1, list(outcomes)))
    for job in played.batch.jobs[:2]:
        assert played.core.table.state[job] == COMPLETED
        assert all(job not in command.jobs for command in played.handed(2))


def test_they_come_back_with_the_end_of_their_place() -> None:
    played = Played(elsewhere=True)
    played.tell(facts.PlacesChanged([PlaceFacts(1, "node1", 1, Totals(1000), elsewhere=True)]))
    assert not played.handed_again()
    played.tell(facts.WorkerDied(1, cause=facts.NODE_LOST))
    assert played.handed_again()


def unstarted(first: int | None) -> Callable[[int, Sequence[int]], list[int] | None]:
    return lambda _, leases: None if first is None else [lease for lease in leases if lease > first]


def test_what_a_worker_may_have_started_is_not_withdrawn() -> None:
    withdrawals = Withdrawals()
    withdrawals.revoked(1, [5, 6, 7], 10.0)
    due = 10.0 + CERTAIN_AFTER
    assert withdrawals.due() == due
    assert withdrawals.certain(unstarted(4), due - 0.001) == []  # it may not have read it yet
    assert withdrawals.certain(unstarted(None), due) == []  # it has more to say
    assert withdrawals.certain(unstarted(5), due + 1.0) == [facts.LeasesWithdrawn(1, [6, 7])]
    assert withdrawals.due() is None


class Gathering:
    """A node with one worker, whose agent lets outcomes gather."""

    def __init__(self, incarnation: int, began: float) -> None:
        self.incarnation, self.began = incarnation, began
        self.held: deque[int] = deque()
        self.outcomes: list[Completed] = []
        self.due: float | None = None  # when it tells of them

    def run(self, now: float, each: float) -> list[Event]:
        """What it tells at this time."""
        while self.held and self.began + each <= now:
            self.began += each
            self.outcomes.append(Completed(self.held.popleft(), each, b"0"))
        if not self.held:
            self.began = now
        if not self.outcomes or (self.due is not None and now < self.due):
            return []
        told: list[Event] = [facts.JobsFinished(self.incarnation, list(self.outcomes))]
        self.outcomes.clear()
        self.due = now + nap_after(told, lambda: len(self.held), lambda: 1 << 20)
        return told


@pytest.mark.parametrize("each", [0.001, 0.003, 0.01, 0.018])
def test_nothing_is_taken_back_from_workers_whose_outcomes_gather_and_none_is_stopped(each: float) -> None:
    table = JobTable()
    for number in range(20_000):
        table.add(f"job/{number}")
    core = Scheduler(table, Settings(timeout=0.05), 0, Position(), places=[])
    core.begin(0.0, "", 1)
    nodes = {1: Gathering(1, 0.0), 2: Gathering(2, 0.047)}
    places = [PlaceFacts(n, f"node{n}", 1, Totals(1000), elsewhere=True) for n in range(2)]
    core.handle([facts.PlacesChanged(places)], 0.0, "", 1)
    told: list[Event] = [facts.WorkerReady(1)]
    finished = 0
    for step in range(2000):
        now = step * 0.001
        if told or (core.next_deadline() or now + 1) <= now:
            for command in core.handle([*told, facts.TimePassed()], now, "", 1).commands:
                assert not isinstance(command, RevokeJobs | KillWorker), f"after {now} s"
                if isinstance(command, StartJobs):
                    leases = range(command.first_lease, command.first_lease + len(command.jobs))
                    nodes[command.incarnation].held.extend(leases)
        told = [facts.WorkerReady(2)] if step == 47 else []
        told += [event for node in nodes.values() for event in node.run(now, each)]
        finished += sum(len(event.outcomes) for event in told if isinstance(event, facts.JobsFinished))
    assert finished > 0.9 * 2 * 2.0 / each
