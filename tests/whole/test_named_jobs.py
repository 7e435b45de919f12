"""`--only` on a script that would run one job per domain, and how a run that left jobs is told."""

from __future__ import annotations

from pathlib import Path

from supervisor.system.capacity.cpu_limits import shared_cores, usable_cores
from tests.experiment_fixture import Experiment, longhaul

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
    done = longhaul("status", "latest", str(experiment.output))
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(experiment: Experiment) -> str:
    return longhaul("list", str(experiment.output)).stdout


def matching(experiment: Experiment, begin: str) -> int:
    return sum(job.startswith(begin) for job in experiment.executions())


def test_only_finds_what_no_pilot_would_have(experiment: Experiment) -> None:
    write(experiment)
    done = experiment.run("--only", "wine/knn/*", "--only", "iris/tree/2")
    assert done.returncode == 0, done.stderr
    assert sorted(experiment.executions()) == ["iris/tree/2", "wine/knn/0", "wine/knn/1", "wine/knn/2"]
    (refused,) = experiment.refused([("--only", "beer/*")])
    assert refused.returncode == 2
    assert "--only beer/*: no job of the script matches; ids look like 'iris/tree/0'" in refused.stderr


def test_only_finds_jobs_whose_ids_are_made_of_their_params(experiment: Experiment) -> None:
    write(experiment, ids=False)
    done = experiment.run("--only", "wine/number=1*")
    assert done.returncode == 0, done.stderr
    assert sorted(experiment.executions()) == ["wine/number=1,model=knn", "wine/number=1,model=tree"]


ODD_IDS = """
    def evaluate(layers, name="x"):
        note("ran")
        return layers

    def jobs():
        yield {"layers": [64, 32], "name": "a*b"}
        yield {"layers": [64, 32], "name": "aab"}
        for name in ("T1", "T[1,1]", "what?", "whats", "[x", "code:old", "no!"):
            yield Job(id=name, params={"layers": []})

    if __name__ == "__main__":
        main(evaluate, jobs, name="trial", workers=2)
"""


def test_an_id_means_that_job_alone_whatever_is_in_it(experiment: Experiment) -> None:
    """Ids that are made of params have brackets, which in a pattern are a choice of letters."""
    experiment.write(ODD_IDS)
    names = ["layers=[64,32],name=a*b", "T[1,1]", "what?", "[x", "code:old"]
    done = experiment.run(*(word for name in names for word in ("--only", name)))
    assert done.returncode == 0, done.stderr
    assert sorted(experiment.executions()) == sorted(names)
    assert experiment.run("--resume", "latest").returncode == 0
    assert len(experiment.executions()) == 9
    done = experiment.run("--resume", "latest", *(word for name in names for word in ("--rerun", name)))
    assert sorted(experiment.executions()[9:]) == sorted(names), done.stderr
    (done,) = experiment.refused([("--debug", "T[1,1]")])  # it makes nothing either
    assert "running T[1,1] " in done.stderr
    assert "1 of 1 jobs completed" in done.stderr


def test_what_is_no_id_is_a_pattern(experiment: Experiment) -> None:
    experiment.write(ODD_IDS)
    assert experiment.run("--only", "T[12]", "--only", "n[!x]!").returncode == 0
    assert sorted(experiment.executions()) == ["T1", "no!"]
    (refused,) = experiment.refused([("--only", "T[a-")])
    assert refused.returncode == 2


def test_what_was_named_once_stays_in_the_experiment(experiment: Experiment) -> None:
    """`--only` runs every job that it names, not one of each domain."""
    write(experiment)
    done = experiment.run("--only", "wine/*")
    assert done.returncode == 0, done.stderr
    experiment.all_ran(f"wine/{m}/{n}" for m in ("tree", "knn") for n in range(3))
    assert "6 of 18 jobs, chosen by --only" in done.stderr
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


def test_a_run_that_leaves_jobs_and_the_list_say_the_same(experiment: Experiment) -> None:
    write(experiment)
    done = experiment.run("--all-tasks", "--only", "wine/*")
    assert done.returncode == 0, done.stderr
    assert f"{experiment.experiment_id()}: unfinished after" in done.stderr
    assert "12 jobs left out by --only" in done.stderr
    assert "  unfinished  " in experiment.run("--list-checkpoints").stdout
    assert experiment.statistics()["state"] == "unfinished"
    assert experiment.journal()[-1]["state"] == "unfinished"
    done = experiment.run("--resume", "latest")
    assert f"{experiment.experiment_id()}: finished after" in done.stderr
    assert "  finished  " in listed(experiment)


def test_a_pilot_is_done_in_the_summary_as_in_the_list(experiment: Experiment) -> None:
    """And new jobs of the script are told apart from those that the pilot has left out."""
    write(experiment)
    assert ": pilot done after" in experiment.run().stderr
    (refused,) = experiment.refused([("--resume", "latest", "--rerun", "wine/knn/*")])
    assert refused.returncode == 2
    assert "--only runs jobs that the pilot left out" in refused.stderr
    assert "pilot done, of 18" in listed(experiment)
    assert "pilot done, " in status(experiment)
    experiment.script.write_text(experiment.script.read_text().replace("range(3)", "range(4)"))
    done = experiment.run("--resume", "latest", "--all-tasks")
    assert done.returncode == 0, done.stderr
    assert "now in the plan: 15 jobs that the pilot left out" in done.stderr
    assert "new in the plan: 6 jobs" in done.stderr
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
