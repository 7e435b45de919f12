"""The supervisor is killed in, or refused, any one of its system calls on the experiment's files.

A run is traced once to learn which calls touch the experiment's files; then it is made
again and again, each time with the next of them hit. By default some of these points are
tried; LONG_TESTS=1 walks all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiment import Experiment
from tests.failures.bad_disks import GO_ON, LONG, Witness, calls_on, needs_strace, strace, tiny

JOBS = 6
# Calls that only the supervisor makes, in whichever of its threads; of the others only those
# of its main thread are counted, since every program makes them.
ANYWHERE = ("fsync", "fdatasync", "rename")
MAIN = ("openat", "write")
POINTS = {"fsync": 3, "fdatasync": 3, "rename": 5, "openat": 3, "write": 6}

pytestmark = [needs_strace(), *([pytest.mark.timeout(0)] if LONG else [])]


def a_new_one(folder: Path, name: str) -> Experiment:
    home = folder / name
    home.mkdir()
    experiment = Experiment(home)
    tiny(experiment, JOBS)
    return experiment


def points_of(folder: Path, call: str) -> list[int]:
    """The numbers of the calls that a whole run makes on its files: all of them, or a few."""
    experiment = a_new_one(folder, f"whole-{call}")
    log = experiment.folder / "trace"
    done = experiment.run(*GO_ON, wrapper=strace(call, log=log, threads=False))
    assert done.returncode == 0, done.stderr
    found = [number for number, _ in calls_on(log, experiment.output)]
    if call in ANYWHERE:  # other threads make some as well; one more, for a run that succeeds
        found = list(range(1, found[-1] + 6))
    if LONG:
        return found
    step = max(1, len(found) // POINTS[call])
    return found[step // 2 :: step]


@pytest.mark.parametrize("call", ["fsync", "fdatasync", "rename", "openat", "write"])
def test_killed_in_any_system_call_a_run_goes_on_where_it_was(tmp_path: Path, call: str) -> None:
    killed = 0
    points = points_of(tmp_path, call)
    for number in points:
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
    assert killed, "no point was hit"
    print(f"{call}: {killed} kills at {len(points)} points")
