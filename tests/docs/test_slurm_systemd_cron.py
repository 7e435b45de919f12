"""docs/slurm-systemd-cron.md is run: its batch scripts, its units and its line for cron."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.terms import errors
from tests.conftest import some
from tests.docs.conftest import DOCS, ROOT, blocks, prose
from tests.docs.schedulers import KILL_WAIT, Home, SlurmJob, Unit
from tests.experiment_fixture import PATIENCE, wait_for

PAGE = ROOT / "docs" / "slurm-systemd-cron.md"
WALK, ARRAY = (block.text for block in blocks(PAGE, "bash"))
UNITS = [block.text for block in blocks(PAGE, "ini")]
(CRON,) = (block.text for block in blocks(PAGE, "crontab"))
RECIPES = [WALK, ARRAY, *UNITS, CRON]

# Stands for the script of a user: its jobs wait in a program that they have started.
SCRIPT = textwrap.dedent("""
    import argparse, os, subprocess, time
    from pathlib import Path
    from supervisor import Job, main
    from workers import current_job

    HOME = Path(os.environ["HOME"])

    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(12)]

    def evaluate(number):
        with open(HOME / "began.txt", "a") as file:
            file.write(f"{number}\\n")
        while number > 1 and not (HOME / "go").exists():
            subprocess.run(["sleep", "0.2"], check=True)
        return number

    if __name__ == "__main__":
        options = argparse.ArgumentParser(add_help=False)
        if Path(__file__).name == "own.py":
            options.add_argument("--count")
            options.add_argument("--output")
        main(evaluate, jobs, name="walk", parser=options)
""")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, SCRIPT)


@pytest.fixture
def slurm(home: Home) -> Iterator[Any]:
    """Submits a batch script; what is left of it in the end is killed."""
    jobs: list[SlurmJob] = []

    def submit(text: str, **environment: str) -> SlurmJob:
        jobs.append(SlurmJob(home, text, len(jobs) + 1, **environment))
        return jobs[-1]

    yield submit
    for job in jobs:
        job.kill()
        job.process.wait(PATIENCE)


@pytest.fixture(
    params=some(UNITS, 1), ids=["system", "user"]
)  # what differs between the two is looked at below
def unit(home: Home, request: pytest.FixtureRequest) -> Iterator[Unit]:
    made = Unit(home, request.param)
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait(PATIENCE)


def began(home: Home) -> list[int]:
    path = home.folder / "began.txt"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def at_work(home: Home, number: int = 4) -> None:
    """The two quick jobs are done, others run."""
    wait_for(lambda: len(began(home)) >= number and counts(home)["completed"] >= 2)


def counts(home: Home, name: str = "sweep") -> dict[str, int]:
    (path,) = list(home.walk.glob(f"data/outputs/walk/logs/progress_{name}.json")) or [None]
    found: dict[str, int] = json.loads(path.read_text())["counts"] if path else {"completed": 0}
    return found


def final(home: Home, name: str = "sweep") -> list[dict[str, Any]]:
    path = home.walk / "data" / "outputs" / "walk" / name / "logs_final.json"
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def states(home: Home, name: str = "sweep") -> list[str]:
    return sorted({entry["state"] for entry in final(home, name)})


def ctl(home: Home, order: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "supervisor", "ctl", order, "-d", "data/outputs"],
        cwd=home.walk,
        env=home.environment(),
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )


# ------------------------------------------------------------------------------------ Slurm


def test_slurm_warns_before_the_time_limit_and_the_next_job_goes_on(home: Home, slurm: Any) -> None:
    job = slurm(WALK)
    at_work(home)
    job.warn()
    wait_for(lambda: "no new jobs are started" in job.said())
    (home.folder / "go").touch()
    assert job.process.wait(PATIENCE) == -signal.SIGUSR1, job.said()
    assert not job.processes()
    again = slurm(WALK)
    assert again.process.wait(PATIENCE) == 0, again.said()
    assert states(home) == ["completed"]
    assert sorted(began(home)) == list(range(12))
    one_too_many = slurm(WALK)
    assert one_too_many.process.wait(PATIENCE) == 0
    assert "nothing left to run" in one_too_many.said()


def test_scancel_and_a_requeue_leave_time_for_an_orderly_end(home: Home, slurm: Any) -> None:
    """SIGTERM reaches workers and the programs of jobs as well, and is held against none of them."""
    job = slurm(WALK)
    at_work(home)
    before = time.monotonic()
    code = job.cancel()
    assert time.monotonic() - before < KILL_WAIT
    assert code == -signal.SIGTERM, job.said()
    assert {entry["state"] for entry in final(home)} <= {"completed", "in_progress", "pending"}, job.said()
    (home.folder / "go").touch()
    requeued = slurm(WALK)
    assert requeued.process.wait(PATIENCE) == 0, requeued.said()
    assert states(home) == ["completed"]


def test_a_second_slurm_job_beside_the_first_one_is_told_so(home: Home, slurm: Any) -> None:
    job = slurm(WALK)
    at_work(home)
    second = slurm(WALK)
    assert second.process.wait(PATIENCE) == errors.BEING_RUN, second.said()
    assert "is being run by" in second.said()
    (home.folder / "go").touch()
    assert job.process.wait(PATIENCE) == 0, job.said()


def test_each_task_of_an_array_has_an_experiment_and_stops_before_the_end(home: Home, slurm: Any) -> None:
    ends = str(int(time.time()) + 34)  # 25 of them for the grace and the last files
    tasks = [slurm(ARRAY, SLURM_ARRAY_TASK_ID=n, SLURM_JOB_END_TIME=ends) for n in ("1", "2")]
    wait_for(lambda: all("the deadline is at" in task.said() for task in tasks))
    (home.folder / "go").touch()
    for task in tasks:
        assert task.process.wait(PATIENCE) == errors.STOPPED_AS_ASKED, task.said()
    assert time.time() < int(ends)
    later = str(int(time.time()) + 3600)
    for n in ("1", "2"):
        task = slurm(ARRAY, SLURM_ARRAY_TASK_ID=n, SLURM_JOB_END_TIME=later)
        assert task.process.wait(PATIENCE) == 0, task.said()
        assert states(home, f"own-{n}") == ["completed"]
    (rows,) = [block.text.split() for block in blocks(PAGE, "sh")]
    wanted = [word for word in rows[1:] if word != "own-3"]
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", *wanted], cwd=home.walk, env=home.environment(), check=False
    )
    assert done.returncode == 0
    assert len((home.walk / "own.csv").read_text().splitlines()) == 25


# ---------------------------------------------------------------------------------- systemd


def test_a_run_that_is_drained_by_hand_is_not_restarted_and_goes_on_when_it_is_started(
    home: Home, unit: Unit
) -> None:
    at_work(home)
    ctl(home, "drain")
    (home.folder / "go").touch()
    code = unit.process.wait(PATIENCE)
    assert code == errors.STOPPED_AS_ASKED
    assert unit.is_clean(code)
    assert not unit.after(code)
    assert unit.start().wait(PATIENCE) == 0
    assert states(home) == ["completed"]


def test_what_is_killed_is_restarted_and_goes_on(home: Home, unit: Unit) -> None:
    at_work(home)
    unit.process.kill()
    code = unit.process.wait(PATIENCE)
    assert unit.after(code)
    (home.folder / "go").touch()
    assert unit.process.wait(PATIENCE) == 0
    assert not unit.after(0)
    assert states(home) == ["completed"]
    assert sorted(set(began(home))) == list(range(12))


def test_systemctl_stop_is_a_clean_end_in_time(home: Home, unit: Unit) -> None:
    at_work(home)
    (home.folder / "go").touch()
    assert unit.stop()
    assert not unit.after(unit.process.returncode)


def test_a_start_by_hand_beside_the_service_is_refused_and_so_is_the_service(home: Home) -> None:
    first = Unit(home, UNITS[0])
    at_work(home)
    second = Unit(home, UNITS[1])
    code = second.process.wait(PATIENCE)
    assert code == errors.BEING_RUN
    assert not second.after(code)
    (home.folder / "go").touch()
    assert first.process.wait(PATIENCE) == 0


def test_only_what_may_be_gone_the_next_time_is_restarted(home: Home) -> None:
    for text in UNITS:
        unit = Unit(home, text)
        unit.process.kill()
        unit.process.wait(PATIENCE)
        again = {code for code in codes() if unit.restarts(code)}
        assert again == {errors.IO_ERROR, errors.BROKE_OFF}
        assert unit.restarts(-signal.SIGKILL) and unit.restarts(-signal.SIGSEGV)
        assert not any(
            unit.restarts(-signum)
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        )


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
@pytest.mark.parametrize(
    ("text", "words"), list(zip(UNITS, ([], ["--user"]), strict=True)), ids=["system", "user"]
)
def test_systemd_understands_the_units(home: Home, text: str, words: list[str]) -> None:
    path = home.folder / "walk.service"
    found = text.replace("%h", "/home/ada").replace("/home/ada", str(home.folder))
    path.write_text(found.replace("User=ada", "User=root"))
    done = subprocess.run(
        ["systemd-analyze", *words, "verify", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(home.folder)},
    )
    assert "walk.service" not in done.stderr, done.stderr


# ------------------------------------------------------------------------------------- cron


def cron(home: Home) -> subprocess.CompletedProcess[str]:
    """What cron does with the line: in the home directory, by `sh`; what is printed is mailed."""
    command = CRON.strip().split(maxsplit=5)[5]
    assert "%" not in command
    twelve_hours_on = time.strftime("%H:%M", time.localtime(time.time() + 12 * 3600))
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("07:00", twelve_hours_on)],
        cwd=home.folder,
        env=home.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_cron_sends_a_mail_only_if_something_is_wrong(home: Home) -> None:
    running = Unit(home, UNITS[0])
    at_work(home)
    assert cron(home).stdout == ""
    assert "is being run by" in (home.walk / "cron.log").read_text()
    (home.folder / "go").touch()
    assert running.process.wait(PATIENCE) == 0
    done = cron(home)
    assert (done.stdout, done.stderr) == ("", "")
    text = SCRIPT.replace("return number", "raise ValueError(number)").replace("sweep", "other")
    (home.walk / "walk.py").write_text(text)
    shutil.rmtree(home.walk / "data")
    assert cron(home).stdout == "walk.py: exit code 1, see ~/walk/cron.log\n"


# ------------------------------------------------------------------------- what they say


def codes() -> set[int]:
    """All exit codes there are."""
    return {
        value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int) and value
    }


def test_both_tables_have_every_exit_code() -> None:
    for page in (PAGE, DOCS / "exit-codes.md"):
        rows = re.findall(r"^\| ([\d, ]+)(?: \+ n)? \|", page.read_text(encoding="utf-8"), re.MULTILINE)
        named = {int(number) for row in rows for number in row.split(",")}
        assert codes() | {0, 130, 143} <= named, page.name


def test_every_option_of_the_recipes_exists(home: Home) -> None:
    done = subprocess.run(
        [sys.executable, "own.py", "--help"],
        cwd=home.walk,
        env=home.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    option = re.compile(r"(?<![\w-])--[a-z][\w-]*")
    for text in RECIPES:
        (line,) = (line for line in text.splitlines() if ".py -" in line and not line.startswith("#"))
        assert set(option.findall(line.partition(".py")[2])) <= set(option.findall(done.stdout)), line


def test_the_grace_time_of_the_recipes_fits_what_they_allow() -> None:
    assert number(WALK, r"--grace (\d+)") + 2 < number(WALK, r"USR1@(\d+)")
    assert number(WALK, r"--grace (\d+)") + 2 < KILL_WAIT
    for text in UNITS:
        assert number(text, r"--grace (\d+)") + 2 < number(text, r"TimeoutStopSec=(\d+)")
    assert "KillWait" in prose(PAGE)


def number(text: str, pattern: str) -> int:
    match = re.search(pattern, text)
    assert match is not None, pattern
    return int(match.group(1))
