"""`--only` on a script that would run one job per domain, and how a run that left jobs is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from supervisor.system.capacity.cpu_limits import shared_cores, usable_cores
from tests.experiment_fixture import Experiment

SCRIPT = """
    def evaluate(number):
        note("ran")
        return number

    def jobs():
        for data in ("iris", "wine", "digits"):
            for model in ("tree", "knn"):
                for number in range(3):
                    yield Job(@ID@domain=data, params={"number": number, **@MORE@})

    if __name__ == "__main__":
        main(evaluate, jobs, name="trial", workers=3)
"""


def write(experiment: Experiment, *, ids: bool = True) -> None:
    text = SCRIPT.replace("@ID@", 'id=f"{data}/{model}/{number}", ' if ids else "")
    if not ids:
        text = text.replace("def evaluate(number)", "def evaluate(number, model)")
    experiment.write(text.replace("@MORE@", "{}" if ids else '{"model": model}'))


def status(experiment: Experiment) -> str:
    return subprocess.run(
        [sys.executable, "-m", "supervisor", "status", "latest", str(experiment.output)],
        env=experiment.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def matching(experiment: Experiment, begin: str) -> int:
    return sum(job.startswith(begin) for job in experiment.executions())


def test_only_runs_every_job_of_the_script_that_it_names(experiment: Experiment) -> None:
    write(experiment)
    done = experiment.run("--only", "wine/*")
    assert done.returncode == 0, done.stderr
    assert sorted(experiment.executions()) == sorted(
        f"wine/{m}/{n}" for m in ("tree", "knn") for n in range(3)
    )
    assert "6 of 18 tasks, chosen by --only" in done.stderr


def test_only_finds_what_no_pilot_would_have(experiment: Experiment) -> None:
    write(experiment)
    done = experiment.run("--only", "wine/knn/*", "--only", "iris/tree/2")
    assert done.returncode == 0, done.stderr
    assert sorted(experiment.executions()) == ["iris/tree/2", "wine/knn/0", "wine/knn/1", "wine/knn/2"]
    refused = experiment.run("--only", "beer/*")
    assert refused.returncode == 2
    assert "--only beer/*: no job of the script matches; ids look like 'iris/tree/0'" in refused.stderr


def test_only_finds_jobs_whose_ids_are_made_of_their_params(experiment: Experiment) -> None:
    write(experiment, ids=False)
    done = experiment.run("--only", "wine/number=1*")
    assert done.returncode == 0, done.stderr
    assert sorted(experiment.executions()) == ["wine/number=1,model=knn", "wine/number=1,model=tree"]


def test_what_was_named_once_stays_in_the_experiment(experiment: Experiment) -> None:
    write(experiment)
    assert experiment.run("--only", "wine/*").returncode == 0
    done = experiment.run("--resume", "latest")
    assert "8 of 18 tasks, one per domain and those that --only has named" in done.stderr
    assert "no longer in the plan" not in done.stderr
    assert sorted(experiment.executions()[6:]) == ["digits/tree/0", "iris/tree/0"]
    done = experiment.run("--resume", "latest", "--only", "iris/*")
    assert "now in the plan: 5 jobs that the pilot left out" in done.stderr
    assert "new in the plan" not in done.stderr
    assert matching(experiment, "iris/") == 6
    done = experiment.run("--resume", "latest", "--all-tasks")
    assert "now in the plan: 5 jobs that the pilot left out" in done.stderr
    assert len(experiment.executions()) == len(set(experiment.executions())) == 18
    done = experiment.run("--resume", "latest", "--no-all-tasks")
    assert "3 of 18 tasks, one per domain," in done.stderr


def test_new_jobs_of_the_script_are_told_apart_from_those_of_the_pilot(experiment: Experiment) -> None:
    write(experiment)
    assert experiment.run().returncode == 0
    experiment.script.write_text(experiment.script.read_text().replace("range(3)", "range(4)"))
    done = experiment.run("--resume", "latest", "--all-tasks")
    assert done.returncode == 0, done.stderr
    assert "now in the plan: 15 jobs that the pilot left out" in done.stderr
    assert "new in the plan: 6 jobs" in done.stderr


def test_a_run_that_leaves_jobs_and_the_list_say_the_same(experiment: Experiment) -> None:
    write(experiment)
    done = experiment.run("--all-tasks", "--only", "wine/*")
    assert done.returncode == 0, done.stderr
    assert f"{experiment.experiment_id()}: unfinished after" in done.stderr
    assert "12 jobs left out by --only" in done.stderr
    assert "unfinished" in experiment.run("--list-checkpoints").stdout
    assert experiment.statistics()["state"] == "unfinished"
    assert experiment.journal()[-1]["state"] == "unfinished"
    done = experiment.run("--resume", "latest")
    assert f"{experiment.experiment_id()}: finished after" in done.stderr
    assert "  finished  " in experiment.run("--list-checkpoints").stdout


def test_a_pilot_is_done_in_the_summary_as_in_the_list(experiment: Experiment) -> None:
    write(experiment)
    assert ": pilot done after" in experiment.run().stderr
    refused = experiment.run("--resume", "latest", "--rerun", "wine/knn/*")
    assert refused.returncode == 2
    assert "--only runs jobs that the pilot left out" in refused.stderr
    assert "pilot done, of 18" in experiment.run("--list-checkpoints").stdout
    assert "pilot done, " in status(experiment)
    assert experiment.run("--resume", "latest", "--all-tasks").returncode == 0
    assert "finished, " in status(experiment) and "pilot" not in status(experiment)


def test_workers_that_share_cores_are_told_of(experiment: Experiment) -> None:
    write(experiment)
    cores = usable_cores()
    line = (
        f"{cores + 1} workers on {'1 core' if cores == 1 else f'{cores} cores'}: jobs that compute share them"
    )
    done = experiment.run("--all-tasks", "--workers", str(cores + 1))
    assert line in done.stderr
    assert f"--workers auto starts {cores}" in done.stderr
    assert experiment.statistics()["cores"] == cores
    for words in (["--workers", "auto"], ["--workers", str(cores + 1)]):  # the second has one job to run
        done = experiment.run("--resume", "latest", "--rerun", "wine/knn/0", *words)
        assert "share them" not in done.stderr


def test_how_sharing_is_told() -> None:
    assert shared_cores(2, 2) is None
    assert "on 1 core:" in (shared_cores(2, 1) or "")
    assert 'workers="auto" starts 1' in (shared_cores(2, 1, 'workers="auto"') or "")


def test_a_pilot_is_not_slowed_by_the_ids_of_jobs_that_nobody_named(tmp_path: Path) -> None:
    from supervisor.core.state.job_table import JobTable
    from supervisor.experiment.job_selection import PilotSelection

    pilot = JobTable()
    for domain in ("iris", "wine"):
        pilot.add(f"{domain}/0", domain)
    pick = PilotSelection(all_tasks=False, earlier=pilot)
    assert pick.is_first("iris")
    assert not pick.is_first("iris")
    assert not pick.may_name("iris")
    assert pick.is_first(None)
