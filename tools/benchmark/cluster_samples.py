"""What is measured on a Ray cluster of two raylets with one worker each: the samples "cluster/SITUATION"; and beside
one that idles, by the engine of one machine: "beside/SITUATION".

Each sample has a cluster of its own, since some of them kill a raylet. Runs of jobs are measured on one that has had a
run: the first on a new cluster waits for what Ray starts on a raylet when its first driver connects.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tools.benchmark.child_processes import PROGRAMS, Bench, Failed, Numbers, cpu_seconds, end, start
from tools.benchmark.peers import WORKERS

CLUSTER, BESIDE = "cluster", "beside"  # the contenders
ENGINE = "LONGHAUL_BENCH_ENGINE"  # the name of a variable: keywords of run(), as JSON
PATIENCE = 60.0


@contextlib.contextmanager
def raylets(bench: Bench, number: int = 2) -> Iterator[None]:
    """What runs meanwhile runs on a cluster of so many raylets."""
    with (bench.folder / "raylets.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "ray_raylets.py"), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise Failed((bench.folder / "raylets.txt").read_text()[-2000:])
        os.environ[ENGINE] = json.dumps({"engine": "ray", "address": address})
        yield
    finally:
        os.environ.pop(ENGINE, None)
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Running:
    """A run whose jobs take as long as somebody lets them. jobs: pids of the workers that have one."""

    def __init__(self, process: subprocess.Popen[str], path: Path, workers: int) -> None:
        self.process = process
        self._path = path
        self.started(workers)
        self.jobs = [int(line.split()[1]) for line in path.read_text().splitlines()]

    def started(self, number: int) -> list[float]:
        """When jobs were started, as soon as there are so many starts."""
        deadline = time.monotonic() + PATIENCE
        while not self._path.exists() or self._path.read_text().count("\n") < number:
            if time.monotonic() > deadline:
                raise Failed(f"not {number} starts of jobs after {PATIENCE:g} s")
            time.sleep(0.001)
        return [float(line.split()[0]) for line in self._path.read_text().splitlines()]

    def above(self, job: int, entry: str) -> psutil.Process:
        """Of the processes that a worker comes from, the one whose command line has this word."""
        for process in psutil.Process(job).parents():
            if any(entry in word for word in process.cmdline()):
                return process
        raise Failed(f"no process {entry} above a worker")


@contextlib.contextmanager
def _running(bench: Bench, jobs: int) -> Iterator[_Running]:
    path = Path(bench.place()) / "starts.txt"
    keywords = {"output": bench.place(), "path": str(path), "jobs": jobs}
    with (bench.folder / "stderr.txt").open("w") as errors:
        process = start("longhaul_program.py", "held", json.dumps(keywords), stderr=errors)
        try:
            yield _Running(process, path, jobs)
        finally:
            end(process)


def _raylet(bench: Bench) -> Numbers:
    """The raylet of the only job is killed: until the job runs on the other one."""
    with _running(bench, 1) as run:
        raylet = run.above(run.jobs[0], "raylet/raylet")
        time.sleep(bench.sizes.settle_seconds)
        killed = time.monotonic()
        raylet.kill()
        again = run.started(2)[1]
    return {"seconds": again - killed}


def _ended(bench: Bench) -> Numbers:
    """The supervisor is killed: until no process of the run is left on any node."""
    with _running(bench, 2) as run:
        agents = [run.above(job, "node_agent") for job in run.jobs]
        family = [process for agent in agents for process in (agent, *agent.children(recursive=True))]
        killed = time.monotonic()
        os.kill(run.process.pid, signal.SIGKILL)
        while any(_lives(process) for process in family):
            if time.monotonic() > killed + PATIENCE:
                raise Failed("processes are left on the nodes")
            time.sleep(0.001)
        seconds = time.monotonic() - killed
    return {"seconds": seconds, "processes": len(family)}


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _quiet(bench: Bench) -> Numbers:
    """The CPU time of driver, carriers and agents while two workers are in jobs that take long."""
    with _running(bench, 2) as run:
        agents = [run.above(job, "node_agent") for job in run.jobs]
        carriers = [found for agent in agents if (found := agent.parent()) is not None]
        supervisor = psutil.Process(run.process.pid)
        groups = {
            "supervisor": [supervisor],
            "driver": supervisor.children(),
            "carriers": carriers,
            "agents": agents,
        }
        time.sleep(bench.sizes.settle_seconds)
        began = time.monotonic()
        before = {name: sum(cpu_seconds(each.pid) for each in group) for name, group in groups.items()}
        time.sleep(bench.sizes.quiet_seconds)
        used = {
            name: sum(cpu_seconds(each.pid) for each in group) - before[name]
            for name, group in groups.items()
        }
        seconds = time.monotonic() - began
    shares = {f"{name}_percent": 100 * value / seconds for name, value in used.items()}
    return {"share": sum(used.values()) / seconds - used["supervisor"] / seconds, **shares}


CLUSTER_SITUATIONS: dict[str, Callable[[Bench], Numbers]] = {
    "raylet": _raylet,
    "ended": _ended,
    "quiet": _quiet,
}


def measure_cluster(
    bench: Bench, contender: str, situation: str, common: dict[str, Callable[[Bench, str], Numbers]]
) -> Numbers:
    """`common`: the situations that are the same on one machine."""
    with raylets(bench):
        if contender == BESIDE:
            os.environ.pop(ENGINE)
        elif situation in CLUSTER_SITUATIONS:
            return CLUSTER_SITUATIONS[situation](bench)
        else:
            bench.ours("tiny", output=bench.place(), jobs=WORKERS)
        return common[situation](bench, "longhaul")
