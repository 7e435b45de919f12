"""Bad input: one clear message, the right exit code, no traceback, nothing overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from supervisor import UsageError, run
from tests.experiment_fixture import PATIENCE, Experiment, wait_for

SCRIPT = """
    def jobs():
        @JOBS@

    def evaluate(number):
        note("ran")
        time.sleep(@SECONDS@)
        return number

    if __name__ == "__main__":
        main(evaluate, jobs, name="refused", all_tasks=True)
"""


def text(jobs: str, seconds: float = 0.0) -> str:
    return SCRIPT.replace("@JOBS@", jobs).replace("@SECONDS@", str(seconds))


def write(experiment: Experiment, jobs: str, seconds: float = 0.0) -> None:
    experiment.write(text(jobs, seconds))


GOOD_JOBS = 'return [Job(id=f"job/{n}", params={"number": n}) for n in range(4)]'


BAD_OPTIONS = [
    (["--workers", "0"], ["--workers", "0"]),
    (["--workers", "many"], ["--workers", "many"]),
    (["--worker", "2"], ["--worker", "--workers"]),
    (["--resume", "nowhere"], ["nowhere", "there are none. Start without --resume"]),
    (["--resume", "latest"], ["No checkpoints found to resume from", "Start without --resume"]),
    (["--experiment-id", "../../x"], ["../../x"]),
    (["--experiment-id", ""], ["empty"]),
    (["--timeout", "soon"], ["--timeout", "soon"]),
    (["--timeout", "0"], ["--timeout"]),
    (["--grace", "-1"], ["--grace"]),
    (["--retries", "-1"], ["--retries"]),
    (["--resume", "x", "--no-resume"], ["--resume", "--no-resume"]),
    (["--rerun", "*"], ["--rerun", "--resume"]),
    (["--only", "nothing/*"], ["nothing/*"]),
    (["--start-method", "fork"], ["--start-method", "fork"]),
    (["--job-cpus", "0"], ["--job-cpus 0"]),
    (["--job-memory", "much"], ["--job-memory much"]),
    (["--job-gpus", "1.5"], ["--job-gpus 1.5"]),
    (["--memory", "5"], ["--memory 5"]),
    (["--gpus", "0,,1"], ["--gpus 0,,1"]),
    (["--resource", "license"], ["--resource license", "NAME=N"]),
]


def test_bad_options_are_refused_and_nothing_is_made(experiment: Experiment) -> None:
    write(experiment, GOOD_JOBS)
    answers = experiment.refused(arguments for arguments, _ in BAD_OPTIONS)
    for (arguments, words), done in zip(BAD_OPTIONS, answers, strict=True):
        assert (done.returncode, done.made) == (2, False), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in done.stderr
    assert not experiment.executions()
    # And a start of its own, in no fork of another process.
    arguments, words = BAD_OPTIONS[0]
    alone = experiment.run(*arguments)
    assert (alone.returncode, alone.stdout, alone.stderr) == (2, "", answers[0].stderr)
    assert not experiment.output.exists()


BAD_PLANS = [
    ("return []", ["no jobs"]),
    ('return [Job(id="same", params={"number": n}) for n in (1, 2)]', ["same", "1", "2"]),
    ('return [Job(id="a", params={"number": {1, 2}})]', ["'a'", "/number"]),
    ('return [Job(id="a", params={"number": float("nan")})]', ["'a'", "/number"]),
    ('return [Job(id="a", params={"number": {1: 2}})]', ["'a'"]),
    ('return [Job(id="a", params={"numbr": 1})]', ["'a'", "numbr"]),
    ("return [('number', 1)]", ["Job("]),
    ("return 7", ["int"]),
    ('return [Job(id="", params={"number": 1})]', ["id"]),
]


def test_a_plan_that_cannot_be_run_is_refused_and_nothing_is_made(experiment: Experiment) -> None:
    scripts = [text(jobs) for jobs, _ in BAD_PLANS]
    for (jobs, words), done in zip(BAD_PLANS, experiment.refused([()] * len(scripts), scripts), strict=True):
        assert (done.returncode, done.made) == (2, False), (jobs, done.stderr)
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in done.stderr


def test_an_experiment_that_exists_is_not_overwritten(experiment: Experiment) -> None:
    """D7: whatever the clock or the user calls it."""
    write(experiment, GOOD_JOBS)
    assert experiment.run("--experiment-id", "mine").returncode == 0
    before = {path: path.read_bytes() for path in experiment.output.rglob("*.json*")}
    done = experiment.run("--experiment-id", "mine")
    assert done.returncode == 2
    assert "--resume mine" in done.stderr
    assert before == {path: path.read_bytes() for path in experiment.output.rglob("*.json*")}


def test_results_without_a_record_are_not_overwritten_either(experiment: Experiment) -> None:
    write(experiment, GOOD_JOBS)
    assert experiment.run("--experiment-id", "mine", "--no-resume").returncode == 0
    results = experiment.output / "mine"
    before = {path: path.read_bytes() for path in results.iterdir()}
    assert sorted(path.name for path in before) == ["logs_final.json", "statistics.json"]
    assert [path.name for path in experiment.output.iterdir()] == ["mine"]
    for more in ([], ["--no-resume"], ["--no-resume", "--only", "job/1"]):
        done = experiment.run("--experiment-id", "mine", *more)
        assert done.returncode == 2, done.stderr
        assert str(results) in done.stderr
        assert before == {path: path.read_bytes() for path in results.iterdir()}


def test_two_runs_without_a_record_started_at_once_keep_their_results_apart(experiment: Experiment) -> None:
    write(experiment, GOOD_JOBS)
    both = [experiment.start("--no-resume") for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(list(experiment.output.glob("*/logs_final.json"))) == 2


def test_a_second_supervisor_on_the_same_experiment_is_refused_by_pid(experiment: Experiment) -> None:
    """D6: while the first one runs."""
    write(experiment, GOOD_JOBS, seconds=1000.0)
    first = experiment.start("--experiment-id", "mine")
    wait_for(experiment.executions)
    done = experiment.run("--resume", "mine")
    assert done.returncode == 69, done.stderr
    assert str(first.pid) in done.stderr
    assert "Traceback" not in done.stderr


def test_changed_params_under_an_old_id_are_refused_with_the_difference(experiment: Experiment) -> None:
    write(experiment, GOOD_JOBS)
    assert experiment.run().returncode == 0
    write(experiment, 'return [Job(id=f"job/{n}", params={"number": n + (n == 2)}) for n in range(4)]')
    refused = experiment.run("--resume", "latest")
    assert refused.returncode == 2
    assert "'job/2'" in refused.stderr
    assert "number was 2, is 3" in refused.stderr
    kept = experiment.run("--resume", "latest", "--changed", "keep")
    assert kept.returncode == 0, kept.stderr
    assert experiment.final()["job/2"]["result"] == 2
    again = experiment.run("--resume", "latest", "--changed", "rerun")
    assert again.returncode == 0, again.stderr
    assert experiment.final()["job/2"]["result"] == 3
    assert experiment.executions().count("job/2") == 2


def test_a_plan_without_any_old_id_looks_like_another_experiment(experiment: Experiment) -> None:
    write(experiment, GOOD_JOBS)
    assert experiment.run().returncode == 0
    write(experiment, 'return [Job(id="other", params={"number": 1})]')
    done = experiment.run("--resume", "latest")
    assert done.returncode == 2
    assert "looks like another experiment" in done.stderr


def test_a_directory_that_cannot_be_written_is_73(experiment: Experiment) -> None:
    """D9: a file is in the way."""
    write(experiment, GOOD_JOBS)
    (experiment.folder / "file").write_text("in the way")
    process = experiment.start("--output", str(experiment.folder / "file" / "out"))
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 73, err
    assert str(experiment.folder / "file") in err
    assert "Traceback" not in err
    process = experiment.start("--no-resume", "--output", str(experiment.folder / "file" / "out"))
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 73, err
    assert str(experiment.folder / "file") in err


def test_an_output_that_is_a_file_is_73_before_anything_happens(experiment: Experiment) -> None:
    write(experiment, GOOD_JOBS)
    file = experiment.folder / "file"
    file.write_text("in the way")
    before = sorted(experiment.folder.rglob("*"))
    kinds = ((), ("--no-resume",), ("--list-checkpoints",), ("--detach",))
    starts = [(name, str(file), *words) for words in kinds for name in ("--output", "--longhaul-output")]
    for (name, *words), done in zip(starts, experiment.refused(starts), strict=True):
        assert done.returncode == 73, (words, done.stderr)
        assert f"error: {name} {file} is a file" in done.stderr
        if name == "--output":
            assert "parser=" in done.stderr and "--longhaul-output" in done.stderr
    assert sorted(experiment.folder.rglob("*")) == before


PARSES_ITSELF = """
    import argparse

    def jobs():
        return [Job(id="a"), Job(id="b")]

    def evaluate():
        return 1

    if __name__ == "__main__":
        parser = argparse.ArgumentParser()
        parser.add_argument("--output", default="summary.json")
        options, _ = parser.parse_known_args()
        main(evaluate, jobs, name="trial")
"""


def test_an_output_that_the_script_takes_for_a_file_is_a_wrong_option(experiment: Experiment) -> None:
    experiment.write(PARSES_ITSELF)
    before = sorted(experiment.folder.rglob("*"))
    done = experiment.run("--output", "summary.json")
    assert done.returncode == 2, done.stderr
    assert "--output summary.json is called like a file" in done.stderr
    assert sorted(experiment.folder.rglob("*")) == before


def test_a_directory_may_be_called_like_a_file(experiment: Experiment) -> None:
    write(experiment, GOOD_JOBS)
    for name in ("runs.json", "runs.txt/", "runs.v1"):
        assert experiment.run("--output", name).returncode == 0


def test_a_script_without_the_guard_is_told_about_it(experiment: Experiment) -> None:
    """P14: each worker would start the run again."""
    experiment.write(text(GOOD_JOBS).replace('    if __name__ == "__main__":\n        main(', "    main("))
    done = experiment.run()
    assert done.returncode == 75, done.stderr
    assert '__name__ == "__main__"' in done.stderr
    assert not experiment.executions()


def test_a_run_inside_a_job_is_refused_where_the_job_calls_it(experiment: Experiment) -> None:
    experiment.write(
        """
        from supervisor import run

        def evaluate(number):
            return run(print, [Job(id="inner", params={})], name="inner").counts.total

        if __name__ == "__main__":
            main(evaluate, [Job(id="outer", params={"number": 1})], name="outer")
        """
    )
    assert experiment.run().returncode == 1
    error = experiment.final()["outer"]["error"]
    assert "by a job" in error["message"]
    assert error["where"].startswith("exp.py:")
    assert not (experiment.folder / "data").exists()


def test_a_list_that_nobody_reads_to_its_end_is_no_error(experiment: Experiment) -> None:
    write(experiment, GOOD_JOBS)
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, str(experiment.script), "--list-checkpoints"],
        cwd=experiment.folder,
        env=experiment.environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert "Traceback" not in process.stderr, process.stderr


def test_an_import_error_in_the_workers_is_told_in_their_own_words(experiment: Experiment) -> None:
    """P14: and the run can be resumed when it is mended."""
    write(experiment, GOOD_JOBS)
    experiment.script.write_text(
        experiment.script.read_text()
        + '\nif __name__ == "__mp_main__":\n    raise ImportError("no model here")\n'
    )
    done = experiment.run()
    assert done.returncode == 75, done.stderr
    assert "no model here" in done.stderr
    assert "--resume" in done.stderr


def test_a_symlinked_checkpoint_stays_a_symlink(experiment: Experiment, tmp_path: Path) -> None:
    """D8: over a resume."""
    write(experiment, GOOD_JOBS)
    assert experiment.run("--only", "job/0").returncode == 0
    path = experiment.path("checkpoint")
    elsewhere = tmp_path / "elsewhere.json"
    os.rename(path, elsewhere)
    path.symlink_to(elsewhere)
    assert experiment.run("--resume", "latest").returncode == 0
    assert path.is_symlink()
    assert experiment.checkpoint()["counts"]["completed"] == 4


@pytest.mark.parametrize(("jobs", "keywords"), [([(1, 2)], {}), ([{"n": 1}], {"retires": 2})])
def test_what_is_wrong_in_a_call_of_run_is_shown_at_the_call(
    jobs: list[Any], keywords: dict[str, Any], tmp_path: Path
) -> None:
    """Of our own modules there is one line, and no chain of errors."""
    with pytest.raises(UsageError) as caught:
        run(print, jobs, name="wrong", output=tmp_path / "out", start_method="spawn", **keywords)
    *_, call, own = traceback.extract_tb(caught.tb)
    assert (call.filename, own.name) == (__file__, "run")
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert not (tmp_path / "out").exists()
