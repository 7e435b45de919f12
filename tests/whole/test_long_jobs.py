"""Long jobs that save what they have and say how far they are, in whole programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.experiment_fixture import PATIENCE, Experiment, wait_for

STEPS = """
    from workers import Interrupted

    def jobs():
        yield Job(id="long/one", params={})

    def step(number):
        note(f"step{number}")

    def work():
        job = current_job()
        state = job.load() or {"done": 0}
        note(f"from{state['done']}")
        for number in range(state["done"], 6):
            step(number)
            job.save({"done": number + 1})
            job.report((number + 1) / 6, step=number)
            if number == 2 and not Path("go on").exists():
                @WAIT@
        return state["done"]

    if __name__ == "__main__":
        main(work, jobs, name="long", workers=1, all_tasks=True)
"""
WAIT = """
                while not job.stopping:
                    time.sleep(0.01)
                raise Interrupted("stopping")
"""


def write(experiment: Experiment, wait: str) -> None:
    experiment.write(STEPS.replace("@WAIT@", wait.strip()))


def words(experiment: Experiment) -> list[str]:
    if not experiment.executions_file.exists():
        return []
    return [line.split()[0] for line in experiment.executions_file.read_text().splitlines()]


def states(experiment: Experiment) -> list[Path]:
    return sorted(experiment.output.glob("*/states/[!.]*"))


def resume(experiment: Experiment, *arguments: str) -> None:
    (experiment.folder / "go on").touch()
    done = experiment.run("--resume", "latest", *arguments)
    assert done.returncode == 0, done.stderr


def ended(experiment: Experiment) -> list[tuple[str, int]]:
    return [(r["outcome"], r["attempt"]) for r in experiment.journal() if r["type"] == "ended"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment whose job was stopped by Ctrl+C in its third step. Each test goes on with a copy."""
    experiment = Experiment(tmp_path_factory.mktemp("interrupted"))
    write(experiment, WAIT)
    process = experiment.start()

    def shown() -> Any:
        try:
            workers = json.loads(experiment.path("progress").read_text())["workers"]
        except (OSError, ValueError):
            return None
        return [w for w in workers if w.get("fraction") is not None]

    (worker,) = wait_for(shown, "a fraction in the progress file")
    assert worker["job"] == "long/one" and worker["slow"] is False
    assert worker["fraction"] == (worker["metrics"]["step"] + 1) / 6
    wait_for(lambda: "step2" in words(experiment), "the third step")
    wait_for(lambda: states(experiment))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert ended(experiment) == [("interrupted", 1)]
    assert len(states(experiment)) == 2
    return experiment.folder


@pytest.fixture
def stopped(interrupted: Path, experiment: Experiment) -> Experiment:
    shutil.copytree(interrupted, experiment.folder, dirs_exist_ok=True)
    return experiment


def test_a_job_saves_on_ctrl_c_and_goes_on_where_it_was(stopped: Experiment) -> None:
    """And what it reports is in the progress file: see `interrupted`."""
    experiment = stopped
    resume(experiment)
    assert words(experiment) == ["from0", *(f"step{n}" for n in range(3)), "from3", "step3", "step4", "step5"]
    assert experiment.final()["long/one"]["result"] == 3
    assert not (experiment.output / experiment.experiment_id() / "states").exists(), "dropped"


def test_after_kill_minus_nine_of_everything_it_goes_on_where_it_was(experiment: Experiment) -> None:
    write(experiment, "time.sleep(1000)")
    process = experiment.start()
    wait_for(lambda: "step2" in words(experiment))
    wait_for(lambda: states(experiment) and '"done":3' in "".join(p.read_text() for p in states(experiment)))
    process.kill()
    wait_for(lambda: not experiment.processes())
    resume(experiment)
    assert words(experiment)[4:] == ["from3", "step3", "step4", "step5"]


def test_a_job_that_kills_its_worker_goes_on_in_the_next_one(experiment: Experiment) -> None:
    write(experiment, 'Path("go on").touch(); os.kill(os.getpid(), 9)')
    done = experiment.run()
    assert done.returncode == 0, done.stderr
    assert words(experiment)[4:] == ["from3", "step3", "step4", "step5"]
    assert ended(experiment) == [("crashed", 1), ("completed", 2)]


def test_without_records_states_work_and_nothing_stays(experiment: Experiment) -> None:
    write(experiment, 'Path("go on").touch(); os.kill(os.getpid(), 9)')
    done = experiment.run("--no-resume", "--experiment-id", "e1")
    assert done.returncode == 0, done.stderr
    assert words(experiment)[4:] == ["from3", "step3", "step4", "step5"]
    assert sorted(os.listdir(experiment.output / "e1")) == ["logs_final.json", "statistics.json"]


def test_a_job_that_runs_anew_finds_no_state(stopped: Experiment) -> None:
    experiment = stopped
    (kept,) = (path for path in states(experiment) if '"done":3' in path.read_text())
    text = kept.read_bytes()
    resume(experiment)
    kept.parent.mkdir()
    kept.write_bytes(text)  # as if the run had been killed before it was dropped
    resume(experiment, "--rerun", "*")
    assert words(experiment)[-7:] == ["from0", *(f"step{n}" for n in range(6))]


def test_a_damaged_state_is_told_and_the_one_before_is_used(stopped: Experiment) -> None:
    experiment = stopped
    (newest,) = (path for path in states(experiment) if '"save":3' in path.read_text())
    newest.write_bytes(newest.read_bytes()[:-5])
    (experiment.folder / "go on").touch()
    done = experiment.run("--resume", "latest")
    assert done.returncode == 0
    assert "warning: saved state of long/one: long%2Fone.json is damaged and set aside" in done.stderr
    assert "the job goes on with save 2" in done.stderr
    assert words(experiment)[4] == "from2"
    (note,) = (r for r in experiment.journal() if r["type"] == "noted" and r["what"] == "job_notice")
    assert note["detail"]["job"] == "long/one"


YIELDS = """
    from workers import Interrupted

    def jobs():
        for name in ("patient", "hopeless", "third"):
            yield Job(id=name, params={"name": name})

    def work(name):
        note("ran")
        if name == "hopeless" or name == "patient" and current_job().attempt < 3:
            raise Interrupted("later")

    if __name__ == "__main__":
        import supervisor.core.dispatch.ledger as ledger
        ledger.INTERRUPTED_WAIT = 0.01
        main(work, jobs, name="yields", workers=1, all_tasks=True)
"""


def test_a_job_that_interrupts_itself_runs_again_but_not_for_ever(experiment: Experiment) -> None:
    experiment.write(YIELDS)
    done = experiment.run()
    assert done.returncode == 1, done.stderr
    final = experiment.final()
    assert {name: entry["state"] for name, entry in final.items()} == {
        "patient": "completed",
        "hopeless": "failed",
        "third": "completed",
    }
    assert experiment.executions().count("patient") == 3
    assert experiment.executions().count("hopeless") == 11
    error = final["hopeless"]["error"]
    assert (error["outcome"], error["message"]) == ("raised", "later")


def test_a_million_reports_and_a_large_result_get_through(experiment: Experiment) -> None:
    experiment.write(
        """
        import threading

        def jobs():
            for number in range(4):
                yield Job(id=f"job/{number}", params={})

        def hammer():
            while True:
                current_job()._next_report = 0.0
                current_job().report(0.5, x="y" * 100)

        def work():
            threading.Thread(target=hammer, daemon=True).start()
            return "x" * 3_000_000

        if __name__ == "__main__":
            main(work, jobs, name="loud", workers=2, all_tasks=True)
        """
    )
    done = experiment.run()
    assert done.returncode == 0, done.stderr
    assert experiment.statistics()["crashes"] == 0
    assert [len(entry["result"]) for entry in experiment.final().values()] == [3_000_000] * 4
