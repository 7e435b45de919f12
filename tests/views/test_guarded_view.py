"""The shell around every view: nothing that breaks in there ends a run."""

from __future__ import annotations

import io
from pathlib import Path

from supervisor.core.state.snapshot import RunSnapshot
from supervisor.views.guarded_view import GuardedView, open_view
from supervisor.views.supervisor_log import SupervisorLog
from supervisor.views.view import SilentView
from tests.views.made import failure, snapshot, worker
from workers.isolation.output_files import log_path, scratch_path


class Broken(SilentView):
    """A view whose terminal library raises."""

    interval = 10.0

    def __init__(self) -> None:
        self.calls = 0

    def update(self, snapshot: object) -> None:
        self.calls += 1
        raise RuntimeError("no such terminal capability")


def test_a_broken_view_is_silent_from_then_on_and_the_log_says_so(tmp_path: Path) -> None:
    broken = Broken()
    log = SupervisorLog(tmp_path / "log")
    view = GuardedView(broken, None, log=log, output_directory=None, show_output=False, clock=lambda: 0.0)
    for _ in range(3):
        view.update(snapshot())
        view.failed(failure())
        view.message("info", "still logged")
    view.close(snapshot())
    log.close()
    assert broken.calls == 1
    text = (tmp_path / "log").read_text()
    assert "the progress view failed and is switched off: RuntimeError: no such terminal capability" in text
    assert text.count("still logged") == 3
    assert text.count("FAILED iris/forest/200") == 3


def test_without_a_stream_there_is_only_the_log(tmp_path: Path) -> None:
    log = SupervisorLog(tmp_path / "log")
    view = open_view(None, log=log)
    view.update(snapshot())
    view.message("warning", "no room")
    view.suspend()
    view.resume()
    view.close()
    log.close()
    assert (tmp_path / "log").read_text().endswith("WARNING no room\n")


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()
    view = open_view(stream)
    view.update(snapshot())
    view.failed(failure())
    view.close()


def test_a_failure_shows_the_last_lines_that_its_job_printed(tmp_path: Path) -> None:
    Path(log_path(str(tmp_path), "iris/1")).write_text("one\nlast words\n")
    stream = io.StringIO()
    view = open_view(stream, output_directory=str(tmp_path))
    view.printed("iris/1")
    view.failed(failure("iris/1"))
    assert "    | last words\n" in stream.getvalue()
    view.failed(failure("iris/2"))
    assert stream.getvalue().count("|") == 2


def test_twenty_failures_alike_are_told_at_once() -> None:
    stream = io.StringIO()
    view = open_view(stream)
    for number in range(25):
        view.failed(failure(str(number)))
    lines = stream.getvalue().splitlines()
    assert "warning: the first 20 attempts all failed alike" in lines[20]
    assert stream.getvalue().count("alike") == 1


def test_a_success_in_between_and_nothing_is_told() -> None:
    stream = io.StringIO()
    view = open_view(stream)
    view.completed()
    for number in range(25):
        view.failed(failure(str(number)))
    assert "alike" not in stream.getvalue()


def test_output_is_followed_every_second_though_progress_comes_seldom(tmp_path: Path) -> None:
    now = 0.0
    stream = io.StringIO()
    view = open_view(stream, show_output=True, output_directory=str(tmp_path), clock=lambda: now)
    for second in range(31):
        now = float(second)
        with Path(scratch_path(str(tmp_path), 0, 1)).open("a") as file:
            file.write(f"epoch {second}\n")
        assert view.interval <= 1.0
        view.update(_running(now))
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if line.startswith("[")] == [f"[iris/1] epoch {n}" for n in range(31)]
    assert sum(" of " in line for line in lines) == 4


def _running(now: float) -> RunSnapshot:
    over = snapshot(elapsed=now)
    over.workers = [worker(0, job="iris/1", seconds=now + 5)]
    return over


def test_a_flood_of_failures_does_not_fill_the_log(tmp_path: Path) -> None:
    log = SupervisorLog(tmp_path / "log")
    view = open_view(None, log=log, clock=lambda: 0.0)
    view.completed()
    for number in range(1200):
        view.failed(failure(str(number)))
    view.close()
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1001
    assert lines[-1].endswith("... and 200 more failures; the journal has them all")
