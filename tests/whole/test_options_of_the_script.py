"""A script whose own options are called like ours, and whose `finish` wants to see them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import some
from tests.experiment_fixture import PATIENCE, ROOT

SCRIPT = """
    import argparse, json
    from pathlib import Path
    from supervisor import Job, main

    def jobs(args):
        for number in range(4):
            yield Job(id=f"job/{number}", params={"number": number, "seed": args.seed, "timeout": args.timeout})

    def evaluate(number, seed, timeout):
        return [number, seed, timeout]

    def finish(report, args):
        Path(args.output).write_text(json.dumps([args.seed, args.timeout, report.counts.completed]))

    if __name__ == "__main__":
        own = argparse.ArgumentParser(add_help=False)
        own.add_argument("--output", default="summary.json")
        own.add_argument("--seed", type=int, required=True)
        own.add_argument("--timeout", type=float, default=0.5)
        own.add_argument("--resume", action="store_true")
        main(evaluate, jobs, name="trial", parser=own, finish=finish, workers=2)
"""


class Script:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "exp.py").write_text(textwrap.dedent(SCRIPT))

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "exp.py", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr + done.stdout

    def summary(self, name: str) -> object:
        return json.loads((self.folder / name).read_text())


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_its_own_options_are_given_to_it_and_remembered_with_the_experiment(script: Script) -> None:
    said = script.run("--seed", "7", "--output", "mine.json", "--longhaul-output", "out")
    own = "--resume, --output, --timeout, --seed: the script's own here; longhaul's are "
    assert own + "--longhaul-resume, --longhaul-output, --longhaul-timeout, --longhaul-seed" in said
    assert script.summary("mine.json") == [7, 0.5, 4]
    assert (script.folder / "out" / "logs").is_dir()
    found = re.search(r"run some again: .*exp\.py (.*) --rerun GLOB", said)
    assert found is not None
    words = found.group(1).split()
    assert words[:2] == ["--longhaul-output", "out"] and words[2] == "--longhaul-resume"
    (script.folder / "mine.json").unlink()
    said = script.run(*words, "--rerun", "job/1", "--longhaul-timeout", "1m")
    assert script.summary("mine.json") == [7, 0.5, 4]
    assert "the script's own here" not in said


def test_what_is_wrong_is_told_with_the_names_of_this_script(script: Script) -> None:
    assert "error: the following arguments are required: --seed" in script.run(code=2)
    assert "--longhaul-seed x: expected a whole number" in script.run(
        "--seed", "1", "--longhaul-seed", "x", code=2
    )
    script.run("--seed", "7", "--longhaul-output", "out", "--experiment-id", "a")
    words = ("--longhaul-output", "out", "--experiment-id", "a")
    assert "--longhaul-resume a" in script.run("--seed", "7", *words, code=2)
    assert "--longhaul-output DIR" in script.run("--help")
    assert "only" in script.run("--seed", "1", "--longhaul-only", "job/[12]", "--longhaul-workers", "1")


def test_the_longer_names_are_there_without_a_clash(script: Script) -> None:
    words = ["--seed", "1", "--longhaul-output", "o", "--longhaul-experiment-id", "b", "--longhaul-all-tasks"]
    script.run(*words)
    assert (script.folder / "o" / "b" / "logs_final.json").exists()


def test_what_is_said_during_a_run_has_the_names_of_this_script_too(script: Script) -> None:
    file = script.folder / "exp.py"
    text = file.read_text().replace('"--resume", action="store_true"', '"--max-failures", type=int')
    file.write_text(text.replace("    return [number", "    assert number\n    return [number"))
    words = ("--seed", "1", "--longhaul-output", "out", "--longhaul-max-failures", "1", "--workers", "1")
    said = script.run(*words, code=75)
    assert "1 job has failed (--longhaul-max-failures 1)" in said
    assert "(--max-failures 1)" not in said


def test_a_value_that_the_scripts_own_option_refuses_is_told_with_the_name_of_ours(script: Script) -> None:
    said = script.run("--seed", "7", "--timeout", "1s", code=2)
    assert "argument --timeout: invalid float value: '1s'; this is the script's own option" in said
    assert "longhaul's is --longhaul-timeout" in said
    said = script.run("--seed", "7", "--nice", code=2)
    assert "argument --nice" in said and "script's own" not in said


KEPT_TO_ITSELF = """
    import argparse
    from supervisor import main

    def evaluate(number):
        return number

    def arguments():
        own = argparse.ArgumentParser()
        own.add_argument("--timeout", type=float)
        own.add_argument("--output", default="none")
        own.add_argument("--only-mine")
        return own.parse_args()

    def finish(report):
        open(given.output, "w")

    if __name__ == "__main__":
        given = arguments()
        main(evaluate, [{"number": 1}], name="trial", finish=finish, all_tasks=True)
"""


def test_options_that_the_script_has_parsed_itself_are_told(script: Script) -> None:
    (script.folder / "exp.py").write_text(textwrap.dedent(KEPT_TO_ITSELF))
    said = script.run("--timeout", "50")
    assert "warning: --timeout: read by the script itself and by longhaul" in said
    assert "parser=" in said and "--longhaul-timeout" in said
    assert "read by" not in script.run()
    assert "--output results.csv is called like a file" in script.run("--output", "results.csv", code=2)
    assert not (script.folder / "results.csv").exists()


NEVER_PARSED = """
    import argparse
    from supervisor import main

    PARSER = argparse.ArgumentParser()
    PARSER.add_argument("--output")
    PARSER.add_argument("--workers")
    CONFIG = argparse.Namespace(seed=3, workers=4, nice=True)

    def evaluate(number):
        return number

    if __name__ == "__main__":
        main(evaluate, [{"number": 1}], name="trial", all_tasks=True)
"""


def test_a_parser_that_has_parsed_nothing_is_no_reason_to_warn_or_refuse(script: Script) -> None:
    (script.folder / "exp.py").write_text(textwrap.dedent(NEVER_PARSED))
    assert "read by" not in script.run("--workers", "2", "--seed", "4", "--output", "results.zip")
    assert (script.folder / "results.zip" / "logs").is_dir()


# ------------------------------------------------------- scripts from before jobs had needs

NAMED_AS_NEEDS = """
    import argparse, json, sys
    from supervisor import Job, main

    def evaluate(number):
        return number

    def jobs():
        return [Job(id=f"job/{n}", params={"number": n}) for n in range(2)]

    def options(**more):
        own = argparse.ArgumentParser(**more)
        own.add_argument("--memory", type=int, default=4)
        own.add_argument("--gpus", nargs="+", default=[])
        own.add_argument("--resource", choices=["lake", "river"])
        own.add_argument("--resources", action="store_true")
        own.add_argument("--job-cpus-limit")
        return own

    def told(args, *more):
        print(json.dumps([args.memory, args.gpus, args.resource, args.resources, args.job_cpus_limit]))
"""
GIVES_ITS_PARSER = """
    if __name__ == "__main__":
        main(evaluate, lambda args: told(args) or jobs(), name="trial", parser=options(add_help=False))
"""
PARSES_BY_ITSELF = """
    if __name__ == "__main__":
        args, rest = options().parse_known_args()
        told(args)
        main(evaluate, jobs, name="trial", argv=rest)
"""


@pytest.mark.parametrize(
    ("ending", "words"),
    some(
        [
            (GIVES_ITS_PARSER, "--memory 8 --gpus a b --resource lake --resources --job-cpus-limit x"),
            # As argparse has it: shortened, in a parser of the script's own.
            (PARSES_BY_ITSELF, "--mem=8 --g a b --resource=lake --resources --job x"),
            (PARSES_BY_ITSELF, "--memory 8 --gpus a b --resource lake --resources --job-cpus-limit x"),
            (PARSES_BY_ITSELF, "--mem 8 --gpu a b --resource lake --resources --job-cpus x"),
        ],
        2,
    ),
)
def test_a_script_whose_options_are_called_like_what_jobs_need_starts_as_ever(
    tmp_path: Path, ending: str, words: str
) -> None:
    script = Script(tmp_path)
    (tmp_path / "exp.py").write_text(textwrap.dedent(NAMED_AS_NEEDS + ending))
    said = script.run(*words.split(), "--workers", "2")
    assert '[8, ["a", "b"], "lake", true, "x"]' in said
    assert "2 completed, 0 failed" in said
    again = script.run(*words.split(), "--resume", "latest", "--longhaul-memory", "2G")
    assert "2 completed, 0 failed" in again
    plan = next((tmp_path / "data/outputs/trial/logs").glob("checkpoint_*.json"))
    assert json.loads(plan.read_text())["settings"]["memory"] == 2 << 30
    if ending is GIVES_ITS_PARSER:
        assert "longhaul's are --longhaul-memory, --longhaul-gpus, --longhaul-resource\n" in said
