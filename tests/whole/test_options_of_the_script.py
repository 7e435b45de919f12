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
