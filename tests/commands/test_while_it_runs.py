"""The commands on an experiment that a supervisor is running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from supervisor.commands import output
from tests.commands.conftest import ROOT, Longhaul
from tests.experiment_fixture import Experiment, wait_for
from workers.isolation.output_files import log_path, scratch_path

pytestmark = pytest.mark.slow

SCRIPT = """
    def evaluate(kind):
        note("ran")
        if kind == "quick":
            return 1
        print("first words", flush=True)
        while not Path("go").exists():
            time.sleep(0.01)
        print("last words", flush=True)
        return 2

    if __name__ == "__main__":
        jobs = [Job(id=f"quick/{n}", params={"kind": "quick"}) for n in range(20)]
        main(evaluate, [*jobs, Job(id="long", params={"kind": "long"})], name="trial", workers=2)
"""


def lines_of(experiment: Experiment, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor", *words, "-d", str(experiment.output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    experiment.started.append(process)
    return process


def progress(experiment: Experiment) -> dict[str, object]:
    paths = list((experiment.output / "logs").glob("progress_*.json"))
    return json.loads(paths[0].read_text()) if paths else {}


def is_shown_as_running(experiment: Experiment) -> bool:
    workers = progress(experiment).get("workers", [])
    assert isinstance(workers, list)
    return any(worker["job"] == "long" for worker in workers)


def test_a_run_is_seen_from_outside_and_not_disturbed(experiment: Experiment, longhaul: Longhaul) -> None:
    experiment.write(SCRIPT)
    running = experiment.start("--experiment-id", "live", "--all-tasks")
    wait_for(lambda: is_shown_as_running(experiment), "the long job runs")
    wait_for(lambda: len(experiment.completed_in_journal()) == 20, "the quick ones are done")
    out = experiment.output
    assert "running" in longhaul("list", out)[1]
    shown = json.loads(longhaul("show", "long", "live", out, "--json")[1])
    assert shown["state"] == "in_progress"
    assert [one["outcome"] for one in shown["attempts"]] == ["running"]
    assert longhaul("failures", "live", out)[0] == 0
    code, text, _ = longhaul("verify", "live", "-d", out)
    assert code == 0, text
    assert "not compared: a run goes on" in text
    assert longhaul("rm", "live", "--yes", "-d", out)[0] == 69
    states = [
        json.loads(line)["state"] for line in longhaul("results", "-f", "jsonl", "-d", out)[1].splitlines()
    ]
    assert states == ["completed"] * 20 + ["in_progress"]

    page = experiment.folder / "report.html"
    assert longhaul("report", "live", "-d", out, "-o", page)[0] == 0
    assert "Running: 20 of 21 jobs completed, none failed so far" in page.read_text(encoding="utf-8")

    following = lines_of(experiment, "output", "long", "--follow")
    watching = lines_of(experiment, "status", "--watch")
    assert following.stdout is not None and watching.stdout is not None
    assert following.stdout.readline() == "first words\n"
    assert watching.stdout.readline().startswith("trial live: running")
    (experiment.folder / "go").touch()
    assert running.wait(60) == 0
    said, complaint = following.communicate(timeout=60)
    assert (said, complaint, following.returncode) == ("last words\n", "", 0)
    said, complaint = watching.communicate(timeout=60)
    assert "last minute: " in said
    assert "trial live: finished" in said and complaint == "" and watching.returncode == 0
    assert longhaul("verify", "live", "-d", out)[0] == 0


def test_the_output_of_a_second_attempt_is_followed_under_a_heading(
    experiment: Experiment, longhaul: Longhaul
) -> None:
    experiment.write("""
        def evaluate():
            note("ran")
            print("attempt", current_job().attempt, flush=True)
            if current_job().attempt == 1:
                raise ValueError
            while not Path("go").exists():
                time.sleep(0.01)

        if __name__ == "__main__":
            main(evaluate, [Job(id="long")], name="trial", workers=1, retries=1)
    """)
    running = experiment.start("--experiment-id", "live")
    wait_for(lambda: is_shown_as_running(experiment), "the second attempt runs")
    following = lines_of(experiment, "output", "long", "--follow")
    assert following.stdout is not None
    first = [following.stdout.readline() for _ in range(4)]
    assert first == ["attempt 1\n", "\n", "--- attempt 2 ---\n", "attempt 2\n"]
    (experiment.folder / "go").touch()
    assert running.wait(60) == 0
    assert following.communicate(timeout=60) == ("", "")
    log = (experiment.output / "live" / "output" / "long.log").read_text()
    assert log == "".join(first)
    assert longhaul("output", "long", "-d", experiment.output)[1] == log


def test_a_watch_ends_when_the_supervisor_is_killed(experiment: Experiment) -> None:
    experiment.write(SCRIPT)
    running = experiment.start("--experiment-id", "live", "--all-tasks")
    wait_for(lambda: is_shown_as_running(experiment), "the long job runs")
    watching = lines_of(experiment, "status", "--watch")
    following = lines_of(experiment, "output", "long", "--follow")
    assert watching.stdout is not None and following.stdout is not None
    assert following.stdout.readline() == "first words\n"
    watching.stdout.readline()
    running.kill()
    said, _ = watching.communicate(timeout=60)
    assert "trial live: died" in said and watching.returncode == 0
    assert following.communicate(timeout=60)[1] == "" and following.returncode == 0
    running.communicate()


def test_nothing_is_written_by_looking(experiment: Experiment, longhaul: Longhaul) -> None:
    """A kill leaves a torn world; looking at it leaves it as it is."""
    experiment.write(SCRIPT)
    running = experiment.start("--experiment-id", "live", "--all-tasks")
    wait_for(lambda: len(experiment.completed_in_journal()) == 20, "the quick ones are done")
    running.kill()
    running.communicate()
    wait_for(lambda: not experiment.processes(), "its processes are gone")
    before = {path: path.read_bytes() for path in experiment.output.rglob("*") if path.is_file()}
    for words in (["list"], ["status"], ["failures"], ["show", "long"], ["output", "long"], ["memory"]):
        assert longhaul(*words, "-d", experiment.output)[0] == 0
    assert longhaul("verify", "-d", experiment.output)[0] == 0
    assert "unfinished" in longhaul("list", experiment.output)[1]
    assert {path: path.read_bytes() for path in experiment.output.rglob("*") if path.is_file()} == before


def test_a_run_that_was_stopped_in_the_middle_of_a_job_verifies(
    experiment: Experiment, longhaul: Longhaul
) -> None:
    experiment.write(SCRIPT)
    running = experiment.start("--experiment-id", "live", "--all-tasks", "--grace", "0")
    wait_for(lambda: is_shown_as_running(experiment), "the long job runs")
    wait_for(lambda: len(experiment.completed_in_journal()) == 20, "the quick ones are done")
    running.send_signal(signal.SIGINT)
    running.communicate()
    assert experiment.final()["long"]["seconds"] > 0
    code, text, _ = longhaul("verify", "-d", experiment.output)
    assert code == 0, text


def test_watching_and_json_are_refused_together(outputs: Path, longhaul: Longhaul) -> None:
    code, _, err = longhaul("status", outputs, "--watch", "--json")
    assert code == 2
    assert err == (
        "error: --watch and --json do not go together: ask for --json as often as you like, "
        "or follow the progress file\n"
    )


def test_a_job_that_grows_is_measured_before_the_next_sample_is_due(
    experiment: Experiment, longhaul: Longhaul
) -> None:
    experiment.write("""
        def evaluate(megabytes):
            block = b"x" * (megabytes << 20)
            journal = next(Path("out/logs").glob("journal_*"))
            while megabytes and b'"type":"sampled"' not in journal.read_bytes():
                time.sleep(0.01)

        if __name__ == "__main__":
            import supervisor.engines.resource_monitor
            supervisor.engines.resource_monitor.USAGE_EVERY = 0.05
            jobs = [Job(id=f"{size} MB", params={"megabytes": size}) for size in (0, 256)]
            main(evaluate, jobs, name="trial", workers=1, max_jobs_per_worker=1)
    """)
    done = experiment.run("--experiment-id", "night")
    assert done.returncode == 0, done.stderr
    use = json.loads(longhaul("memory", "-d", experiment.output, "--json")[1])
    (attempt,) = use["attempts"]
    assert attempt["job"] == "256 MB"
    assert 192 << 20 < attempt["peak_rss"] < 400 << 20  # it may have been caught while it grew
    assert attempt["peak_at"]
    assert ["0 MB"] in [worker["jobs"] for worker in use["workers"]]  # never sampled: known by its worker
    assert " at " in longhaul("show", "256 MB", "-d", experiment.output)[1]


def test_a_job_that_is_larger_than_its_samples_has_the_mark_of_its_worker(
    experiment: Experiment, longhaul: Longhaul
) -> None:
    experiment.write("""
        def evaluate(megabytes):
            block = b"x" * (megabytes << 20)
            time.sleep(0.1)

        if __name__ == "__main__":
            jobs = [Job(id=f"{size} MB", params={"megabytes": size}) for size in (256, 1, 300)]
            main(evaluate, jobs, name="trial", workers=1)
    """)
    done = experiment.run("--experiment-id", "night", "--only", "1*")
    assert done.returncode == 0, done.stderr
    _, nothing, _ = longhaul("memory", "-d", experiment.output)
    assert "no memory use of single jobs was recorded" in nothing
    assert "peaks of whole workers:" in nothing and "its last jobs were 1 MB" in nothing
    assert experiment.run("--resume", "night", "--only", "256*").returncode == 0
    code, text, _ = longhaul("memory", "-d", experiment.output)
    row = next(line for line in text.splitlines() if "256 MB" in line)
    assert code == 0 and row.split()[1:4] == ["exact", "256", "MB"]
    assert "exact: the high-water mark of the job" in text
    shown = longhaul("show", "256 MB", "-d", experiment.output, "--json")[1]
    (one,) = json.loads(shown)["attempts"]
    assert one["peak_from"] == "mark" and 256 << 20 < one["peak_rss"] < 330 << 20
    assert "M (exact)" in longhaul("show", "256 MB", "-d", experiment.output)[1]


ODD_ENDS = """
    import math
    from supervisor import run

    def evaluate(number):
        if number == 1:
            raise ValueError(number)
        return {"loss": math.nan, "range": [-math.inf, math.inf], "text": "NaN"}

    def from_a_prompt():
        def inner(number):
            raise ValueError(number)
        run(inner, [Job(id="x", params={"number": 1})], name="inner", output="out", progress=False)

    if __name__ == "__main__":
        if "PROMPT" in os.environ:
            from_a_prompt()
        else:
            main(evaluate, [Job(id=f"n{n}", params={"number": n}) for n in range(2)], name="trial", workers=1)
"""


def test_numbers_that_json_lacks_are_shown_as_results_print_them(
    experiment: Experiment, longhaul: Longhaul
) -> None:
    experiment.write(ODD_ENDS)
    experiment.run("--experiment-id", "night")
    text = '{"loss":nan,"range":[-inf,inf],"text":"NaN"}'
    assert f"result   {text}\n" in longhaul("show", "n0", "-d", experiment.output)[1]
    played = subprocess.run(
        [sys.executable, "-m", "supervisor", "replay", "n0", "-d", str(experiment.output)],
        env=experiment.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0 and text in played.stderr, played.stderr
    assert "the same result as in the record" in played.stderr


def test_the_debugger_is_suggested_only_where_a_job_can_be_played_again(
    experiment: Experiment, longhaul: Longhaul
) -> None:
    experiment.write(ODD_ENDS)
    experiment.run("--experiment-id", "night")
    assert "longhaul replay --pdb n1" in longhaul("failures", "-d", experiment.output)[1]
    experiment.run(env={**experiment.environment(), "PROMPT": "1"})
    text = longhaul("failures", "latest", "-d", experiment.output)[1]
    assert "longhaul show x" in text and "replay" not in text


@pytest.mark.parametrize("over", [True, False])
def test_an_attempt_that_has_ended_is_not_shown_again_when_the_progress_file_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], over: bool
) -> None:
    worker = SimpleNamespace(job="long", worker=0, incarnation=3, attempt=2, since="since")
    progress = SimpleNamespace(workers=[worker], saved_at="now")
    monkeypatch.setattr(output, "read_progress", lambda layout: progress)
    monkeypatch.setattr(output, "is_running", lambda layout: True)
    monkeypatch.setattr(output, "seconds_since", lambda since, now: 9.0)
    ends = SimpleNamespace(attempts=0, over=False, job_is_over=lambda: False)
    log, scratch = (
        Path(place) for place in (log_path(str(tmp_path), "long"), scratch_path(str(tmp_path), 0, 3))
    )
    log.write_text("first\n")
    scratch.write_text("second\n")
    reader = output._Reader(SimpleNamespace(output_directory=tmp_path), "long", ends)  # type: ignore[arg-type]
    reader.show_new()
    reader.show_new()
    whole = b"first\n\n--- attempt 2 ---\nsecond\n"
    assert capfdbinary.readouterr().out == whole
    log.write_bytes(whole)  # it has ended, and another job has begun to print
    scratch.write_text("of another job\n")
    ends.attempts, ends.over = 1, over
    reader.show_new()
    reader.show_new()
    assert capfdbinary.readouterr().out == b""
