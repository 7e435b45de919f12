"""Plain lines for a log file: when they come and what they say."""

from __future__ import annotations

import io
from datetime import datetime

import pytest

from supervisor.views.console import ConsoleWriter
from supervisor.views.failure_lines import tail_lines
from supervisor.views.plain_view import PlainView, interval, progress
from tests.views.made import counts, crash, failure, snapshot

EVENING = datetime(2025, 10, 14, 22, 30)


def plain() -> tuple[PlainView, io.StringIO]:
    stream = io.StringIO()
    return PlainView(ConsoleWriter(stream), now=lambda: EVENING), stream


@pytest.mark.parametrize(("elapsed", "seconds"), [(0, 10), (599, 10), (600, 300), (40_000, 300)])
def test_lines_come_every_10_s_for_10_minutes_then_every_5_minutes(elapsed: float, seconds: float) -> None:
    assert interval(elapsed) == seconds
    view, _ = plain()
    assert view.interval == 10
    view.update(snapshot(elapsed=elapsed))
    assert view.interval == seconds


def test_a_line_says_how_far_and_until_when() -> None:
    line = progress(snapshot(), EVENING)
    assert line == ("743 of 2,000 (37%), 3 failed, 6 running, 1.2 jobs/s, 2h 13m so far, ends about 03:30")


def test_no_end_time_is_told_when_nothing_is_left() -> None:
    assert "ends" not in progress(snapshot(counts=counts(10, 0, 0, 0), eta_seconds=0.0), EVENING)


def test_a_run_that_waits_says_for_what() -> None:
    line = progress(snapshot(state="waiting_for_space", waiting_for="12M free in /data, 64M needed"), EVENING)
    assert line.endswith("nothing new is started: 12M free in /data, 64M needed")
    line = progress(snapshot(state="draining", grace_left=12.0), EVENING)
    assert line.endswith("6 jobs running, 12 s left; Ctrl+C again stops now")
    assert progress(snapshot(state="draining", grace_left=12.0, workers=0), EVENING).endswith(", stopping")


def test_each_failure_has_one_line_and_its_last_output() -> None:
    view, stream = plain()
    view.failed(failure(output_tail="a\nb\nc\n\nd\n"))
    view.failed(crash(final=False, attempt=2))
    again = "22:30:00  will run again: iris/forest/300: its worker was killed by SIGSEGV"
    assert stream.getvalue().splitlines() == [
        "22:30:00  FAILED iris/forest/200: ValueError model.py:88: no such split (attempt 1, 12s)",
        "    | b",
        "    | c",
        "    | d",
        f"{again} (attempt 2, 12s, peak 2.0G)",
    ]


def test_of_a_crash_the_innermost_frame_is_shown() -> None:
    tail = """hello
Fatal Python error: Aborted

Current thread 0x00007f75 (most recent call first):
  File "exp.py", line 8 in evaluate
  File "runner.py", line 47 in run

Extension modules: numpy (total: 1)
"""
    assert tail_lines(crash(output_tail=tail)) == [
        "Fatal Python error: Aborted",
        "Current thread 0x00007f75 (most recent call first):",
        '  File "exp.py", line 8 in evaluate',
    ]


def test_a_flood_of_failures_is_counted_not_printed() -> None:
    view, stream = plain()
    for number in range(1500):
        view.failed(failure(str(number)))
    view.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1001
    assert lines[-1] == "22:30:00  ... and 500 more failures"


def test_output_of_a_job_names_the_job_on_each_line() -> None:
    view, stream = plain()
    view.output("iris/1", "one\n\x1b[31mtwo\x1b[0m\n")
    assert stream.getvalue() == "[iris/1] one\n[iris/1] two\n"


def test_words_for_the_user_carry_their_level() -> None:
    view, stream = plain()
    view.message("info", "going on")
    view.message("warning", "no room")
    assert stream.getvalue() == "22:30:00  going on\n22:30:00  warning: no room\n"


def test_jobs_that_only_leaves_out_are_not_counted() -> None:
    few = snapshot(counts=counts(1, 0, 1, 3), unselected=3)
    assert progress(few, EVENING).startswith("1 of 2 (50%), ")
