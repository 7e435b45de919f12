"""Processes that stop, wait and come back late: the others go on, nobody pays for it (P3, P4, P18, P22, P23)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time

import pytest

from tests.conftest import some
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.failures.observing import (
    cgroup,
    go_on,
    is_gone,
    open_gate,
    others_completed,
    outcomes,
    records,
    said,
    standing_still,
    state_of,
    stop,
    wait_until_said,
    write,
)

STALLS = """
    import signal

    def jobs():
        yield Job(id="stalls", params={"what": "@WHAT@"})
        for number in range(@GOOD@):
            yield Job(id=f"good/{number}", params={"what": "", "load": "x" * @LOAD@})

    def stop(job):
        note("stopped", job)
        os.kill(os.getpid(), signal.SIGSTOP)

    def evaluate(what, load=""):
        note("ran")
        if what == "mid-send":
            gate("finish")
            when_main_is_in("_send_long", lambda job: note("sending", job))
            return "x" * 5_000_000
        if what == "before the next":
            when_main_is_in("receive_payload", stop)
        return len(load)

    if __name__ == "__main__":
        main(evaluate, jobs, name="stalls", workers=2)
"""


def test_a_worker_stopped_in_mid_message_holds_up_nobody_and_pays_with_its_deadline(
    experiment: Experiment,
) -> None:
    """P3: `poll` says that there is something to read, and there will never be the rest of it."""
    write(experiment, STALLS.replace("@WHAT@", "mid-send").replace("@LOAD@", "1").replace("@GOOD@", "20"))
    supervisor = experiment.start("--timeout", "3")
    worker = wait_until_said(experiment, "ran", "stalls")
    with standing_still(supervisor.pid):  # so that the pipe fills up
        open_gate(experiment, "finish")
        wait_until_said(experiment, "sending", "stalls")
        stop(worker)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 1, err
    assert [record["job"] for record in records(experiment, "ended")][-1] == "stalls"
    assert outcomes(experiment, "stalls") == ["timed_out"]
    assert is_gone(worker)
    others_completed(experiment, "stalls")


def test_parameters_for_a_stopped_worker_wait_in_the_supervisor(experiment: Experiment) -> None:
    """P4: 5 MB for a pipe that nobody reads from; the other worker gets the rest of the jobs."""
    write(
        experiment,
        STALLS.replace("@WHAT@", "before the next").replace("@LOAD@", "5_000_000").replace("@GOOD@", "5"),
    )
    supervisor = experiment.start()
    worker = wait_until_said(experiment, "stopped", "stalls")
    wait_for(lambda: state_of(worker) == "T")
    wait_for(lambda: len(experiment.completed_in_journal()) == 5, "the other worker did not go on")
    assert state_of(worker) == "T"
    go_on(worker)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    others_completed(experiment)
    assert len(experiment.executions()) == 6


DRAINS = """
    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(40)]

    def evaluate(number):
        note("ran")
        if number >= @GATED_FROM@:
            gate("finish")
        return number

    if __name__ == "__main__":
        main(evaluate, jobs, name="drains", workers=2)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("signum", some([signal.SIGINT, signal.SIGTERM], 1))
def test_signals_while_the_disk_is_waited_for_break_nothing(
    experiment: Experiment, signum: signal.Signals
) -> None:
    """P18: each sync takes 50 ms longer, and the signal comes again and again until the end."""
    write(experiment, DRAINS.replace("@GATED_FROM@", "10"))
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]
    process = experiment.start(wrapper=[*command, "-e", "inject=fdatasync,fsync:delay_exit=50000"])
    wait_for(lambda: len(experiment.completed_in_journal()) >= 3)
    (run,) = records(experiment, "run_started")
    while process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(run["pid"], signum)
        time.sleep(0.005)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signum, err
    assert "Traceback" not in err and "KeyboardInterrupt" not in err
    recorded = set(experiment.completed_in_journal())
    assert set(experiment.checkpoint()["completed"]) == recorded
    before = len(experiment.executions())
    open_gate(experiment, "finish")
    done = experiment.run("--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert not recorded & set(experiment.executions()[before:])
    assert len(experiment.completed_in_journal()) == 40


def test_no_job_pays_for_a_time_in_which_the_supervisor_stood_still(experiment: Experiment) -> None:
    """P22: five seconds, with a timeout of three."""
    write(experiment, DRAINS.replace("@GATED_FROM@", "0").replace("40", "4"))
    supervisor = experiment.start("--timeout", "3")
    wait_for(lambda: len(said(experiment, "ran")) == 2)
    with standing_still(supervisor.pid):
        time.sleep(5.0)  # the one thing here that only time can bring about
    (unpaused,) = wait_for(lambda: records(experiment, "unpaused", why="suspended"))
    assert unpaused["seconds"] > 3.0  # less what the loop would have waited anyway
    open_gate(experiment, "finish")
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    others_completed(experiment)


CLOCK_THAT_STEPS = """
    import datetime, supervisor.system.clock

    def step():  # a day ahead or back, ten times a second
        return 86_400 * (int(time.monotonic() * 10) % 3 - 1)

    class Stepping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(seconds=step())

    def jobs():
        return [Job(id=f"job/{number}") for number in range(40)] + [Job(id="hangs")]

    def evaluate():
        time.sleep(1000 if current_job().id == "hangs" else 0.05)

    if __name__ == "__main__":
        steady = time.time
        time.time = lambda: steady() + step()
        supervisor.system.clock.datetime = Stepping
        main(evaluate, jobs, name="steps", workers=2)
"""


def test_steps_of_the_wall_clock_move_no_deadline(experiment: Experiment) -> None:
    """P22: every timeout is counted on the monotonic clock. (The steps are Python's only: no
    faketime is needed.)"""
    write(experiment, CLOCK_THAT_STEPS)
    done = experiment.run("--timeout", "2")
    assert done.returncode == 1, done.stderr
    assert outcomes(experiment, "hangs") == ["timed_out"]
    others_completed(experiment, "hangs")
    assert len({record["at"][:10] for record in experiment.journal() if "at" in record}) > 1
    assert 2.0 <= experiment.final()["hangs"]["seconds"] < 30.0
    assert 0.0 <= experiment.statistics()["wall_seconds"] < 100.0 * 86_400


FREEZES = """
    import supervisor.engines.worker_process
    supervisor.engines.worker_process.DIE_WITHIN = 0.5

    def jobs():
        return [Job(id="freezes", timeout=@TIMEOUT@)] + [Job(id=f"good/{number}") for number in range(@GOOD@)]

    def evaluate():
        note("ran")
        @BODY@

    if __name__ == "__main__":
        main(evaluate, jobs, name="freezes", workers=2)
"""


def freezes(experiment: Experiment, *, timeout: int | None, good: int, body: str) -> None:
    text = FREEZES.replace("@TIMEOUT@", str(timeout)).replace("@GOOD@", str(good))
    write(experiment, text.replace("@BODY@", body))


def test_a_worker_that_sigkill_does_not_reach_costs_its_slot_for_a_moment_only(
    experiment: Experiment,
) -> None:
    """P23: frozen, so that the signal stays pending. Another worker takes its place; its job is
    over when the process is, not before."""
    body = 'gate("never" if current_job().id == "freezes" else "replaced")'
    freezes(experiment, timeout=2, good=40, body=body)
    with cgroup("freezer") as group:
        supervisor = experiment.start()
        frozen = wait_until_said(experiment, "ran", "freezes")
        (group / "cgroup.procs").write_text(str(frozen))
        (group / "freezer.state").write_text("FROZEN")
        try:
            wait_for(lambda: len({pid for _, pid in said(experiment, "ran")}) == 3, "nobody took its place")
            open_gate(experiment, "replaced")
            wait_for(lambda: len(experiment.completed_in_journal()) == 40)
            assert not is_gone(frozen) and supervisor.poll() is None
            assert outcomes(experiment, "freezes") == []
        finally:
            (group / "freezer.state").write_text("THAWED")
        _, err = supervisor.communicate(timeout=PATIENCE)
        wait_for(lambda: is_gone(frozen))
    assert supervisor.returncode == 1, err
    assert "does not die of SIGKILL" in err
    assert outcomes(experiment, "freezes") == ["timed_out"]
    assert experiment.executions().count("freezes") == 1
    others_completed(experiment, "freezes")


def test_what_does_not_die_holds_up_neither_the_drain_nor_the_resume(experiment: Experiment) -> None:
    """P23: the run ends without it, and says so; the next one does too, and goes on."""
    freezes(experiment, timeout=None, good=4, body='gate("finish")')
    with cgroup("freezer") as group:
        supervisor = experiment.start("--grace", "0.5")
        frozen = wait_until_said(experiment, "ran", "freezes")
        (group / "cgroup.procs").write_text(str(frozen))
        (group / "freezer.state").write_text("FROZEN")
        try:
            supervisor.send_signal(signal.SIGINT)
            _, err = supervisor.communicate(timeout=PATIENCE)
            assert supervisor.returncode == -signal.SIGINT, err
            assert f"(pid {frozen}) does not die of SIGKILL\n" in err
            assert "freezes" in experiment.checkpoint()["in_progress"]
            open_gate(experiment, "finish")
            done = experiment.run("--resume", "latest")
            assert done.returncode == 0, done.stderr
            assert f"do not die of SIGKILL (frozen, or stuck in the kernel): {frozen};" in done.stderr
            assert records(experiment, "paused") == []
        finally:
            (group / "freezer.state").write_text("THAWED")
            wait_for(lambda: is_gone(frozen))
    assert experiment.final()["freezes"]["state"] == "completed"
