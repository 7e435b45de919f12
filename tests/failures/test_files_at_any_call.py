"""The supervisor is killed in, or refused, any one of its system calls on the experiment's files.

A run is traced once to learn which calls touch the experiment's files; then it is made
again and again, each time with the next of them hit. By default some of these points are
tried; LONG_TESTS=1 walks all of them.
"""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from tests.conftest import some
from tests.experiment_fixture import Experiment
from tests.failures.bad_disks import (
    GO_ON,
    LONG,
    Witness,
    calls_on,
    injected,
    needs_strace,
    said_by,
    strace,
    tiny,
)

JOBS = 6
# Calls that only the supervisor makes, in whichever of its threads; of the others only those
# of its main thread are counted, since every program makes them.
ANYWHERE = ("fsync", "fdatasync", "rename")
POINTS = {"fsync": 2, "fdatasync": 2, "rename": 3, "openat": 2, "write": 3}
Points = dict[str, list[int]]

pytestmark = [needs_strace(), *([pytest.mark.timeout(0)] if LONG else [])]


def a_new_one(folder: Path, name: str) -> Experiment:
    home = folder / name
    home.mkdir()
    experiment = Experiment(home)
    tiny(experiment, JOBS)
    return experiment


def spread(numbers: list[int], few: int) -> list[int]:
    """So many of them at equal distances."""
    few = min(few, len(numbers))
    return [numbers[(2 * place + 1) * len(numbers) // (2 * few)] for place in range(few)]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Points:
    """By call, the numbers of those that a whole run makes on its files: all, or a few."""
    experiment = a_new_one(tmp_path_factory.mktemp("whole"), "run")
    log = experiment.folder / "trace"
    done = experiment.run(*GO_ON, wrapper=strace(",".join(POINTS), log=log, threads=False))
    assert done.returncode == 0, done.stderr
    found = {}
    for call, few in POINTS.items():
        numbers = calls_on(log, call, experiment.output)
        if call in ANYWHERE:  # other threads make some as well; the last ones let a run succeed
            numbers = list(range(1, numbers[-1] + 6))
        found[call] = numbers if LONG else spread(numbers, few)
    return found


@pytest.mark.parametrize(
    ("call", "first"), some([*((call, 0) for call in POINTS), *((call, 1) for call in POINTS)], len(POINTS))
)
def test_killed_in_any_system_call_a_run_goes_on_where_it_was(
    tmp_path: Path, points: Points, call: str, first: int
) -> None:
    """Every second of these points, and the others."""
    killed = 0
    for number in points[call][first::2]:
        experiment = a_new_one(tmp_path, f"{call}-{number}")
        witness = Witness(experiment)
        kill = strace(call, f"signal=KILL:when={number}", threads=call in ANYWHERE)
        hit = experiment.run(*GO_ON, wrapper=kill)
        assert hit.returncode in (-9, 0), hit.stderr
        killed += hit.returncode == -9
        witness.look()
        done = experiment.run(*GO_ON)
        assert done.returncode == 0, done.stderr
        witness.end(JOBS)
        experiment.clean_up()
    assert killed or first, "no point was hit"
    print(f"{call}: {killed} kills at {len(points[call][first::2])} points")


@pytest.mark.parametrize("call", ["fsync", "fdatasync", "rename", "openat", "write"])
def test_refused_any_system_call_a_run_goes_on_or_says_why_not(
    tmp_path: Path, points: Points, call: str
) -> None:
    """One refused call: the run is worked through or ends with the code and the reason."""
    ends = Counter[tuple[str, int]]()
    errors = ("EIO", "ENOSPC")
    if call == "write":
        few = list(zip(points[call][::2], errors, strict=False))
    else:
        few = [(points[call][-1], "ENOSPC" if call == "openat" else "EIO")]
    for number, error in product(points[call], errors) if LONG else few:
        experiment = a_new_one(tmp_path, f"{call}-{number}-{error}")
        log = experiment.folder / "trace"
        refuse = strace(call, f"error={error}:when={number}", threads=call in ANYWHERE, log=log)
        witness = Witness(experiment)
        hit = experiment.run(*GO_ON, wrapper=refuse)
        if f"{experiment.output}/" not in injected(log):
            continue  # another file than in the first run: nothing of ours
        said = said_by(hit)
        assert hit.returncode in (0, 73, 74, 75), said
        assert hit.returncode == 0 or "error: " in said
        ends[error, hit.returncode] += 1
        witness.look()
        done = experiment.run(*GO_ON)
        assert done.returncode == 0, done.stderr
        witness.end(JOBS)
        experiment.clean_up()
    print(f"{call} refused, and how the runs ended: {dict(ends)}")


def test_a_disk_that_fails_while_an_experiment_is_opened_is_told_in_words(tmp_path: Path) -> None:
    """The plan is compared with the script's jobs, and cannot be read: no traceback, 74; later
    the same command goes on. What the script itself cannot read is the script's."""
    experiment = a_new_one(tmp_path, "run")
    witness = Witness(experiment)
    assert experiment.run(*GO_ON, "--only", "job/0").returncode == 0
    witness.look()
    log = experiment.folder / "trace"
    plan = experiment.output / "logs" / "plan_e1.jsonl"
    fails = strace("pread64", "error=EIO:when=2", threads=False, log=log, paths=[plan])
    hit = experiment.run(*GO_ON, wrapper=fails)
    assert "plan_e1" in injected(log)
    assert hit.returncode == 74, hit.stderr
    assert f"{plan} cannot be read: Input/output error" in said_by(hit)
    witness.look()
    script = experiment.script.read_text()
    experiment.script.write_text(script.replace("def jobs():", "def jobs():\n    open('/no/such/list')", 1))
    theirs = experiment.run(*GO_ON)
    assert (theirs.returncode, "No such file or directory: '/no/such/list'" in theirs.stderr) == (70, True)
    experiment.script.write_text(script)
    assert experiment.run(*GO_ON).returncode == 0
    witness.end(JOBS)
