"""The processes of the benchmark: how much they are given, where they write, how they end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil

PROGRAMS = Path(__file__).resolve().parent
PATIENCE = 900.0  # seconds for one process
LAST_WORDS = 2000  # characters of what a process that failed has said

Numbers = dict[str, Any]


class Sizes(NamedTuple):
    """How much is measured. The defaults are those of the table."""

    tiny: int = 200_000
    tiny_more: int = 1_000_000
    peers: float = 1.0  # share of the tiny jobs that a peer is given
    cpu_1ms: int = 10_000
    cpu_10ms: int = 1_000
    cpu_10ms_more: int = 4_000
    growth: tuple[int, int, int] = (50_000, 500_000, 1_000_000)
    resumed: int = 1_000_000
    completed: int = 990_000  # of them, before the resume
    kills: int = 20
    fairness: int = 20_000
    long_seconds: float = 5.0
    quiet_seconds: float = 20.0
    settle_seconds: float = 3.0
    starts: int = 10
    imports: int = 10
    big: int = 200
    big_bytes: int = 5_000_000
    programs: int = 5_000
    reported: tuple[int, int] = (10_000, 1_000_000)
    places: tuple[int, int, int] = (64, 64, 15)  # places, workers of each, jobs of each worker
    places_seconds: tuple[float, float] = (1.0, 10.0)  # of each job there; of all of them with two workers
    crowd: tuple[int, int] = (1000, 6)  # workers, jobs of each
    crowd_start: int = 256  # workers
    hang_seconds: float = 10.0  # for an answer after a worker was killed: then it hangs


QUICK = Sizes(
    tiny=20_000,
    tiny_more=50_000,
    peers=0.1,
    cpu_1ms=500,
    cpu_10ms=50,
    cpu_10ms_more=100,
    growth=(2_000, 10_000, 20_000),
    resumed=20_000,
    completed=19_800,
    kills=3,
    fairness=2_000,
    long_seconds=0.5,
    quiet_seconds=2.0,
    settle_seconds=0.5,
    starts=2,
    imports=2,
    big=20,
    big_bytes=1_000_000,
    programs=200,
    reported=(500, 5_000),
    places=(8, 8, 5),
    places_seconds=(1.0, 2.0),
    crowd=(30, 5),
    crowd_start=20,
    hang_seconds=6.0,
)


class Failed(Exception):
    """A measurement that gave no numbers; the text says why."""


class Hangs(Failed):
    """No answer came within the time that there was."""


class Bench:
    """Where and how much is measured. `folder`: for the files of all children."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self._made = 0

    def place(self) -> str:
        """A new folder, which is there until the sample has been taken."""
        self._made += 1
        path = self.folder / str(self._made)
        path.mkdir()
        return str(path)

    def clean(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)

    def ours(self, situation: str, **keywords: Any) -> Numbers:
        return self.child("longhaul_program.py", situation, json.dumps(keywords))

    def child(
        self, script: str, *words: str, patience: float = PATIENCE, after: Callable[[], bool] = lambda: True
    ) -> Numbers:
        """Run a script in a session of its own; the JSON object that it prints last.

        Raises Hangs if there is none `patience` seconds after `after` has come true, Failed
        for any other reason.
        """
        log = self.folder / "stderr.txt"
        with log.open("w") as errors:
            process = start(script, *words, stderr=errors)
            try:
                said = _last_words(process, patience, after)
            finally:
                end(process)
        if process.returncode != 0 or not said.strip():
            last = log.read_text(errors="replace")[-LAST_WORDS:]
            raise Failed(f"{script} {' '.join(words)} ended with {process.returncode}:\n{last}")
        found: Numbers = json.loads(said.splitlines()[-1])
        return found


def _last_words(process: subprocess.Popen[str], patience: float, after: Callable[[], bool]) -> str:
    deadlines = [time.monotonic() + PATIENCE]
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=0.5)[0]
        if len(deadlines) == 1 and after():
            deadlines.append(time.monotonic() + patience)
        if time.monotonic() > min(deadlines):
            raise Hangs(f"no answer within {patience:g} s")


def start(script: str, *words: str, stderr: IO[str]) -> subprocess.Popen[str]:
    """One of the scripts beside this one, leading a session of its own."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS / script), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """The process and what it has started in its session, which is its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    process.wait()


def cpu_seconds(pid: int) -> float:
    """Of all threads that there are; psutil knows hundredths of a second, Linux nanoseconds."""
    try:
        tasks = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    except OSError:
        tasks = []
    if tasks:
        return sum(int(words[0]) for words in tasks) / 1e9
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
