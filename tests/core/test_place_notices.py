"""What is said and recorded of places that join and end."""

from __future__ import annotations

from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Effects, PlaceEnd, PlaceFacts, StartWorker, Tell
from supervisor.core.terms.needs import Totals
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import Ended, Leased, Noted
from supervisor.core.terms.settings import Settings


def node(number: int, slots: int = 2) -> PlaceFacts:
    return PlaceFacts(number, f"node{number} (h)", slots, Totals(slots * 1000))


class Run:
    """Four jobs; workers get ready at once."""

    def __init__(self) -> None:
        table = JobTable()
        for number in range(4):
            table.add(f"j{number}")
        self.core = Scheduler(table, Settings(), 0, Position(1, 1, 1, [], []), places=[])
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
