"""What is said and recorded of places that join and end."""

from __future__ import annotations

from typing import Any

from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import (
    Effects,
    KillWorker,
    PlaceEnd,
    PlaceFacts,
    StartJobs,
    StartWorker,
    Tell,
)
from supervisor.core.terms.needs import Totals
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import Ended, Leased, Noted
from supervisor.core.terms.settings import Settings
from workers.transport.messages import Completed, Outcome


def node(number: int, slots: int = 2) -> PlaceFacts:
    return PlaceFacts(number, f"node{number} (h)", slots, Totals(slots * 1000))


class Run:
    """Some jobs; workers get ready at once."""

    def __init__(self, jobs: int = 4, **settings: Any) -> None:
        table = JobTable()
        for number in range(jobs):
            table.add(f"j{number}")
        self.core = Scheduler(table, Settings(**settings), 0, Position(1, 1, 1, [], []), places=[])
        self.core.begin(0.0, "", 1)

    def told(self, *events: facts.Event) -> tuple[list[tuple[str, str]], Effects]:
        """The messages that follow, and everything that follows."""
        effects = self.core.handle(list(events), 1.0, "", 1)
        tells = [(each.level, each.text) for each in effects.commands if isinstance(each, Tell)]
        for command in effects.commands:
            if isinstance(command, StartWorker):
                effects.records += self.told(facts.WorkerReady(command.incarnation))[1].records
        return tells, effects


def test_a_place_that_joins_is_told_with_its_workers_and_stands_in_each_lease() -> None:
    run = Run()
    tells, effects = run.told(facts.PlacesChanged([node(0), node(1, 1)]))
    assert tells == [("info", "node0 (h) and node1 (h) join: 3 workers")]
    assert {r.place for r in effects.records if isinstance(r, Leased)} == {"node0 (h)", "node1 (h)"}
    more = [node(number, 1) for number in range(2, 7)]
    tells, effects = run.told(facts.PlacesChanged([node(0), node(1, 1), *more]))
    names = "node2 (h), node3 (h), node4 (h) and 2 more"
    assert tells == [("info", f"{names} join: 5 workers, 8 in all")]
    (noted,) = [record for record in effects.records if isinstance(record, Noted)]
    assert noted.what == "places_joined" and noted.detail["slots"] == 5
    assert run.told(facts.PlacesChanged([node(0), node(1, 1), *more]))[0] == []


def test_the_loss_of_a_place_is_told_with_its_reason_and_its_jobs() -> None:
    run = Run()
    run.told(facts.PlacesChanged([node(0), node(1, 1)]))
    lost = [PlaceEnd(0, "it closed the connection")]
    tells, effects = run.told(facts.PlacesChanged([node(1, 1)], lost))
    why = "node0 (h) is lost: it closed the connection"
    assert tells == [
        ("warning", f"{why}; 2 jobs that ran there run again, uncharged, once they have certainly ended")
    ]
    (noted,) = [record for record in effects.records if isinstance(record, Noted)]
    assert noted.what == "place_lost"
    assert noted.detail == {"place": "node0 (h)", "why": "it closed the connection", "jobs": 2}
    gone = [worker.incarnation for worker in run.core.workers.values() if worker.place == 0]
    _, effects = run.told(*(facts.WorkerDied(number, cause=facts.NODE_LOST) for number in gone))
    ends = [record for record in effects.records if isinstance(record, Ended)]
    assert [(end.outcome, end.state) for end in ends] == [("lost", "in_progress")] * 2
    assert {(end.error or {})["message"] for end in ends} == {why}


def test_an_announced_end_is_no_warning_and_the_last_one_leaves_jobs_waiting() -> None:
    run = Run()
    run.told(facts.PlacesChanged([node(0, 1)]))
    ended = [PlaceEnd(0, "it was sent SIGTERM", blameless=True)]
    tells, effects = run.told(facts.PlacesChanged([], ended), facts.WorkerDied(1, cause=facts.NODE_ENDED))
    why = "node0 (h) has ended: it was sent SIGTERM"
    assert tells == [
        ("info", f"{why}; 1 job that ran there runs again, uncharged, once it has certainly ended"),
        ("warning", "no node is left: jobs wait for one that joins"),
    ]
    assert [
        (end.outcome, (end.error or {})["message"]) for end in effects.records if isinstance(end, Ended)
    ] == [("interrupted", why)]
    assert not run.core.table.charges
    run.told(facts.PlacesChanged([node(1, 1)]))
    tells, _ = run.told(facts.PlacesChanged([]))
    assert tells[0][1].startswith("node1 (h) is lost; 1 job that ran there")


def test_a_place_that_is_fenced_says_how_that_is_known() -> None:
    run = Run()
    run.told(facts.PlacesChanged([node(0), node(1, 1)]))
    run.told(facts.PlacesChanged([node(1, 1)], [PlaceEnd(0, "nothing was heard of it for 30s")]))
    gone = [worker.incarnation for worker in run.core.workers.values() if worker.place == 0]
    deaths = [facts.WorkerDied(number, cause=facts.NODE_LOST) for number in gone]
    tells, effects = run.told(facts.PlaceFenced(0, confirmed=False), *deaths)
    assert tells == [("info", "node0 (h) is fenced: its agent has ended its jobs by now; they run again")]
    noted = [record for record in effects.records if isinstance(record, Noted)]
    assert [(each.what, each.detail) for each in noted] == [
        ("place_fenced", {"place": "node0 (h)", "confirmed": False})
    ]
    run.told(facts.PlacesChanged([], [PlaceEnd(1, "")]))
    tells, _ = run.told(facts.PlaceFenced(1, confirmed=True))
    assert tells == [("info", "node1 (h) is fenced: no process of its jobs is alive; they run again")]


def test_a_node_that_is_short_of_memory_gets_nothing_and_the_others_go_on() -> None:
    keep = 2 << 30
    run = Run(jobs=12, keep_free=keep)
    run.told(facts.PlacesChanged([node(0), node(1)]))
    workers = {worker.incarnation: worker for worker in run.core.workers.values()}
    there = {place: [n for n, worker in workers.items() if worker.place == place] for place in (0, 1)}
    little = keep * 3 // 4
    tells, _ = run.told(facts.MemoryMeasured({}, little, places={0: little, 1: 4 * keep}))
    text = "1.5G of memory is available there, less than 2G (--keep-free)"
    assert tells == [("warning", f"no new jobs are started on node0 (h): {text}")]
    assert not run.core.blocked_by()

    def given(incarnation: int) -> bool:
        worker = workers[incarnation]
        outcomes: list[Outcome] = [Completed(lease, 1.0, b"1") for lease, _ in worker.leases]
        effects = run.core.handle([facts.JobsFinished(incarnation, outcomes)], 1.0, "", 1)
        return any(
            isinstance(each, StartJobs) and each.incarnation == incarnation for each in effects.commands
        )

    assert not given(there[0][0]) and given(there[1][0])
    assert run.told(facts.MemoryMeasured({}, keep, places={0: keep + 1, 1: keep}))[0] == []  # back at once
    tells, effects = run.told(facts.MemoryMeasured({}, keep, places={0: 2 * keep, 1: 2 * keep}))
    assert tells == [("info", "enough memory is available again on node0 (h): jobs are started there again")]
    assert [each.incarnation for each in effects.commands if isinstance(each, StartJobs)] == [there[0][0]]
    # The youngest job of the node that has little is stopped, not the youngest of all.
    workers[there[0][1]].since = 5.0
    workers[there[1][1]].since = 3.0
    tells, effects = run.told(facts.MemoryMeasured({}, 1, places={0: keep, 1: keep // 2 - 1}))
    assert [each for each in effects.commands if isinstance(each, KillWorker)] == [KillWorker(there[1][1])]
    run.told(facts.PlacesChanged([node(0)], [PlaceEnd(1, "")]), facts.MemoryMeasured({}, 1, places={0: keep}))
    assert not run.core.dispatcher.short_places
