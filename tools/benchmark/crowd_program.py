"""Many workers, and what a kill leaves of tiny jobs: one situation, one fresh process; a script like a user's.

    python tools/benchmark/crowd_program.py start '{"output": "DIR", "workers": 256, "lock": "FILE"}'

The last line of its output is a JSON object; tools/bench.py starts it. Workers import it.
"""

from __future__ import annotations

import fcntl
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from supervisor.api import run
from supervisor.core.terms.jobs import Job
from tools.benchmark.jobs import noop


def nap(number: int, seconds: float, path: str = "") -> None:
    """`path`: of a lock that is to be given up before."""
    if path:
        until_unlocked(number, path)
    time.sleep(seconds)


def until_unlocked(number: int, path: str) -> None:
    """Use no CPU until the lock on a file is given up."""
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)


def workers(output: str, workers: int, each: int, lock: str, seconds: float = 1.0) -> dict[str, Any]:
    """Jobs that sleep, `each` of them for every worker: microseconds of the supervisor's CPU for each outcome, from
    when there are two for each worker until each has one left.

    The first job of each begins when all workers are ready: a start costs more than some outcomes, and on a busy
    machine it would last until half of the jobs have ended. These jobs are of different lengths, so that outcomes come
    one after the other.
    """
    at: list[tuple[float, float, int]] = []

    def turned(loop: Any, ready: bool) -> None:
        at.append((time.monotonic(), time.process_time(), loop.scheduler.finished_attempts))

    jobs = workers * each
    first = [{"seconds": seconds * number / workers, "path": lock} for number in range(workers)]
    params = first + [{"seconds": seconds}] * (jobs - workers)
    plan = [Job(id=f"job/{number}", params={"number": number, **more}) for number, more in enumerate(params)]
    report = _run_gated(nap, plan, output, workers, lock, turned)
    assert report.counts.completed == jobs, report.counts
    steady = [turned for turned in at if 2 * workers <= turned[2] <= jobs - workers]
    (began, cpu, before), (ended, cpu_then, last) = steady[0], steady[-1]
    return {"each_us": 1e6 * (cpu_then - cpu) / (last - before), "rate": (last - before) / (ended - began)}


def start(output: str, workers: int, lock: str) -> dict[str, Any]:
    """Seconds from the order to start so many workers until all are ready, and this process's CPU meanwhile."""
    at: dict[str, tuple[float, float]] = {}

    def turned(loop: Any, ready: bool) -> None:
        if ready:
            at.setdefault("ready", (time.monotonic(), time.process_time()))

    def ordered() -> None:
        at.setdefault("ordered", (time.monotonic(), time.process_time()))

    plan = [Job(id=f"job/{number}", params={"number": number, "path": lock}) for number in range(workers)]
    _run_gated(until_unlocked, plan, output, workers, lock, turned, ordered)
    (ordered_at, cpu), (all_ready, cpu_then) = at["ordered"], at["ready"]
    return {"seconds": all_ready - ordered_at, "cpu": cpu_then - cpu}


def _run_gated(
    function: Callable[..., None],
    plan: list[Job],
    output: str,
    workers: int,
    lock: str,
    turned: Callable[[Any, bool], None],
    turns: Callable[[], None] = lambda: None,
) -> Any:
    """Run jobs, and give up a lock when all workers are ready; the report. turns: called before each turn of the loop;
    turned: after it, with whether they are ready."""
    from unittest.mock import patch

    from supervisor.core.dispatch.dispatcher import Dispatcher
    from supervisor.session.loop import Loop

    ready: set[int] = set()
    turn, is_ready = Loop._turn, Dispatcher.worker_is_ready
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def timed(self: Loop, events: Any) -> None:
            turns()
            turn(self, events)
            turned(self, len(ready) == workers)
            if len(ready) == workers:
                fcntl.flock(file, fcntl.LOCK_UN)

        def noted(self: Dispatcher, worker: Any, *more: Any) -> None:
            ready.add(worker.incarnation)
            is_ready(self, worker, *more)

        with patch.object(Loop, "_turn", timed), patch.object(Dispatcher, "worker_is_ready", noted):
            return run(function, plan, name="bench", output=output, workers=workers)


def tiny(output: str, jobs: int, resume: bool) -> dict[str, Any]:
    """No-op jobs, for somebody who kills this process."""

    def plan() -> Iterator[Job]:
        for number in range(jobs):
            yield Job(id=f"job/{number}", params={"number": number})

    settings: Any = {"resume": "latest"} if resume else {}
    report = run(noop, plan, name="bench", output=output, workers=2, **settings)
    assert report.counts.completed == jobs, report.counts
    return {}


SITUATIONS: dict[str, Callable[..., dict[str, Any]]] = {"workers": workers, "start": start, "tiny": tiny}

if __name__ == "__main__":
    situation, keywords = sys.argv[1:]
    print(json.dumps(SITUATIONS[situation](**json.loads(keywords))), flush=True)
