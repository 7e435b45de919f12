"""The timeline of an experiment, from its journal: where attempts stand, what is marked, what is known of dead runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.core.terms.records import (
    AnyRecord,
    CarriedRun,
    Completions,
    Ended,
    Leased,
    Noted,
    Paused,
    RunEnded,
    RunStarted,
    Sampled,
    Unpaused,
    WorkerEnded,
    WorkerStarted,
)
from supervisor.page import timeline as timeline_module
from supervisor.page.timeline import AGAIN, COMPLETED, FAILED, LOST, RUNNING, Timeline
from supervisor.page.timeline_document import axis_pieces, lanes_document, timeline_document
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_file import Identity, JournalFile
from supervisor.storage.journal.journal_follower import JournalFollower
from supervisor.storage.journal.journal_format import decode_record
from tools.benchmark.long_history import BEGAN
from tools.benchmark.long_history import clock as at

ZERO = BEGAN.timestamp()


def run_of(tmp_path: Path, *records: AnyRecord | Completions, most_attempts: int = 100) -> Timeline:
    layout = Layout(tmp_path, "e1")
    layout.logs.mkdir(parents=True, exist_ok=True)
    layout.journal.unlink(missing_ok=True)
    journal = JournalFile.create(Disk(), str(layout.journal), Identity("e1", "made", "uuid", 1))
    journal.append(list(records))
    journal.close()
    timeline = Timeline(most_attempts)
    for heads, lines in JournalFollower(layout).read():
        timeline.take(heads, lines, decode_record)
    timeline.finish()
    return timeline


def batch(slot: int, when: float, *seconds: float, first: int = 1) -> Completions:
    ids = [f"j{first + index}" for index in range(len(seconds))]
    numbers = list(range(first, first + len(seconds)))
    return Completions(
        slot, at(when), numbers, ids, [1] * len(ids), list(seconds), [b"1"] * len(ids), numbers
    )


def places(timeline: Timeline) -> list[tuple[str, int, float, float, int]]:
    return [
        (one.job, one.slot, round(one.start - ZERO, 3), round(one.end - ZERO, 3), one.outcome)
        for one in timeline.attempts or []
    ]


def test_ends_that_came_together_are_stacked_backwards(tmp_path: Path) -> None:
    timeline = run_of(tmp_path, RunStarted(1, at(0)), batch(0, 10, 1.0, 2.0, 0.5), batch(1, 10, 4.0, first=8))
    assert places(timeline) == [
        ("j1", 0, 6.5, 7.5, COMPLETED),
        ("j2", 0, 7.5, 9.5, COMPLETED),
        ("j3", 0, 9.5, 10.0, COMPLETED),
        ("j8", 1, 6.0, 10.0, COMPLETED),
    ]
    assert [(one.slot, one.start - ZERO, one.ended) for one in timeline.bins if one.ended] == [
        (0, 7, 1),
        (0, 9, 1),
        (0, 10, 1),
        (1, 10, 1),
    ]


def test_ends_that_follow_each_other_are_not_stacked(tmp_path: Path) -> None:
    timeline = run_of(tmp_path, RunStarted(1, at(0)), batch(0, 10, 1.0), batch(0, 12, 1.5, first=2))
    assert [place[2:4] for place in places(timeline)] == [(9.0, 10.0), (10.5, 12.0)]


def test_a_run_that_died_ends_with_its_last_sign_of_life_and_its_jobs_are_lost_there(tmp_path: Path) -> None:
    timeline = run_of(
        tmp_path,
        RunStarted(1, at(0), host="box"),
        WorkerStarted(0, 1, 77, at(0)),
        Leased(0, 1, 1, ["j1"], at(1)),
        batch(0, 3, 2.0),
        Leased(0, 1, 2, ["j2"], at(3)),
        Sampled(at(9), {"0": 1 << 20}, {}, 5 << 20),
        RunStarted(2, at(500)),
        Ended("j2", 1, 2, "lost", "in_progress", 0.0, -1, at(500)),
        RunEnded(2, "finished", at(520)),
    )
    assert [(run.number, run.start, run.end, run.state) for run in timeline.runs] == [
        (1, ZERO, ZERO + 9, ""),
        (2, ZERO + 500, ZERO + 520, "finished"),
    ]
    assert places(timeline)[-1:] == [("j2", 0, 3.0, 9.0, LOST)]
    pieces = [(start - ZERO, end - ZERO) for start, end in axis_pieces(timeline, ZERO + 520)]
    assert pieces == [(0.0, 9.0), (500.0, 520.0)]


def test_the_last_outcome_is_a_sign_of_life(tmp_path: Path) -> None:
    records = [Leased(0, 1, 1, ["j1"], at(1)), batch(0, 4, 2.0), batch(1, 3, 2.0, first=2)]
    timeline = run_of(tmp_path, RunStarted(1, at(0)), *records, RunStarted(2, at(50)))
    assert [(run.start, run.end) for run in timeline.runs] == [(ZERO, ZERO + 4), (ZERO + 50, ZERO + 50)]


def test_failures_losses_orders_and_pauses_are_marked(tmp_path: Path) -> None:
    timeline = run_of(
        tmp_path,
        RunStarted(1, at(0)),
        Ended("a", 1, 1, "raised", "pending", 1.0, 0, at(2), error={"type": "ValueError"}),
        Ended("a", 2, 2, "raised", "failed", 1.0, 0, at(4), error={"type": "ValueError"}),
        WorkerEnded(3, 9, "crashed", at(5), signal=11, peak_rss=7 << 20),
        WorkerEnded(2, 8, "finished", at(5)),
        Noted("control", at(6), {"order": "pause", "what": "paused: 2 running jobs go on"}),
        Paused("user", at(6)),
        Unpaused("user", at(8), 2.0),
        Noted("drain", at(9), {"signal": 15}),
        Noted("drain", at(9), {"control": "drain", "uid": 0, "by": "page"}),
        Noted("drain", at(9), {"control": "stop", "uid": 7}),
        Paused("no_space", at(9)),
        RunEnded(1, "interrupted", at(10)),
    )
    assert [place[4] for place in places(timeline)] == [AGAIN, FAILED]
    assert (timeline.ended, timeline.failed) == (2, 2)
    assert [(mark.kind, mark.text, mark.slot) for mark in timeline.marks] == [
        ("worker", "worker 3 crashed: SIGSEGV", 3),
        ("order", "longhaul ctl pause: paused: 2 running jobs go on", -1),
        ("drain", "no new jobs from here on: SIGTERM", -1),
        ("drain", "no new jobs from here on: drain by the page, uid 0", -1),
        ("drain", "no new jobs from here on: longhaul ctl stop, uid 7", -1),
    ]
    assert [(pause.why, pause.start - ZERO, (pause.end or 0) - ZERO) for pause in timeline.pauses] == [
        ("user", 6.0, 8.0),
        ("no_space", 9.0, 10.0),
    ]
    assert timeline.peaks == {3: 7 << 20}


def test_after_a_rewrite_it_says_so_and_keeps_what_is_left(tmp_path: Path) -> None:
    timeline = run_of(
        tmp_path,
        RunStarted(4, at(1000)),
        batch(0, 10, 1.0),
        batch(0, 5, 1.0, first=2),
        CarriedRun(4, 10, 5, {}, at(2000)),
        RunStarted(5, at(2001)),
        batch(1, 2005, 1.0, first=3),
        RunEnded(5, "finished", at(2006)),
    )
    assert timeline.rewritten == ZERO + 2000
    assert [(run.number, run.state) for run in timeline.runs] == [(4, "rewritten"), (5, "finished")]
    document = timeline_document(timeline, None)
    assert document["origin"] == ZERO + 5
    assert sorted(place[0] for place in places(timeline)) == ["j1", "j2", "j3"]


def test_a_running_attempt_lasts_until_now(tmp_path: Path) -> None:
    timeline = run_of(tmp_path, RunStarted(1, at(0)), Leased(0, 1, 1, ["j1", "j2"], at(1)), batch(0, 4, 3.0))
    timeline.running(0, 2, "j2", ZERO + 9)
    assert places(timeline)[-1] == ("j2", 0, 4.0, 9.0, RUNNING)


@pytest.mark.parametrize("number", [100, 101])
def test_beyond_so_many_attempts_there_are_bins(tmp_path: Path, number: int) -> None:
    records = [batch(slot % 3, 5 + slot, 0.5, first=slot + 1) for slot in range(number)]
    timeline = run_of(tmp_path, RunStarted(1, at(0)), *records)
    document = lanes_document(timeline)
    assert ("job" in document) is (number == 100)
    if number == 101:
        assert sum(document["ended"]) == 101
    assert sum(timeline_document(timeline, None)["series"]["ended"]) == number


def test_following_in_small_steps_comes_to_the_same(tmp_path: Path) -> None:
    """As a page reads it while the run goes on, or a report at once."""
    records = [
        RunStarted(1, at(0)),
        *(batch(n % 4, 1 + n // 8, 0.3, 0.2, first=2 * n + 1) for n in range(60)),
    ]
    whole = run_of(tmp_path, *records, most_attempts=1000)
    layout = Layout(tmp_path, "e1")
    text = layout.journal.read_bytes()
    follower, steps = JournalFollower(layout), Timeline(1000)
    for size in range(0, len(text) + 700, 700):
        layout.journal.write_bytes(text[:size])
        for heads, lines in follower.read():
            steps.take(heads, lines, decode_record)
    steps.finish()
    assert sorted(places(steps)) == sorted(places(whole))
    for step, one in zip(steps.bins, whole.bins, strict=True):
        assert tuple(step) == pytest.approx(tuple(one))


def test_workers_of_a_node_stand_together(tmp_path: Path) -> None:
    records: list[AnyRecord | Completions] = [RunStarted(1, at(0))]
    for slot, node in enumerate(["b", "a", "b", "a"]):
        records.append(Leased(slot, slot + 1, 10 * slot + 1, ["x"], at(1), place=node))
        records.append(batch(slot, 3, 1.0, first=10 * slot + 1))
    document = timeline_document(run_of(tmp_path, *records), None)
    assert document["slots"] == [1, 3, 0, 2]
    assert document["nodes"] == {"0": "b", "1": "a", "2": "b", "3": "a"}


def test_what_is_too_much_to_be_marked_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "MOST_MARKS", 3)
    records: list[AnyRecord | Completions] = [RunStarted(1, at(0))]
    for second in range(5):
        records += [Paused("low_memory", at(second)), Unpaused("low_memory", at(second + 0.5), 0.5)]
        records += [WorkerEnded(second, second + 1, "crashed", at(second), signal=9)]
    timeline = run_of(tmp_path, *records)
    assert (len(timeline.pauses), len(timeline.marks)) == (3, 3)
    assert timeline.more_marks == {"pause": 2, "worker": 2}
    assert all(pause.end is not None for pause in timeline.pauses)
