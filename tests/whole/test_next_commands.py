"""The commands that a summary suggests do what they promise."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.core.terms.settings import parse_duration
from supervisor.views.suggested_commands import longhaul_command
from tests.experiment_fixture import Experiment


def suggested(text: str, label: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{label}:")]
    return shlex.split(line.partition(":")[2])


def test_a_failed_job_is_replayed_as_a_worker_ran_it(experiment: Experiment) -> None:
    """What stands under the guard is there with --debug, and was not there in the worker."""
    experiment.write("""
        def evaluate(number):
            return TABLE[number]

        if __name__ == "__main__":
            TABLE = {1: "one"}
            main(evaluate, [Job(id="-1/a", params={"number": 1})], name="trial")
    """)
    done = experiment.run("--experiment-id", "night")
    assert done.returncode == 1
    words = suggested(done.stderr, "replay the first")
    assert words[-4:] == ["replay", "--", "-1/a", str(experiment.output / "night")]
    again = subprocess.run(
        words,
        cwd="/",
        env=experiment.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 1
    assert "NameError: name 'TABLE' is not defined" in again.stderr
    assert experiment.run("--resume", "night", "--debug=-1/a").returncode == 0


def test_where_the_virtual_environment_is_not_active_the_command_is_named_by_its_path(tmp_path: Path) -> None:
    beside = tmp_path / "longhaul"
    beside.write_text("#!/bin/sh\n")
    beside.chmod(0o755)
    command = longhaul_command("ctl", ["drain"], which={}.get, python=str(tmp_path / "python"))
    assert command == f"{beside} ctl drain"


def test_a_command_of_longhaul_is_called_as_it_can_be_called_here(tmp_path: Path) -> None:
    python = str(tmp_path / "bin" / "python")
    beside = str(tmp_path / "bin" / "longhaul")
    command = longhaul_command("replay", ["a b"], which={"longhaul": beside}.get, python=python)
    assert command == "longhaul replay 'a b'"
    for found in ({}, {"longhaul": "/usr/bin/longhaul"}):
        command = longhaul_command("replay", ["a"], which=found.get, python=python)
        assert command == f"{python} -m supervisor replay a"
    assert (
        longhaul_command("list", [], which={"python": python}.get, python=python)
        == "python -m supervisor list"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("2m30s", 150),
        ("1d 12h", 129_600),
        ("1H05MIN", 3900),
        ("1h0.5s", 3600.5),
        ("3m", 180),
    ],
)
def test_durations_of_several_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1h30", "30m1h", "1h1h", "h", "1.5h30m", "1h-3m"])
def test_what_could_be_read_in_two_ways_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_an_interrupted_run_says_where_its_report_is() -> None:
    from supervisor.core.terms.errors import RunInterrupted

    assert "sys.last_value.report" in str(RunInterrupted(object()))
    assert "report" not in str(RunInterrupted(None))


def test_what_a_test_patches_does_not_reach_workers_and_its_environment_does(tmp_path: Path) -> None:
    """As docs/guide.md says of testing an experiment."""
    (tmp_path / "model.py").write_text(
        "import os\nRATE = 1\ndef evaluate(number):\n    return [RATE, os.environ.get('RATE')]\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import model\nfrom supervisor import run\n"
        "def test_it(monkeypatch, tmp_path):\n"
        "    monkeypatch.setattr(model, 'RATE', 2)\n"
        "    monkeypatch.setenv('RATE', '3')\n"
        "    report = run(model.evaluate, [{'number': 1}], name='x', output=tmp_path, workers=1)\n"
        "    assert list(report.results().values()) == [[1, '3']]\n"
        "    assert model.evaluate(1) == [2, '3']\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
