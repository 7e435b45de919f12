"""Whose files these are, and that nothing old or altered gets into them (D6, D7, D8, D10, D11)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from supervisor.reports.report import load
from tests.conftest import some
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.failures.bad_disks import GO_ON, ID, Witness, left_over, needs_strace, said_by, strace, tiny
from tests.failures.observing import open_gate, records, write

# ---------------------------------------------------------------------------------- D6

GATED = """
    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(6)]

    def evaluate(number):
        note("ran")
        if number == 2:
            gate("on")
        return {"square": number * number}

    if __name__ == "__main__":
        main(evaluate, jobs, name="owned", workers=1, all_tasks=True, checkpoint_every=1)
"""


def test_of_two_supervisors_one_is_refused_and_a_killed_one_holds_nothing(experiment: Experiment) -> None:
    """D6: the same command twice at once, then kill -9 of the winner, then once more."""
    write(experiment, GATED)
    witness = Witness(experiment)
    two = [experiment.start(*GO_ON), experiment.start(*GO_ON)]
    wait_for(lambda: any(process.poll() is not None for process in two), "both go on")
    winner, loser = sorted(two, key=lambda process: process.poll() is not None)
    _, err = loser.communicate()
    assert loser.returncode == 69, err
    assert f"pid {winner.pid} on " in err or "another process" in err  # if it had no time to write its name
    assert "Traceback" not in err
    wait_for(lambda: "job/2" in experiment.executions())
    (experiment.output / "logs" / f"lock_{ID}").read_bytes()  # looking at it gives nothing free
    assert experiment.run(*GO_ON).returncode == 69
    winner.kill()
    winner.communicate()
    open_gate(experiment, "on")
    done = experiment.run(*GO_ON)
    assert done.returncode == 0, done.stderr
    witness.end(6)


@needs_strace()
def test_a_file_system_that_cannot_lock_is_told_and_used(experiment: Experiment) -> None:
    """D6: at a new start and at a resume."""
    tiny(experiment, 4)
    for arguments in (("--only", "job/0"), ()):
        done = experiment.run(*GO_ON, *arguments, wrapper=strace("flock", "error=ENOLCK"))
        assert done.returncode == 0, done.stderr
        assert "cannot lock files (No locks available)" in said_by(done)
        assert f"no second supervisor runs {ID}" in done.stderr


# ---------------------------------------------------------------------------------- D7

FROZEN = """
    import datetime
    import supervisor.experiment.reservation
    from supervisor.storage.files.layout import Layout

    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2025, 10, 14, 21, 0, 0, tzinfo=zone)

    def taken(self, taken=Layout.taken, looked=[]):
        found = taken(self)
        if not looked:  # all have seen that the first id is free before one of them takes it
            looked.append(True)
            note("looked", os.environ["WHO"])
            while Path(LOG).read_text().count("looked") < 3:
                time.sleep(0.001)
        return found

    supervisor.experiment.reservation.datetime = Frozen
    Layout.taken = taken

    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(4)]

    def evaluate(number):
        return os.environ["WHO"]

    if __name__ == "__main__":
        main(evaluate, jobs, name="frozen", workers=1, all_tasks=True)
"""


@pytest.mark.parametrize(
    "option", some([pytest.param((), id="recorded"), pytest.param(("--no-resume",), id="not recorded")], 1)
)
def test_starts_in_the_same_second_get_ids_of_their_own(
    experiment: Experiment, option: tuple[str, ...]
) -> None:
    """D7: the clock stands still; each of the runs finds all its results and only its own."""
    experiment.write(FROZEN)
    crowd = ["a", "b", "c"]
    started = [experiment.start(*option, env={**experiment.environment(), "WHO": who}) for who in crowd]
    for process in started:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    finals = sorted(experiment.output.glob("*/logs_final.json"))
    stem = "experiment_20251014_210000"
    assert {path.parent.name for path in finals} == {stem, f"{stem}_2", f"{stem}_3"}
    found = [{entry["result"] for entry in json.loads(path.read_bytes())} for path in finals]
    assert sorted(map(sorted, found)) == [["a"], ["b"], ["c"]]


# ---------------------------------------------------------------------------------- D8


def test_files_that_are_symbolic_links_stay_so(experiment: Experiment) -> None:
    """D8: every file that is replaced, and the folder they are in; nothing lies about in
    either place afterwards."""
    tiny(experiment, 6)
    assert experiment.run(*GO_ON, "--only", "job/0").returncode == 0
    elsewhere = experiment.folder / "elsewhere"
    elsewhere.mkdir()
    logs, results = experiment.output / "logs", experiment.output / ID
    names = ["logs_final.json", "statistics.json"]
    replaced = [path for path in logs.iterdir() if not path.name.startswith("lock_")]
    for path in [*replaced, *(results / name for name in names)]:
        path.rename(elsewhere / path.name)
        path.symlink_to(elsewhere / path.name)
    os.rename(results, elsewhere / ID)
    results.symlink_to(elsewhere / ID)
    (elsewhere / f"checkpoint_{ID}.json").write_bytes(b"damaged, so that it is replaced by another one")
    done = experiment.run(*GO_ON)
    assert done.returncode == 0, done.stderr
    for path in [results, *replaced, *(results / name for name in names)]:
        assert path.is_symlink(), path
    assert not [path.name for path in elsewhere.iterdir() if path.name.startswith(".")]
    Witness(experiment).end(6)


# --------------------------------------------------------------------------------- D10

VALUES = """
    import datetime, enum, math, pathlib
    import numpy

    class Colour(enum.Enum):
        RED = "red"

    VALUES = {
        "nan": {"loss": math.nan, "bounds": [-math.inf, 1.0, math.inf]},
        "int keys": {1: "one", 2: "two"},
        "tuple": (1, (2, 3)),
        "set": {3, 1, 2},
        "numpy": {"mean": numpy.float64(0.5), "counts": numpy.arange(3)},
        "date": datetime.date(2025, 10, 14),
        "path": pathlib.PurePosixPath("/data/x"),
        "enum": Colour.RED,
        "large": 2**63,
        "unicode": "ü\\u2028\\x00",
        "nothing": None,
        "surrogate": "\\ud800",
        "keys collide": {1: "a", "1": "b"},
        "function": {"model": [len]},
        "bytes": b"raw",
    }

    def jobs():
        return [Job(id=name, params={"name": name}) for name in VALUES]

    def evaluate(name):
        return VALUES[name]

    if __name__ == "__main__":
        main(evaluate, jobs, name="values", workers=1, all_tasks=True)
"""
KEPT: dict[str, Any] = {
    "nan": {"loss": None, "bounds": [None, 1.0, None]},
    "int keys": {"1": "one", "2": "two"},
    "tuple": [1, [2, 3]],
    "set": [1, 2, 3],
    "numpy": {"mean": 0.5, "counts": [0, 1, 2]},
    "date": "2025-10-14",
    "path": "/data/x",
    "enum": "red",
    "large": 2**63,
    "unicode": "ü\u2028\0",
    "nothing": None,
}
REFUSED = {"surrogate": "", "keys collide": "1", "function": "/model/0", "bytes": ""}
TOLD = ("tuple", "set", "numpy", "date", "path", "enum", "key")


def test_what_json_cannot_say_is_converted_and_told_or_refused_by_path(experiment: Experiment) -> None:
    """D10: from the function's return to the final file and the report, a table of values."""
    experiment.write(VALUES)
    done = experiment.run()
    assert done.returncode == 1, done.stderr
    final = experiment.final()
    assert {job: entry.get("result") for job, entry in final.items() if entry["state"] == "completed"} == KEPT
    failed = {job: entry["error"] for job, entry in final.items() if entry["state"] == "failed"}
    assert set(failed) == set(REFUSED)
    for job, path in REFUSED.items():
        assert failed[job]["outcome"] == "unencodable"
        assert path in failed[job]["message"]
    told = [line for line in said_by(done).splitlines() if "JSON" in line]
    assert all(any(word in line.lower() for line in told) for word in TOLD), done.stderr
    with load(experiment.output, "latest") as report:
        results = dict(report.results())
    assert repr(results["nan"]) == "{'loss': nan, 'bounds': [-inf, 1.0, inf]}"


# --------------------------------------------------------------------------------- D11


class Watcher(threading.Thread):
    """Looks at the checkpoint again and again: which records it covers, in order of time."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.seen: list[int] = []
        self._path = path
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.001):
            try:
                covered = json.loads(self._path.read_bytes())["journal"]["n"]
            except FileNotFoundError:
                continue
            if covered not in self.seen[-1:]:
                self.seen.append(covered)

    def stop(self) -> list[int]:
        self._over.set()
        self.join()
        return self.seen


def unpublished(path: Path) -> list[float]:
    """When checkpoints that are not in their place yet were last written to."""
    found = []
    for temporary in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(FileNotFoundError):
            found.append(temporary.stat().st_mtime)
    return found


HANGS_ONCE = """
import threading
from supervisor.storage.files.disk import Disk

def hanging(self, *words, call=Disk.@CALL@, hung=[]):
    if threading.current_thread() is not threading.main_thread() and not hung:
        hung.append(True)
        while not os.path.exists(LOG + ".interrupted"):
            time.sleep(0.002)
        time.sleep(0.8)  # the one on the way out would be in its place by now
    return call(self, *words)

Disk.@CALL@ = hanging
"""


@pytest.mark.parametrize("call", ["sync", "rename"])
def test_an_interrupt_in_the_middle_of_a_checkpoint_leaves_the_newest_one(
    experiment: Experiment, call: str
) -> None:
    """D11: a checkpoint that hangs in the disk never replaces the one that is made on the way out."""
    tiny(experiment, 200)
    text = experiment.script.read_text().replace('note("ran")', "time.sleep(0.02)")
    experiment.script.write_text(
        text.replace("def jobs()", HANGS_ONCE.replace("@CALL@", call) + "\ndef jobs()")
    )
    path = experiment.output / "logs" / f"checkpoint_{ID}.json"
    watcher = Watcher(path)
    watcher.start()
    supervisor = experiment.start(*GO_ON)
    wait_for(lambda: any(time.time() - mtime > 0.2 for mtime in unpublished(path)), "no checkpoint hangs")
    supervisor.send_signal(signal.SIGINT)
    wait_for(lambda: records(experiment, "noted", what="drain"), "it drains")
    open_gate(experiment, "interrupted")
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == -signal.SIGINT, err
    seen = watcher.stop()
    assert seen == sorted(seen), "an older checkpoint came after a newer one"
    (ended,) = records(experiment, "run_ended")
    assert experiment.checkpoint()["journal"]["n"] == ended["n"]
    assert set(experiment.checkpoint()["completed"]) == set(experiment.completed_in_journal())
    assert left_over(experiment) == []
