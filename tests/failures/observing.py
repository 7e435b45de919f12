"""What the tests of failures see of processes and journals, and how they hold a job up."""

from __future__ import annotations

import contextlib
import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.experiment_fixture import Experiment, wait_for

# What jobs use to wait for the test, and to tell it where they are.
WORDS = """
import threading

def gate(name):
    while not Path(os.environ["EXECUTIONS"] + "." + name).exists():
        time.sleep(0.002)

def when_main_is_in(function, act):
    main_thread, name = threading.main_thread().ident, current_job().id
    def watch():
        while sys._current_frames()[main_thread].f_code.co_name != function:
            time.sleep(0.001)
        act(name)
    threading.Thread(target=watch, daemon=True).start()
"""


def write(experiment: Experiment, text: str) -> None:
    """A script that may use `gate` and `when_main_is_in`."""
    experiment.write(WORDS + textwrap.dedent(text))


def open_gate(experiment: Experiment, name: str) -> None:
    Path(f"{experiment.executions_file}.{name}").touch()


def state_of(pid: int) -> str:
    """R, S, D, T, Z as the kernel tells it; "" if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_gone(pid: int) -> bool:
    return state_of(pid) in ("", "Z", "X")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def stop(pid: int) -> None:
    """SIGSTOP; returns when the process stands still."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: state_of(pid) in ("T", ""), f"{pid} does not stop")


def go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """The process is stopped inside of the block."""
    stop(pid)
    try:
        yield
    finally:
        go_on(pid)


@contextlib.contextmanager
def cgroup(controller: str) -> Iterator[Path]:
    """A control group of our own below the one that we are in; skips where it cannot be made."""
    with open("/proc/self/cgroup") as file:
        paths = [line.strip().split(":", 2) for line in file]
    own = [path for _, controllers, path in paths if controller in controllers.split(",")]
    if not own:
        pytest.skip(f"no {controller} controller of cgroup v1 on this machine")
    group = Path(f"/sys/fs/cgroup/{controller}{own[0]}/longhaul-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"a {controller} cgroup cannot be made here: {error}")
    try:
        yield group
    finally:
        wait_for(lambda: _removed(group), f"{group} stays busy")


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def said(experiment: Experiment, word: str) -> list[tuple[str, int]]:
    """What jobs have noted under a word: (job or text, pid of the process), in order."""
    if not experiment.executions_file.exists():
        return []
    lines = [line.split() for line in experiment.executions_file.read_text().splitlines()]
    return [(line[1], int(line[2])) for line in lines if len(line) == 3 and line[0] == word]


def wait_until_said(experiment: Experiment, word: str, job: str, times: int = 1) -> int:
    """Until a job has noted a word so often; the pid of the process that did it last."""

    def pids() -> list[int]:
        found = [pid for name, pid in said(experiment, word) if name == job]
        if len(found) < times and experiment.started[-1].poll() is not None:
            raise AssertionError(f"over before {job} said {word!r}: {experiment.started[-1].communicate()}")
        return found

    wait_for(lambda: len(pids()) >= times, f"{job} never said {word!r}")
    return pids()[times - 1]


def records(experiment: Experiment, kind: str, **fields: Any) -> list[dict[str, Any]]:
    """Records of the journal of one type, with these values; [] if there is no journal yet."""
    if not list(experiment.output.glob("logs/journal_*.jsonl")):
        return []
    return [
        record
        for record in experiment.journal()
        if record["type"] == kind and all(record.get(key) == value for key, value in fields.items())
    ]


def outcomes(experiment: Experiment, job: str) -> list[str]:
    """How the attempts of a job ended, in order."""
    return [record["outcome"] for record in records(experiment, "ended", job=job)]


def others_completed(experiment: Experiment, *bad: str) -> None:
    """All jobs but these are completed, at the first attempt."""
    final = experiment.final()
    wrong = {
        job: (entry["state"], entry["attempts"])
        for job, entry in final.items()
        if job not in bad and (entry["state"], entry["attempts"]) != ("completed", 1)
    }
    assert not wrong
