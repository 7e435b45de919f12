"""Which code each result was made by: the script, its modules, over several runs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.reports.report import load
from tests.conftest import some
from tests.experiment_fixture import Experiment, longhaul

WALK = """
    import mylib
    import package.part

    def evaluate(n):
        import lazy
        return [mylib.VALUE, package.part.VALUE, lazy.VALUE]

    if __name__ == "__main__":
        jobs = [Job(id=f"job/{n}", params={"n": n}) for n in range(4)]
        main(evaluate, jobs, name="walk", all_tasks=True, workers=2)
"""
OLDER = Path(__file__).resolve().parent.parent / "storage" / "older"


@pytest.fixture
def walk(experiment: Experiment) -> Experiment:
    """A script and what it imports: a module, one of a package, and one in its jobs alone."""
    (experiment.folder / "package").mkdir()
    experiment.write(WALK)
    for name in ("mylib", "package/part", "lazy"):
        edit(experiment, name, 1)
    return experiment


def edit(experiment: Experiment, name: str, value: int) -> None:
    """With a time of its own: Python takes a file of the same size and second for that of its bytecode."""
    path = experiment.folder / f"{name}.py"
    path.write_text(f"VALUE = {value}\n")
    os.utime(path, (1e9 + value, 1e9 + value))


def run(experiment: Experiment, *arguments: str) -> str:
    """What it says on a terminal."""
    done = experiment.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def again(experiment: Experiment, *arguments: str) -> str:
    return run(experiment, "--resume", "latest", *arguments)


def warnings(said: str) -> list[str]:
    return [line.partition("warning: ")[2] for line in said.splitlines() if "warning: " in line]


def rows(experiment: Experiment) -> list[dict[str, Any]]:
    with load(experiment.output) as report:
        return report.rows()


def command(experiment: Experiment, *words: str) -> str:
    done = longhaul(*words, "-d", str(experiment.output))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", some(["lazy", "mylib", "package/part"], 1))
def test_a_module_that_is_mended_is_noticed_and_its_results_can_be_told_and_repeated(
    walk: Experiment, name: str
) -> None:
    run(walk)
    (old,) = {row["code"] for row in rows(walk)}
    assert re.fullmatch("[0-9a-f]{8}", old)
    assert warnings(again(walk)) == []
    edit(walk, name, 2)
    file = name.rpartition("/")[2] + ".py"
    told = f"{file} changed after 3 results; they are kept; --rerun '*' repeats them"
    assert warnings(again(walk, "--rerun", "job/1")) == [told]
    found = {row["job"]: (sum(row["result"]), row["code"]) for row in rows(walk)}
    new = found["job/1"][1]
    assert new != old and found == {
        **{f"job/{n}": (3, old) for n in range(4)},
        "job/1": (4, new),
    }
    assert {job: entry["code"] for job, entry in walk.final().items()} == {
        job: made_by for job, (_, made_by) in found.items()
    }
    assert walk.statistics()["code"] == {old: 3, new: 1}
    reminder = (
        f"3 of the 4 results were made by code {old} (before {file} changed), 1 by {new}; --rerun "
        f"code:{old} repeats the 3, --accept-code keeps them and ends this reminder"
    )
    assert warnings(again(walk)) == [reminder]
    assert warnings(again(walk, "--rerun", f"code:{old[:5]}")) == []
    assert {(sum(row["result"]), row["code"]) for row in rows(walk)} == {(4, new)}
    assert walk.executions_file.exists() is False
    assert warnings(again(walk)) == []
    edit(walk, name, 1)
    assert len(warnings(again(walk, "--rerun", "code:old"))) == 0
    assert {(sum(row["result"]), row["code"]) for row in rows(walk)} == {(3, old)}, "the same code again"


def test_an_editable_install_is_the_users_code_and_an_installed_package_is_not(
    experiment: Experiment,
) -> None:
    installed, source = experiment.folder / "lib" / "site-packages", experiment.folder / "src"
    for folder in (installed, source):
        folder.mkdir(parents=True)
    (installed / "editable.pth").write_text(f"{source}\n")  # as pip makes it
    experiment.write(
        f"""
        import site
        site.addsitedir({str(installed)!r})
        import of_mine
        import of_others

        def evaluate():
            return of_mine.VALUE + of_others.VALUE

        if __name__ == "__main__":
            main(evaluate, [Job(id="a")], name="walk")
        """
    )
    edit(experiment, "src/of_mine", 1)
    edit(experiment, "lib/site-packages/of_others", 1)
    run(experiment)
    edit(experiment, "lib/site-packages/of_others", 2)
    assert warnings(again(experiment)) == []
    edit(experiment, "src/of_mine", 2)
    (told,) = warnings(again(experiment))
    assert told.startswith("of_mine.py changed after 1 result;")


def test_a_change_after_another_one_is_told_with_the_first(walk: Experiment) -> None:
    run(walk, "--only", "job/0")
    (old,) = {row["code"] for row in rows(walk) if row["code"]}
    edit(walk, "mylib", 2)
    again(walk, "--only", "job/0")
    edit(walk, "lazy", 2)
    told = "lazy.py and mylib.py changed after 1 result; they are kept; --rerun '*' repeats them"
    assert warnings(again(walk)) == [told]
    assert len({row["code"] for row in rows(walk)}) == 2
    (said,) = warnings(again(walk))
    assert said.startswith(
        f"1 of the 4 results was made by code {old} (before lazy.py and mylib.py changed), 3 by"
    )
    assert f"\ncode     {old}, before lazy.py and mylib.py changed\n" in command(walk, "show", "job/0")
    edit(walk, "package/part", 2)
    (said,) = warnings(again(walk))
    assert said.startswith("part.py changed after 4 results; they are kept; 1 by code")
    assert f"1 by code {old} (before lazy.py, mylib.py and part.py changed), 3 by code " in said
    walk.path("checkpoint").unlink()
    assert f"{old}, before lazy.py, mylib.py and part.py changed\n" in command(walk, "show", "job/0")


def test_what_is_accepted_survives_checkpoints_and_a_journal_that_is_written_anew(walk: Experiment) -> None:
    run(walk)
    edit(walk, "mylib", 2)
    again(walk, "--rerun", "job/0")
    assert "results of earlier code are taken as good: 3 by code" in again(walk, "--accept-code")
    assert warnings(again(walk)) == []
    found = [row["code"] for row in rows(walk)]
    walk.path("journal").unlink()
    said = warnings(again(walk))
    assert [words for words in said if "results were made" in words] == []
    assert [row["code"] for row in rows(walk)] == found and len(set(found)) == 2
    walk.path("checkpoint").unlink()
    assert not any("results were made" in words for words in warnings(again(walk)))
    assert [row["code"] for row in rows(walk)] == found
    edit(walk, "lazy", 2)
    assert any("lazy.py changed after 4 results" in words for words in warnings(again(walk)))


def test_a_version_that_is_not_there_is_refused_with_those_that_are(walk: Experiment) -> None:
    run(walk)
    (old,) = {row["code"] for row in rows(walk)}
    words = ("--accept-code", "--no-resume", "--resume", "latest", "--rerun", "code:zzz")
    answers = walk.refused([words[2:], words[:1], words[:2]])
    assert [done.returncode for done in answers] == [2, 2, 2]
    assert f"there are {old} (4 results, the code of now)" in answers[0].stderr


def test_ids_that_begin_like_a_version_are_ids(experiment: Experiment) -> None:
    experiment.write("""
        def evaluate(n):
            note("ran")

        if __name__ == "__main__":
            main(evaluate, [Job(id=f"code:{n}", params={"n": n}) for n in "ab"], name="walk", all_tasks=True)
    """)
    run(experiment)
    again(experiment, "--rerun", "code:a")
    assert sorted(experiment.executions()) == ["code:a", "code:a", "code:b"]


def test_names_and_versions_are_a_union_that_only_narrows(walk: Experiment) -> None:
    run(walk)
    edit(walk, "mylib", 2)
    again(walk, "--rerun", "job/0")
    again(walk, "--rerun", "code:old", "--only", "job/[01]")
    assert [row["result"][0] for row in rows(walk)] == [2, 2, 1, 1]
    again(walk, "--rerun", "code:old", "--rerun", "job/0")
    assert [row["result"][0] for row in rows(walk)] == [2, 2, 2, 2]
    attempts = [entry["attempts"] for entry in walk.final().values()]
    assert attempts == [3, 2, 2, 2]


def test_show_and_results_tell_what_a_job_came_to_before(walk: Experiment) -> None:
    """Results have a last column in tables only if there are several versions."""
    run(walk)
    (old,) = {row["code"] for row in rows(walk)}
    assert f"\ncode     {old}\n" in command(walk, "show", "job/1")
    head, *_ = command(walk, "results", "-f", "table").splitlines()
    assert "code" not in head
    text = command(walk, "results", "-f", "csv")
    head_of_csv, first, *_ = list(csv.reader(io.StringIO(text)))
    assert head_of_csv[-1] == "code" and first[-1] == old
    edit(walk, "mylib", 2)
    again(walk, "--rerun", "job/1")
    new = rows(walk)[1]["code"]
    said = command(walk, "show", "job/1")
    assert f"result   [2,1,1]\ncode     {new}, that of the last run\n" in said
    assert f"before   [1,1,1], by code {old}, before mylib.py changed\n" in said
    assert f"\ncode     {old}, before mylib.py changed\n" in command(walk, "show", "job/2")
    document = json.loads(command(walk, "show", "job/1", "--json"))
    assert document["code"] == new
    assert [(one["code"], one["result"]) for one in document["attempts"]] == [
        (old, [1, 1, 1]),
        (new, [2, 1, 1]),
    ]
    head, *_ = command(walk, "results", "-f", "table").splitlines()
    assert head.split()[-1] == "code"


def test_an_experiment_of_an_older_longhaul_is_shown_with_unknown_code(experiment: Experiment) -> None:
    logs = experiment.output / "logs"
    shutil.copytree(OLDER, logs)
    (experiment.output / "older").mkdir()
    assert {row["code"] for row in rows(experiment)} == {None}
    assert [sum(row.get("result.value", 0) for row in rows(experiment))] == [70]
    assert "code     unknown: an older longhaul" in command(experiment, "show", "job/1")
    script = """
from supervisor import Job, main


def evaluate(n):
    if n == 3:
        raise ValueError("three")
    return {"value": n * 10}


if __name__ == "__main__":
    jobs = [Job(id=f"job/{n}", params={"n": n}) for n in range(5)]
    main(evaluate, jobs, name="walk", all_tasks=True)
"""
    experiment.script.write_text(script[1:])
    words = ("--resume", "latest", "--no-retry-failed")
    assert warnings(experiment.run(*words).stderr) == []
    assert warnings(experiment.run(*words).stderr) == []
    experiment.script.write_text(script[1:].replace("n == 3", "n < 0"))
    said = warnings(experiment.run("--resume", "latest", "--retry-failed").stderr)
    assert said == ["evaluate changed after 4 results; they are kept; --rerun '*' repeats them"]
    found = {row["job"]: row["code"] for row in rows(experiment)}
    new = found.pop("job/3")
    assert new is not None and set(found.values()) == {None}
    (said_then,) = warnings(experiment.run("--resume", "latest").stderr)
    assert "4 of the 5 results were made by code of which no version was recorded" in said_then
    assert f", 1 by {new}; --rerun code:unknown repeats the 4" in said_then
    assert experiment.run("--resume", "latest", "--rerun", "code:unknown").returncode == 0
    assert {row["code"] for row in rows(experiment)} == {new}


def test_a_replay_and_a_debugging_session_say_what_has_changed(walk: Experiment) -> None:
    run(walk)
    words = [sys.executable, "-m", "supervisor", "replay", "job/1", "-d", str(walk.output)]

    def replayed() -> str:
        return subprocess.run(
            words, env=walk.environment(), capture_output=True, text=True, check=True
        ).stderr

    assert "changed" not in replayed()
    edit(walk, "mylib", 2)
    edit(walk, "lazy", 2)
    assert "lazy.py and mylib.py have changed since the last run" in replayed()
    said = run(walk, "--debug", "job/1", "--resume", "latest")
    assert "lazy.py and mylib.py changed after the last run" in said
    again(walk, "--rerun", "job/0")
    said = replayed()
    (old,) = {row["code"] for row in rows(walk)[1:]}
    assert f"the record is of code {old}, before lazy.py and mylib.py changed" in said
    assert "since the last run" not in said
