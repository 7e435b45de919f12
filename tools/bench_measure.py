"""The measurements of the benchmark: each starts fresh processes and gives numbers.

A `Sample` is one measurement with a name; several rows of the table may need the same one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tools.bench_jobs import FRAGILE_JOBS, KILLED
from tools.bench_peers import PEERS, WORKERS

TOOLS = Path(__file__).resolve().parent
PATIENCE = 900.0  # seconds for one process
PATIENCE_KILLED = 10.0  # for an answer after a worker was killed: then it hangs
LAST_WORDS = 2000  # characters of what a process that failed has said

Numbers = dict[str, Any]


class Sizes(NamedTuple):
    """How much is measured. The defaults are those of the table."""

    tiny: int = 200_000
    peers: float = 1.0  # share of the tiny jobs that a peer is given
    cpu_1ms: int = 10_000
    cpu_10ms: int = 1_000


QUICK = Sizes(tiny=20_000, peers=0.1, cpu_1ms=500, cpu_10ms=50)


class Failed(Exception):
    """A measurement that gave no numbers; the text says why."""


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
        return self.child("bench_ours.py", situation, json.dumps(keywords))

    def child(self, script: str, *words: str, patience: float = PATIENCE) -> Numbers:
        """Run a script in a session of its own; the JSON object that it prints last."""
        log = self.folder / "stderr.txt"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, str(TOOLS / script), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
            try:
                said, _ = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                raise Failed(f"no answer within {patience:g} s") from None
            finally:
                _end(process)
        if process.returncode != 0 or not said.strip():
            last = log.read_text(errors="replace")[-LAST_WORDS:]
            raise Failed(f"{script} {' '.join(words)} ended with {process.returncode}:\n{last}")
        found: Numbers = json.loads(said.splitlines()[-1])
        return found


def _end(process: subprocess.Popen[str]) -> None:
    """The process and what it has started in its session, which is its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ---------------------------------------------------------------------- the situations


def measure(bench: Bench, sample: str) -> Numbers:
    """Take one sample, by its name: "CONTENDER/SITUATION". Raises Failed."""
    contender, _, situation = sample.partition("/")
    try:
        return SITUATIONS[situation](bench, contender)
    finally:
        bench.clean()


def _run(bench: Bench, contender: str, situation: str, **keywords: Any) -> Numbers:
    if contender == "longhaul":
        return bench.ours(situation, output=bench.place(), **keywords)
    patience = PATIENCE_KILLED if situation == "killed" else PATIENCE
    return bench.child("bench_peers.py", contender, situation, json.dumps(keywords), patience=patience)


def _tiny(bench: Bench, contender: str) -> Numbers:
    jobs = bench.sizes.tiny
    if contender in PEERS:
        jobs = int(PEERS[contender].jobs * bench.sizes.peers)
    found = _run(bench, contender, "tiny", jobs=jobs)
    return {
        "jobs": jobs,
        "sustained": found["jobs"] / found["seconds"],
        "whole": found["jobs"] / found["whole_seconds"],
    }


def _share(bench: Bench, contender: str, jobs: int, each: float) -> Numbers:
    """The share of the cores' time, first start to last end, that was spent in jobs."""
    spans = _run(bench, contender, "cpu", jobs=jobs, each=each)["spans"]
    wall = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    return {"jobs": jobs, "share": sum(used for _, _, used in spans) / (WORKERS * wall)}


def _cpu_1ms(bench: Bench, contender: str) -> Numbers:
    return _share(bench, contender, bench.sizes.cpu_1ms, 0.001)


def _cpu_10ms(bench: Bench, contender: str) -> Numbers:
    return _share(bench, contender, bench.sizes.cpu_10ms, 0.010)


def _killed(bench: Bench, contender: str) -> Numbers:
    """One of twenty jobs kills its worker: what becomes of it, and of the others."""
    path = Path(bench.place()) / "starts.txt"
    try:
        found = _run(bench, contender, "killed", path=str(path))
    except Failed:
        found = {"completed": None, "errors": [], "hangs": True}
    lines = [line.split() for line in path.read_text().splitlines()]
    killed = [float(at) for word, at in lines if word == "kill"]
    starts = [float(at) for word, at in lines if word == str(KILLED)]
    again = (starts[1] - killed[0]) * 1000 if len(starts) > 1 else None
    return {"hangs": False, **found, "jobs": FRAGILE_JOBS, "again_ms": again}


SITUATIONS = {"tiny": _tiny, "cpu_1ms": _cpu_1ms, "cpu_10ms": _cpu_10ms, "killed": _killed}
