"""Which experiment a start goes on with: `latest`, `auto`, and scripts that share a directory."""

from __future__ import annotations

from pathlib import Path
from subprocess import Popen

import pytest

from supervisor.api import run
from supervisor.core.terms.errors import BeingRun
from supervisor.storage.files.lock import Lock
from tests.experiment_fixture import PATIENCE, Experiment, longhaul, wait_for

SCRIPT = """
    def evaluate(number):
        note("ran")
        if number == 2 and os.environ.get("FAIL"):
            raise ValueError(number)
        return number

    if __name__ == "__main__":
        main(evaluate, [Job(id=f"@NAME@/{n}", params={"number": n}) for n in range(4)], name="@NAME@")
"""


def write(experiment: Experiment, name: str) -> None:
    experiment.write(SCRIPT, name=name)


def made(experiment: Experiment, experiment_id: str, only: str) -> None:
    experiment.made(experiment_id, [f"mine/{n}" for n in range(4)], name="mine", only=only)


def ids(experiment: Experiment) -> set[str]:
    return {path.stem.removeprefix("plan_") for path in experiment.output.glob("logs/plan_*")}


def test_scripts_that_share_a_directory_go_on_with_their_own(experiment: Experiment) -> None:
    write(experiment, "mine")
    assert experiment.run("--experiment-id", "a", "--only", "*/0").returncode == 0
    write(experiment, "other")
    done = experiment.run("--experiment-id", "b", "--only", "*/0")
    assert done.returncode == 0
    assert "a is unfinished" not in done.stderr
    write(experiment, "mine")
    done = experiment.run("--resume", "latest", "--only", "*/1")
    assert done.returncode == 0, done.stderr
    write(experiment, "other")
    done = experiment.run("--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert experiment.executions()[:3] == ["mine/0", "other/0", "mine/1"]
    assert sorted(experiment.executions()[3:]) == ["other/1", "other/2", "other/3"]
    done = experiment.run("--experiment-id", "c")
    assert "a is unfinished" not in done.stderr
    write(experiment, "mine")
    done = experiment.run("--experiment-id", "d")
    assert "a is unfinished, with 2 of 4 jobs left; continue it with --resume a" in done.stderr
    (refused,) = experiment.refused([("--resume", "b")])
    assert refused.returncode == 2
    assert "looks like another experiment" in refused.stderr


def test_debugging_takes_the_experiment_that_auto_would_go_on_with(experiment: Experiment) -> None:
    """Its options, its code; where there is none, those of the command line."""
    write(experiment, "mine")
    asked = experiment.run("--resume", "auto", "--debug", "*/1")
    assert asked.returncode == 0, asked.stderr
    assert experiment.run("--experiment-id", "a", "--only", "*/0").returncode == 0
    experiment.script.write_text(experiment.script.read_text().replace('note("ran")', 'note("again")'))
    asked = experiment.run("--resume", "auto", "--debug", "*/1")
    assert asked.returncode == 0, asked.stderr
    assert "changed after the last run of a" in asked.stderr


def test_a_call_with_debug_returns_none_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [{"number": 1}, {"number": 2}]
    assert run(lambda number: number, jobs, name="a", output=tmp_path / "out", debug="number=2") is None
    assert "1 of 1 jobs completed; nothing was recorded" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_auto_starts_goes_on_and_says_when_it_is_finished(experiment: Experiment) -> None:
    write(experiment, "mine")
    environment = {**experiment.environment(), "FAIL": "1"}
    assert experiment.run("--resume", "auto", "--only", "*/[01]").returncode == 0
    assert len(ids(experiment)) == 1
    done = experiment.run("--resume", "auto", env=environment)
    assert done.returncode == 1, done.stderr
    assert len(ids(experiment)) == 1
    assert sorted(experiment.executions()) == [f"mine/{n}" for n in range(4)]
    (only,) = ids(experiment)
    done = experiment.run("--resume", "auto", "--experiment-id", only)
    assert done.returncode == 1  # the experiment's code; auto tries no failed job again
    assert len(experiment.executions()) == 4
    done = experiment.run("--resume", "auto")
    assert done.returncode == 0  # all are finished: a new one
    assert len(ids(experiment)) == 2
    told = f"{only} is finished (3 completed, 1 failed): --resume auto starts a new experiment"
    assert f"{told}; --resume {only} continues" in done.stderr
    write(experiment, "other")
    done = experiment.run("--resume", "auto")
    assert "is finished" not in done.stderr


def test_failures_that_auto_leaves_are_tried_again_as_its_first_line_says(experiment: Experiment) -> None:
    write(experiment, "mine")
    environment = {**experiment.environment(), "FAIL": "1"}
    assert experiment.run("--experiment-id", "a", "--only", "*/2", env=environment).returncode == 1
    done = experiment.run("--resume", "auto")
    assert "1 failed stays as it is (--resume a tries again)" in done.stderr
    assert experiment.executions().count("mine/2") == 1
    done = experiment.run("--resume", "a", "--only", "*/3")
    assert "1 failed stays as it is (left out by --only)" in done.stderr
    assert experiment.run("--resume", "a").returncode == 0
    assert experiment.executions().count("mine/2") == 2


@pytest.mark.parametrize("first", [True, False])
def test_auto_with_an_id_makes_that_experiment_or_goes_on_with_it(
    experiment: Experiment, first: bool
) -> None:
    write(experiment, "mine")
    if not first:
        made(experiment, "night", "*/0")
    assert experiment.run("--resume", "auto", "--experiment-id", "night").returncode == 0
    assert ids(experiment) == {"night"}
    assert sorted(experiment.executions()) == [f"mine/{n}" for n in range(0 if first else 1, 4)]


def test_one_that_cannot_be_used_blocks_neither_auto_nor_the_list(experiment: Experiment) -> None:
    write(experiment, "mine")
    made(experiment, "whole", "*/0")
    made(experiment, "wreck", "*/0")
    checkpoint = experiment.output / "logs" / "checkpoint_wreck.json"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-30])  # its header still tells when it was saved
    (experiment.output / "logs" / "journal_wreck.jsonl").write_bytes(b"nothing that anybody wrote")
    listed = longhaul("list", str(experiment.output))
    assert "wreck" in listed.stdout and "unusable" in listed.stdout and "1 of 4" in listed.stdout
    done = experiment.run("--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert "skips wreck" in done.stderr
    assert sorted(experiment.executions()) == ["mine/1", "mine/2", "mine/3"]
    assert ids(experiment) == {"whole", "wreck"}
    (refused,) = experiment.refused([("--resume", "auto", "--experiment-id", "wreck")])
    assert refused.returncode == 65


def test_the_list_tells_a_pilot_that_is_done_and_what_runs_right_now(experiment: Experiment) -> None:
    experiment.write("""
        def evaluate(number):
            note("ran")
            while os.environ.get("HOLD") and not Path("go").exists():
                time.sleep(0.01)

        if __name__ == "__main__":
            main(evaluate, [Job(domain=f"d{n % 2}", params={"number": n}) for n in range(6)], name="trial")
    """)
    assert experiment.run("--experiment-id", "night").returncode == 0
    assert "pilot done, of 6" in experiment.run("--list-checkpoints").stdout
    directory = str(experiment.output)
    held = {**experiment.environment(), "HOLD": "1"}
    running = experiment.start("--resume", "night", "--all-tasks", env=held)
    wait_for(lambda: len(experiment.executions()) > 2, "the rest has begun")
    assert "running" in longhaul("list", directory).stdout
    (experiment.folder / "go").touch()
    assert running.wait(60) == 0
    listed = longhaul("list", directory).stdout
    assert "finished" in listed and "pilot done" not in listed


TWICE = """
    from supervisor.storage.files.layout import Layout

    def exists(self, really=Layout.exists, looked=[]):
        looked.append(self)
        return len(looked) > 1 and really(self)

    if os.environ.get("LOOKS") == "too early":
        Layout.exists = exists

    def jobs():
        note("asked", "for-jobs")
        if os.environ.get("LOOKS") == "before its jobs":
            while not Path("go").exists():
                time.sleep(0.002)
        return [Job(id=f"job/{n}", params={"number": n}) for n in range(4)]

    def once():
        yield from jobs()

    def evaluate(number):
        note("ran")
        while os.environ.get("HOLD") and not Path("go").exists():
            time.sleep(0.002)

    if __name__ == "__main__":
        main(evaluate, once() if os.environ.get("ONCE") else jobs, name="twice")
"""
NIGHT = ("--experiment-id", "night", "--resume", "auto")


def start_twice(experiment: Experiment, **environment: str) -> Popen[str]:
    return experiment.start(*NIGHT, env={**experiment.environment(), **environment})


def test_auto_that_looked_too_early_is_told_who_runs_the_experiment(experiment: Experiment) -> None:
    """The same command twice at once: the loser looked before the winner had made it."""
    experiment.write(TWICE)
    winner = start_twice(experiment, HOLD="1")
    wait_for(experiment.executions, "the winner has begun")
    loser = start_twice(experiment, LOOKS="too early")
    _, err = loser.communicate(timeout=PATIENCE)
    assert loser.returncode == 69, err
    assert f"night is being run by pid {winner.pid} on " in err
    (experiment.folder / "go").touch()
    assert winner.wait(PATIENCE) == 0


@pytest.mark.parametrize("looks", ["too early", "before its jobs"])
def test_auto_goes_on_with_what_somebody_has_made_and_left_since_it_looked(
    experiment: Experiment, looks: str
) -> None:
    experiment.write(TWICE)
    late = start_twice(experiment, LOOKS=looks) if looks == "before its jobs" else None
    if late is not None:
        wait_for(lambda: experiment.executions("asked"), "it has looked")
    assert experiment.run(*NIGHT, "--only", "*/0").returncode == 0
    (experiment.folder / "go").touch()
    late = late or start_twice(experiment, LOOKS=looks)
    _, err = late.communicate(timeout=PATIENCE)
    assert late.returncode == 0, err
    assert experiment.executions()[0] == "job/0"
    assert sorted(experiment.executions()) == [f"job/{n}" for n in range(4)]
    assert ids(experiment) == {"night"}


def test_jobs_that_can_be_asked_for_only_once_are_not_taken_for_none(experiment: Experiment) -> None:
    """The experiment was made while they were asked for: nothing is lost by starting again."""
    experiment.write(TWICE)
    late = start_twice(experiment, LOOKS="before its jobs", ONCE="1")
    wait_for(lambda: experiment.executions("asked"), "it has looked")
    assert experiment.run(*NIGHT, "--only", "*/0").returncode == 0
    (experiment.folder / "go").touch()
    _, err = late.communicate(timeout=PATIENCE)
    assert late.returncode == 2, err
    assert "--resume night" in err
    assert experiment.executions() == ["job/0"]


def test_run_raises_an_error_of_its_own_for_what_somebody_else_runs(tmp_path: Path) -> None:
    lock = Lock.acquire(tmp_path / "logs" / "lock_night", "night")
    try:
        with pytest.raises(BeingRun) as error:
            run(print, [{"end": ""}], name="twice", output=tmp_path, experiment_id="night", progress=False)
    finally:
        lock.release()
    assert error.value.exit_code == 69


def test_an_id_that_is_taken_tells_who_runs_it(experiment: Experiment) -> None:
    experiment.write(TWICE)
    running = start_twice(experiment, HOLD="1")
    wait_for(experiment.executions, "it has begun")
    meant = [["--resume", word] for word in ("auto", "latest", "night")]
    for done in experiment.refused([["--experiment-id", "night"], NIGHT, *meant]):
        assert done.returncode == 69, done.stderr
        assert f"night is being run by pid {running.pid} on " in done.stderr
    assert [record["run"] for record in experiment.journal() if record["type"] == "run_started"] == [1]
    assert ids(experiment) == {"night"}
    (experiment.folder / "go").touch()
    assert running.wait(PATIENCE) == 0
    (refused,) = experiment.refused([("--experiment-id", "night")])
    assert "nothing is overwritten" in refused.stderr
