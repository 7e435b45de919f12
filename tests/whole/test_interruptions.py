"""Interrupt it, kill it, resume it: every job is completed with the right result, and none
that was recorded as completed runs again."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.conftest import some
from tests.experiment_fixture import PATIENCE, Experiment, wait_for

SQUARES = """
    def jobs():
        for number in range(@JOBS@):
            yield Job(id=f"square/{number}", domain=f"d{number % 4}", params={"number": number})

    def evaluate(number):
        note("ran")
        while number >= @HOLD@ and not Path("go").exists() and not current_job().stopping:
            time.sleep(0.01)
        time.sleep(@SECONDS@)
        return {"square": number * number}

    if __name__ == "__main__":
        main(evaluate, jobs, name="squares", workers=3, all_tasks=True)
"""


def squares(experiment: Experiment, jobs: int, seconds: float, *, hold: int | None = None) -> None:
    """Jobs from `hold` on last until the run is being stopped, or until `let_go`."""
    text = SQUARES.replace("@JOBS@", str(jobs)).replace("@SECONDS@", str(seconds))
    experiment.write(text.replace("@HOLD@", str(jobs if hold is None else hold)))


def let_go(experiment: Experiment) -> None:
    (experiment.folder / "go").touch()


def check_squares(experiment: Experiment, jobs: int) -> None:
    final = experiment.final()
    assert len(final) == jobs
    for number in range(jobs):
        entry = final[f"square/{number}"]
        assert entry["state"] == "completed"
        assert entry["result"] == {"square": number * number}


def test_a_run_from_start_to_end_leaves_every_result_and_nothing_alive(experiment: Experiment) -> None:
    squares(experiment, 12, 0.01)
    done = experiment.run()
    assert done.returncode == 0, done.stderr
    check_squares(experiment, 12)
    experiment.all_ran(f"square/{n}" for n in range(12))
    assert experiment.checkpoint()["counts"]["completed"] == 12
    assert experiment.statistics()["counts"]["completed"] == 12
    assert not experiment.processes()


def test_ctrl_c_drains_and_resume_does_the_rest_only(experiment: Experiment) -> None:
    squares(experiment, 30, 0.01, hold=8)
    process = experiment.start()
    # Until each worker is at a job that lasts: none may begin in the very moment of the signal.
    wait_for(lambda: len(experiment.completed_in_journal()) == 8 and len(set(experiment.executions())) == 11)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert "--resume" in err
    before = set(experiment.completed_in_journal())
    assert len(before) == 11
    ran_before = len(experiment.executions())
    assert set(experiment.executions()) == before  # a drain lets running jobs finish
    let_go(experiment)
    done = experiment.run("--resume", "latest")
    assert done.returncode == 0, done.stderr
    check_squares(experiment, 30)
    assert not before & set(experiment.executions()[ran_before:])


# SIGTERM: as well in `test_after_the_grace_time_what_still_runs_is_cut`.
@pytest.mark.parametrize("signum", some([signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM], 2))
def test_other_signals_drain_too_and_the_process_dies_of_them(experiment: Experiment, signum: int) -> None:
    squares(experiment, 40, 0.01, hold=6)
    process = experiment.start()
    wait_for(lambda: len(experiment.completed_in_journal()) >= 3)
    process.send_signal(signum)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signum
    assert experiment.checkpoint()["counts"]["completed"] >= 3
    assert not experiment.processes()


@pytest.mark.parametrize(("ignored", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGHUP, 0)])
def test_of_signals_ignored_at_the_start_only_a_hang_up_stays_ignored(
    experiment: Experiment, ignored: int, status: int
) -> None:
    """A script's `&` starts programs with SIGINT ignored, `nohup` with SIGHUP."""
    squares(experiment, 12, 0.01, hold=6)
    process = experiment.start(preexec_fn=lambda: signal.signal(ignored, signal.SIG_IGN))
    wait_for(lambda: len(experiment.completed_in_journal()) >= 3)
    process.send_signal(ignored)
    if ignored == signal.SIGHUP:
        let_go(experiment)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, err
    assert (experiment.checkpoint()["counts"]["completed"] == 12) == (ignored == signal.SIGHUP)


def test_without_a_record_ctrl_c_drains_and_promises_no_resume(experiment: Experiment) -> None:
    squares(experiment, 12, 0.01, hold=6)
    process = experiment.start("--no-resume")
    wait_for(lambda: len(experiment.executions()) >= 4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT, err
    assert "--resume" not in err
    (final,) = experiment.output.glob("*/logs_final.json")
    assert '"completed"' in final.read_text()
    assert not (experiment.output / "logs").exists()


def test_sigquit_shows_where_all_workers_are_and_disturbs_nobody(experiment: Experiment) -> None:
    squares(experiment, 3, 0.0, hold=0)
    process = experiment.start(preexec_fn=lambda: signal.signal(signal.SIGQUIT, signal.SIG_IGN))
    wait_for(lambda: len(experiment.executions()) == 3)
    (log,) = experiment.output.glob("*/supervisor.log")
    process.send_signal(signal.SIGQUIT)
    wait_for(lambda: log.read_text().count("in evaluate") == 3, "the stacks of three workers")
    let_go(experiment)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    for text in (err, log.read_text()):
        for worker in range(3):
            assert f"stacks of worker {worker}" in text
        assert text.count("in evaluate") == 3
    check_squares(experiment, 3)


SLOW = """
    if __name__ == "__mp_main__" and @IMPORT@:
        note("importing", "-")
        time.sleep(60)

    def jobs():
        note("planning", "-")
        time.sleep(@PLAN@)
        return [Job(id="one", params={})]

    def setup():
        note("setting_up", "-")
        time.sleep(@SETUP@)

    def evaluate():
        note("ran")

    if __name__ == "__main__":
        main(evaluate, jobs, name="slow", setup=setup)
"""


# Each phase with each method, and each signal; planning is over before a method is used.
EARLY = [
    ("planning", "zygote", signal.SIGINT),
    ("importing", "zygote", signal.SIGTERM),
    ("setting_up", "zygote", signal.SIGINT),
    ("importing", "spawn", signal.SIGINT),
    ("setting_up", "spawn", signal.SIGTERM),
]
OTHERS = [
    (phase, method, signum)
    for phase in ("planning", "importing", "setting_up")
    for method in ("zygote", "spawn")
    for signum in (signal.SIGINT, signal.SIGTERM)
    if (phase, method, signum) not in EARLY
]


@pytest.mark.parametrize(("phase", "method", "signum"), some(EARLY + OTHERS, len(EARLY)))
def test_what_takes_long_before_the_first_job_is_not_waited_for(
    experiment: Experiment, phase: str, method: str, signum: int
) -> None:
    text = SLOW.replace("@IMPORT@", str(phase == "importing"))
    text = text.replace("@PLAN@", "60" if phase == "planning" else "0")
    experiment.write(text.replace("@SETUP@", "60" if phase == "setting_up" else "0"))
    process = experiment.start("--start-method", method)
    wait_for(lambda: experiment.executions(phase))
    began = time.monotonic()
    process.send_signal(signum)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signum, err
    assert time.monotonic() - began < 15.0  # neither the minute nor the grace time of jobs
    assert "Traceback" not in err
    assert not experiment.executions("ran")
    assert experiment.output.exists() == (phase != "planning")
    assert not experiment.processes()


def test_a_second_ctrl_c_stops_now_and_the_cut_jobs_are_in_progress(experiment: Experiment) -> None:
    squares(experiment, 6, 1000.0)
    process = experiment.start("--grace", "1000")
    wait_for(lambda: len(experiment.executions()) == 3)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: '"drain"' in experiment.path("journal").read_text())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    counts = experiment.checkpoint()["counts"]
    assert (counts["in_progress"], counts["pending"]) == (3, 3)
    assert len(experiment.checkpoint()["in_progress"]) == 3
    assert not experiment.processes()


def test_after_the_grace_time_what_still_runs_is_cut(experiment: Experiment) -> None:
    squares(experiment, 3, 1000.0)
    process = experiment.start("--grace", "0.5")
    wait_for(lambda: len(experiment.executions()) == 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGTERM
    assert experiment.checkpoint()["counts"]["in_progress"] == 3


def test_any_mixture_of_kills_and_resumes_completes_every_job_once_recorded(experiment: Experiment) -> None:
    jobs = 30
    squares(experiment, jobs, 0.05)
    rng = random.Random(20251014)
    arguments: list[str] = []
    recorded: set[str] = set()
    for _ in range(25):
        position = len(experiment.executions())
        process = experiment.start(*arguments, "--workers", str(rng.choice([1, 2, 4])))
        target = min(jobs, len(recorded) + rng.randint(1, 9))
        wait_for(
            lambda p=process, t=target: (
                p.poll() is not None or len(set(experiment.completed_in_journal())) >= t
            )
        )
        trouble = rng.choice(["int", "term", "kill", "worker", "worker"])
        if process.poll() is None and trouble == "worker":
            for pid in experiment.processes()[:2]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        elif process.poll() is None:
            process.send_signal(
                {"int": signal.SIGINT, "term": signal.SIGTERM, "kill": signal.SIGKILL}[trouble]
            )
        if trouble == "worker":
            wait_for(
                lambda p=process, t=target: (
                    p.poll() is not None or len(set(experiment.completed_in_journal())) >= min(jobs, t + 5)
                )
            )
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        wait_for(lambda: not experiment.processes(), "processes outlived their supervisor")
        again = recorded & set(experiment.executions()[position:])
        assert not again, f"recorded as completed and run again: {again}"
        recorded = set(experiment.completed_in_journal())
        arguments = ["--resume", "latest"]
        if process.returncode == 0:
            break
    final = experiment.run("--resume", "latest", "--workers", "4")
    assert final.returncode == 0, final.stderr
    check_squares(experiment, jobs)
    completed = experiment.completed_in_journal()
    assert len(completed) == len(set(completed)) == jobs


def test_a_ctrl_c_that_a_wrapper_doubles_drains_and_does_not_stop(experiment: Experiment) -> None:
    squares(experiment, 6, 0.0, hold=0)
    # On a busy machine there may be more than some milliseconds between the two.
    patience = "from supervisor.session import loop\nloop.SAME_KEYSTROKE = 2.0\n\nif __name__"
    experiment.script.write_text(experiment.script.read_text().replace("if __name__", patience, 1))
    process = experiment.start()
    wait_for(lambda: len(experiment.executions()) == 3)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    counts = experiment.checkpoint()["counts"]
    assert (counts["completed"], counts["in_progress"]) == (3, 0)
