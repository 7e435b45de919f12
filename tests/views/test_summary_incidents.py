"""What happened to a run as a whole: from its records to the lines of the summary."""

from __future__ import annotations

from supervisor.core.state.run_history import Incidents
from supervisor.core.terms.records import AnyRecord, Noted, Paused, Unpaused
from supervisor.views.summary import overnight_lines


def at(minute: int) -> str:
    return f"2025-10-14T21:{minute:02d}:00.000Z"


def told(*records: AnyRecord) -> list[str]:
    overnight = Incidents()
    for record in records:
        overnight.apply(record)
    return overnight_lines(overnight, at(50))


def test_nothing_happened() -> None:
    assert told() == []


def test_waits_are_added_up_by_reason() -> None:
    assert told(
        Paused("no_space", at(0)),
        Unpaused("no_space", at(10), 600.0),
        Paused("suspended", at(10)),
        Unpaused("suspended", at(10), 7200.0),
        Paused("no_space", at(20)),
        Unpaused("no_space", at(21), 60.0),
    ) == [
        "waited for room on the disk: 11m 00s in all, 2 times",
        "stood still, suspended or stopped: 2h 00m in all, once",
    ]


def test_a_pause_that_lasted_to_the_end_counts_until_then() -> None:
    assert told(Paused("user", at(20))) == ["paused by hand: 30m 00s in all, once"]


def test_a_reason_of_a_later_version_is_told_all_the_same() -> None:
    assert told(Paused("full_moon", at(20))) == ["nothing new was started (full moon): 30m 00s in all, once"]


def test_orders_from_other_terminals_are_counted() -> None:
    orders = ("cancel", "workers", "cancel")
    records = [Noted("control", at(1), {"order": order}) for order in orders]
    assert told(*records, Noted("drain", at(2))) == ["longhaul ctl: cancel (2), workers"]


def test_jobs_that_stood_still_or_were_stopped_for_memory_are_counted() -> None:
    overnight = Incidents()
    for job in ("a", "b", "a"):
        overnight.apply(Noted("stalled", "2025-10-14T21:00:00.000Z", {"job": job}))
    overnight.apply(Noted("stopped_for_memory", "2025-10-14T21:00:00.000Z", {"job": "c"}))
    assert overnight_lines(overnight, "2025-10-14T21:00:00.000Z") == [
        "stopped because memory was short, to run again: c",
        "used no CPU for long (--stall): a and 2 more",
    ]


def test_nodes_that_came_and_went_are_counted_and_the_first_lost_one_is_named() -> None:
    joined = [Noted("places_joined", at(1), {"places": ["a", "b"], "slots": 2})]
    assert told(*joined, Noted("places_joined", at(2), {"places": ["c"], "slots": 1})) == ["nodes: 3 joined"]
    ends = [Noted("place_lost", at(3), {"place": name, "why": ""}) for name in ("b", "c")]
    fenced = Noted("place_fenced", at(4), {"place": "b", "confirmed": True})
    ended = Noted("place_ended", at(5), {"place": "a", "why": ""})
    assert told(*joined, *ends, fenced, ended) == [
        "nodes: 2 joined, 2 lost (b first), 1 fenced, 1 ended in order (a)"
    ]
