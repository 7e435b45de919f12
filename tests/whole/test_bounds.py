"""Bounds in the whole program: early ends, stalled jobs, niceness, bad values."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.experiment_fixture import PATIENCE, Experiment, wait_for

SCRIPT = """
    def jobs():
        for number in range(12):
            yield Job(id=f"job/{number}", params={"number": number})

    def evaluate(number):
        note("ran")
        @BODY@
        return number

    if __name__ == "__main__":
        main(evaluate, jobs, name="bounds", workers=2, grace=2)
"""


def write(experiment: Experiment, body: str) -> None:
    experiment.write(SCRIPT.replace("@BODY@", body))


def test_a_plainly_broken_experiment_stops_says_why_and_can_be_resumed(experiment: Experiment) -> None:
    # Of those that could still begin each waits for the drain: it may come late.
    body = """while number >= 6 and not os.path.exists("mended") and not current_job().stopping:
            time.sleep(0.01)
        assert os.path.exists("mended")"""
    write(experiment, body)
    done = experiment.run("--max-failures", "3")
    assert done.returncode == 75, done.stderr
    assert re.search(r"stopped early: \d+ jobs have failed \(--max-failures 3\)", done.stderr), done.stderr
    assert "resume:" in done.stderr
    assert 3 <= len(experiment.executions()) < 12
    (ended,) = [record for record in experiment.journal() if record["type"] == "run_ended"]
    assert (ended["state"], ended["exit_code"]) == ("stopped", 75)
    (experiment.folder / "mended").touch()
    again = experiment.run("--resume", "latest")
    assert again.returncode == 0, again.stderr
    assert experiment.checkpoint()["settings"]["max_failures"] == "3"


def test_a_deadline_ends_the_run_in_time_and_the_rest_runs_on_a_resume(experiment: Experiment) -> None:
    write(experiment, "time.sleep(0.7 if number < 6 else 0)\n        assert not current_job().stopping")
    done = experiment.run("--deadline", "8.5s", "--workers", "1", "--rate", "1/s")
    assert done.returncode == 76, done.stderr
    assert "the deadline is at" in done.stderr
    assert "stopped early" in done.stderr
    before = len(experiment.executions())
    assert 1 <= before < 12
    again = experiment.run("--resume", "latest", "--deadline", "none", "--rate", "none")
    assert again.returncode == 0, again.stderr
    assert len(experiment.final()) == 12


def told_while_it_stands_still(experiment: Experiment, stall: str, words: str) -> str:
    """`stand_still` waits at a pipe, without any CPU, until the run has told so; what was said."""
    os.mkfifo(experiment.folder / "pipe")
    stand_still = 'def stand_still():\n    open("pipe").close()\n\n'
    text = experiment.script.read_text()
    experiment.script.write_text(text.replace("def evaluate", f"{stand_still}def evaluate"))
    process = experiment.start("--stall", stall)
    log = wait_for(lambda: next(iter(experiment.output.glob("*/supervisor.log")), None))
    wait_for(lambda: words in log.read_text())
    with open(experiment.folder / "pipe", "w"):
        pass
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert words in err and "job/0 has used no CPU for" in err
    return err


def test_a_stalled_job_is_told_with_its_stack_and_goes_on_undisturbed(experiment: Experiment) -> None:
    write(experiment, "if number == 0:\n            stand_still()")
    err = told_while_it_stands_still(experiment, "1s", "in stand_still")
    assert "  used no CPU for long (--stall): job/0\n" in err
    noted = [record for record in experiment.journal() if record.get("what") == "stalled"]
    assert [record["detail"]["job"] for record in noted] == ["job/0"]
    assert experiment.final()["job/0"]["attempts"] == 1


def test_a_job_that_took_the_signal_away_is_not_killed_by_being_looked_at(experiment: Experiment) -> None:
    write(
        experiment,
        "import signal\n        signal.signal(signal.SIGQUIT, signal.SIG_DFL)\n"
        "        if number == 0:\n            stand_still()",
    )
    told_while_it_stands_still(experiment, "0.5s", "job/0 has used no CPU for")
    assert experiment.final()["job/0"]["attempts"] == 1


def test_while_memory_is_short_nothing_is_started_and_a_drain_ends_the_wait(experiment: Experiment) -> None:
    write(experiment, "pass")
    process = experiment.start("--keep-free", "900T")
    log = wait_for(lambda: next(iter(experiment.output.glob("*/supervisor.log")), None))
    wait_for(lambda: "less than" in log.read_text())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert "(--keep-free)" in err
    assert experiment.executions() == []
    assert "low_memory" in [record.get("why") for record in experiment.journal()]
    assert experiment.run("--resume", "latest", "--keep-free", "1M").returncode == 0


def test_workers_are_as_nice_as_asked_for_and_go_first_when_memory_runs_out(experiment: Experiment) -> None:
    write(experiment, 'return [os.nice(0), int(Path("/proc/self/oom_score_adj").read_text())]')
    before = int(Path("/proc/self/oom_score_adj").read_text())
    base = os.nice(0)
    done = experiment.run("--nice", "7")
    assert done.returncode == 0, done.stderr
    for entry in experiment.final().values():
        niceness, score = entry["result"]
        assert niceness == min(19, base + 7)
        assert score > before


BAD_BOUNDS = [
    (["--memory-limit", "much"], ["--memory-limit much", "400M"]),
    (["--memory-limit", "9" * 400 + "G"], ["--memory-limit 9", "too large a number"]),
    (["--timeout", "9" * 400 + "-1:00:00"], ["--timeout 9", "too large a number"]),
    (["--memory-limit", "0"], ["--memory-limit 0", "at least 1M"]),
    (["--keep-free", "1Q"], ["--keep-free 1Q", "2G"]),
    (["--nice", "20"], ["--nice 20", "at most 19"]),
    (["--rate", "fast"], ["--rate fast", "10/s"]),
    (["--rate", "0/s"], ["--rate 0/s", "10/s"]),
    (["--max-failures", "0"], ["--max-failures 0", "5%"]),
    (["--deadline", "25:00"], ["--deadline 25:00", "07:30"]),
    (["--deadline", "3s"], ["--deadline 3s", "--grace"]),
    (["--stall", "0"], ["--stall 0", "more than 0 s"]),
    (["--backoff", "soon"], ["--backoff soon", "15m"]),
    (["--retry-timeouts", "-1"], ["--retry-timeouts -1", "at least 0"]),
]


def test_bad_bounds_are_refused_and_nothing_is_made(experiment: Experiment) -> None:
    write(experiment, "pass")
    answers = experiment.refused(arguments for arguments, _ in BAD_BOUNDS)
    for (arguments, words), done in zip(BAD_BOUNDS, answers, strict=True):
        assert (done.returncode, done.made) == (2, False), (arguments, done.stderr)
        for word in words:
            assert word in done.stderr
        assert "Traceback" not in done.stderr
