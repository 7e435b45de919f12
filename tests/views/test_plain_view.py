"""Plain lines for a log file: when they come and what they say."""

from __future__ import annotations

import io
from datetime import datetime

import pytest

from supervisor.core.state.snapshot import NeedsSnapshot, UnfitJobs, WaitingJob
from supervisor.views.console import ConsoleWriter
from supervisor.views.failure_lines import tail_lines
from supervisor.views.plain_view import PlainView, interval, node_line, progress, unfit_of, waiting_of
from tests.views.made import counts, crash, failure, needs, node, snapshot

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


def test_what_jobs_take_stands_behind_those_that_run_and_what_they_wait_for_before_the_end() -> None:
    line = progress(snapshot(needs=needs()), EVENING)
    assert line == (
        "743 of 2,000 (37%), 3 failed, "
        "6 running (given cores 3.5 of 4, memory 6.0G of 15G, GPUs 1.5 of 2, license 1 of 2), 1.2 jobs/s, "
        "2h 13m so far, big/7 waits for 3 cores (2 free), 2 jobs cannot run, ends about 03:30"
    )
    few = NeedsSnapshot((0, 1), (0, None), unfit=UnfitJobs(1, "big", "asks"))
    assert "6 running (given cores 0 of 1, memory 0B), " in progress(snapshot(needs=few), EVENING)
    assert "so far, 1 job cannot run, ends" in progress(snapshot(needs=few), EVENING)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_of_a_job_that_waits_the_id_is_shortened_so_that_the_reason_can_be_read(width: int) -> None:
    seen = needs(waiting=WaitingJob("a/very/long/id\n" * 20 + "/7", "3 cores (2 free)"))
    text = waiting_of(seen, width)
    assert (
        len(text) == width and text.endswith("/7 waits for 3 cores (2 free)") and text.startswith("a/very/")
    )
    seen = needs(unfit=UnfitJobs(12, "x" * 300 + "/7", "asks for 8 cores, but there are 4 (--workers)"))
    text = unfit_of(seen, width)
    assert text.startswith("12 jobs cannot run: xxx") and len(text) in (width, 20 + 12 + 46)


def test_the_nodes_are_counted_and_a_silent_one_is_named() -> None:
    nodes = [node(0), node(1)]
    assert ", 6 running, 2 nodes, " in progress(snapshot(nodes=nodes), EVENING)
    nodes[1].heard_age = 21.0
    told = progress(snapshot(nodes=nodes), EVENING)
    assert ", 2 nodes (nothing heard of node1 (host) for 21s), " in told
    assert "node" not in progress(snapshot(), EVENING)


def test_a_node_has_one_line_and_what_is_not_known_is_left_out() -> None:
    assert node_line(node(1), 14) == (
        "node1 (host)    3 of 4 workers busy     load  3.90 of 4  cpu  385%  memory 6.0G of 15G  heard 2.0s ago"
    )
    nothing = dict.fromkeys(("load", "cpu_percent", "memory_used", "memory_total", "heard_age"))
    assert node_line(node(1, **nothing)).rstrip() == "node1 (host)  3 of 4 workers busy"
