"""`longhaul status`: a progress file, told to people."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from supervisor.commands.status import status_text
from supervisor.reports.progress_file import Progress

NOW = datetime(2025, 10, 14, 22, 30, tzinfo=UTC)
DOCUMENT = {
    "experiment_id": "experiment_1",
    "name": "pilot",
    "state": "running",
    "saved_at": "2025-10-14T22:29:58.000Z",
    "counts": {"total": 10, "completed": 3, "failed": 1, "in_progress": 2, "pending": 4},
    "rate": 0.5,
    "eta_seconds": None,
    "elapsed_seconds": 12.0,
    "supervisor": {"pid": 77, "host": "box"},
    "workers": [
        {"worker": 0, "pid": 1, "job": "a/1", "since": "2025-10-14T22:28:00.000Z", "rss_bytes": 1 << 30},
        {"worker": 1, "pid": 2, "job": None, "since": None},
    ],
    "recent_failures": [
        {
            "job": "a/2",
            "domain": None,
            "outcome": "raised",
            "type": "ValueError",
            "message": "no",
            "where": "",
            "attempt": 1,
            "final": True,
        }
    ],
    "something_new": 1,
}


def told(*, gone: bool = False, resume: str = "", **more: object) -> list[str]:
    progress = msgspec.convert({**DOCUMENT, **more}, Progress)
    return status_text(progress, NOW, gone=gone, resume=resume).splitlines()


def test_a_running_experiment_with_its_workers_and_failures() -> None:
    assert told() == [
        "pilot experiment_1: running, 2.0s ago",
        "  4 of 10 (40%), 1 failed, 1 running, 30 jobs/min, 12s so far",
        f"     0  {'a/1':<40}    2m 00s    1.0G    0%",
        "  FAILED a/2: ValueError: no (attempt 1, 0s)",
    ]


def test_what_a_job_has_reported_stands_in_its_line() -> None:
    busy = {"worker": 0, "job": "a/1", "fraction": 0.456, "metrics": {"loss": 1.5}, "slow": True}
    assert told(workers=[busy])[2].endswith("0%  46% done  slow")


def test_nothing_waits_any_more_when_the_supervisor_is_gone() -> None:
    waiting = "paused by hand, `longhaul ctl resume` continues it"
    assert waiting in told(state="paused", waiting_for=waiting)[1]
    assert waiting not in "".join(told(state="paused", waiting_for=waiting, gone=True))
    assert waiting not in "".join(told(state="interrupted", waiting_for=waiting))


NEEDS = {
    "cpus": [3, 4],
    "memory": [1 << 30, None],
    "resources": {"license": [1, 2]},
    "waiting": {"job": "big/7", "lacks": "3 cores (1 free)"},
    "unfit": {"jobs": 2, "first": "big/9", "why": "asks for 8 cores, but there are 4 (--workers)"},
}


def test_what_jobs_take_and_wait_for_has_lines_of_its_own() -> None:
    assert told(needs=NEEDS)[1:5] == [
        "  4 of 10 (40%), 1 failed, 1 running, 30 jobs/min, 12s so far",
        "  given: cores 3 of 4, memory 1.0G, license 1 of 2",
        "  big/7 waits for 3 cores (1 free)",
        "  2 jobs cannot run: big/9 asks for 8 cores, but there are 4 (--workers)",
    ]
    for over in (told(needs=NEEDS, gone=True), told(needs=NEEDS, state="unfinished")):
        text = "\n".join(over)
        assert "2 jobs cannot run" in text and "waits" not in text and "given" not in text


def test_an_experiment_whose_supervisor_is_gone_says_so() -> None:
    lines = told(gone=True)
    assert lines[2] == "  its supervisor (pid 77 on box) is gone; resume with: --resume experiment_1"
    assert "longhaul verify" in lines[3]
    lines = told(gone=True, resume="python walk.py --resume experiment_1")
    assert lines[2].endswith("is gone; resume with: python walk.py --resume experiment_1")
    assert "0 running" in lines[1]
    assert not any("a/1" in line for line in lines)


def test_a_finished_one_runs_nothing() -> None:
    lines = told(state="finished", gone=True, recent_failures=[])
    assert lines == [
        "pilot experiment_1: finished, 2.0s ago",
        "  4 of 10 (40%), 1 failed, 0 running, 12s so far",
    ]


def test_strange_times_are_left_out() -> None:
    assert told(saved_at="yesterday")[0] == "pilot experiment_1: running"


def test_nodes_have_a_line_each() -> None:
    node = {"node": "node1 (host)", "workers": 2, "busy": 1, "slots": 2, "cores": 2, "load": 1.5}
    node |= {"cpu_percent": 150.0, "memory_used": 1 << 30, "memory_total": 4 << 30, "heard_age": 3.0}
    lines = told(nodes=[node])
    assert ", 1 running, 1 node, " in lines[1]
    words = "node1 (host) 1 of 2 workers busy load 1.50 of 2 cpu 150% memory 1.0G of 4.0G heard 3.0s ago"
    assert " ".join(lines[2].split()) == words
    assert not any("node1" in line for line in told(nodes=[node], gone=True))
