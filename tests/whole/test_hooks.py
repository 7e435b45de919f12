"""`--on-finish` and `--on-failure`: when they run, what they get, and what they cannot do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.experiment_fixture import Experiment, wait_for
from tests.failures.observing import is_gone

SCRIPT = """
    def evaluate(n):
        note("ran")
        if n < 0:
            raise ValueError("negative")
        while n > 9 and not current_job().stopping:
            time.sleep(0.01)
        return n

    if __name__ == "__main__":
        numbers = json.loads(os.environ["NUMBERS"])
        main(evaluate, [Job(id=f"job/{n}", params={"n": n}) for n in numbers], name="@NAME@", workers=1)
    """


@pytest.fixture
def hooked(experiment: Experiment) -> Experiment:
    experiment.write(SCRIPT)
    return experiment


def environment(experiment: Experiment, *numbers: int) -> dict[str, str]:
    return {**experiment.environment(), "NUMBERS": json.dumps(numbers)}


def both(experiment: Experiment) -> tuple[str, ...]:
    """Hooks that write down what they get."""
    note = 'cat > "$LONGHAUL_HOOK.json"; env | grep ^LONGHAUL > "$LONGHAUL_HOOK.env"; echo hooked'
    return (
        "--on-finish",
        f"cd {experiment.folder}; {note}",
        "--on-failure",
        f"cd {experiment.folder}; {note}",
    )


def told(experiment: Experiment, hook: str) -> dict[str, Any] | None:
    path = experiment.folder / f"{hook}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def log(experiment: Experiment) -> str:
    return (experiment.output / experiment.experiment_id() / "supervisor.log").read_text()


def test_all_completed_is_a_finish_and_the_files_are_there(hooked: Experiment) -> None:
    done = hooked.run(*both(hooked), env=environment(hooked, 1, 2))
    assert done.returncode == 0, done.stderr
    document = told(hooked, "on-finish")
    assert document is not None
    assert document["counts"]["completed"] == 2
    assert (document["state"], document["exit_code"]) == ("finished", 0)
    assert Path(document["results"]).exists()
    variables = (hooked.folder / "on-finish.env").read_text().splitlines()
    assert f"LONGHAUL_EXPERIMENT_ID={hooked.experiment_id()}" in variables
    assert {"LONGHAUL_COMPLETED=2", "LONGHAUL_FAILED=0", "LONGHAUL_EXIT_CODE=0"} <= set(variables)
    assert told(hooked, "on-failure") is None
    assert "exit code 0 after" in log(hooked)
    assert "\n    hooked" in log(hooked)


def test_failed_jobs_are_a_finish_and_a_failure(hooked: Experiment) -> None:
    assert hooked.run(*both(hooked), env=environment(hooked, 1, -1)).returncode == 1
    assert told(hooked, "on-finish") is not None
    document = told(hooked, "on-failure")
    assert document is not None
    assert document["failures"] == [{"job": "job/-1", "outcome": "raised", "message": "negative"}]


def test_a_run_that_somebody_stops_is_neither_and_the_resume_remembers_the_hooks(hooked: Experiment) -> None:
    process = hooked.start(*both(hooked), env=environment(hooked, 1, 10, 11))
    wait_for(lambda: len(hooked.executions()) == 2)
    process.terminate()
    process.communicate(timeout=60)
    assert told(hooked, "on-finish") is told(hooked, "on-failure") is None
    hooked.script.write_text(hooked.script.read_text().replace("n > 9 and", "False and"))
    assert hooked.run("--resume", "latest", env=environment(hooked, 1, 10, 11)).returncode == 0
    assert told(hooked, "on-finish") is not None


def test_workers_that_do_not_start_are_a_failure_with_its_reason(hooked: Experiment) -> None:
    hooked.script.write_text(
        hooked.script.read_text().replace("workers=1", "workers=1, setup=lambda: open('/nowhere')")
    )
    assert hooked.run(*both(hooked), env=environment(hooked, 1)).returncode == 75
    document = told(hooked, "on-failure")
    assert document is not None
    assert "/nowhere" in document["error"]
    assert document["exit_code"] == 75
    assert told(hooked, "on-finish") is None


def test_a_hook_that_fails_changes_nothing_and_is_told(hooked: Experiment) -> None:
    done = hooked.run("--on-finish", "echo oh no; exit 7", env=environment(hooked, 1))
    assert done.returncode == 0
    assert "exit code 7 after" in done.stderr
    assert "oh no" in log(hooked)


def test_a_hook_that_hangs_is_ended_with_all_that_it_started(hooked: Experiment) -> None:
    pid = hooked.folder / "pid"
    hangs = f"sleep 1000 & echo $! > {pid}; yes | head -c 1000000; wait"
    before = time.monotonic()
    done = hooked.run("--on-finish", hangs, "--hook-timeout", "1", env=environment(hooked, 1))
    assert done.returncode == 0
    assert time.monotonic() - before < 50
    assert "it took too long" in done.stderr

    wait_for(lambda: is_gone(int(pid.read_text())))
    assert len(log(hooked)) < 200_000


def test_ctrl_c_ends_a_hook_and_the_lock_is_free_while_one_runs(hooked: Experiment) -> None:
    begun = hooked.folder / "begun"
    process = hooked.start("--on-finish", f"touch {begun}; sleep 1000", env=environment(hooked, 1))
    wait_for(begun.exists)
    again = hooked.run("--resume", "latest", "--on-finish", "none", env=environment(hooked, 1))
    assert again.returncode == 0, again.stderr
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_wrong_values_are_refused_and_nothing_is_made(hooked: Experiment) -> None:
    wrong = [("--on-finish", " "), ("--hook-timeout", "0"), ("--hook-timeout", "soon")]
    for words, done in zip(wrong, hooked.refused(wrong, NUMBERS="[1]"), strict=True):
        assert (done.returncode, done.made) == (2, False), done.stderr
        assert words[0] in done.stderr
