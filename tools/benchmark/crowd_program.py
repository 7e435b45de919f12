"""Many workers, and what a kill leaves of tiny jobs: one situation, one fresh process; a script like a user's.

    python tools/benchmark/crowd_program.py workers '{"output": "DIR", "workers": 1000, "each": 6}'

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


def nap(number: int, seconds: float) -> None:
    time.sleep(seconds)


def until_unlocked(number: int, path: str) -> None:
    """Use no CPU until the lock on a file is given up."""
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)


def workers(output: str, workers: int, each: int, seconds: float = 1.0) -> dict[str, Any]:
    """Jobs that sleep, `each` of them for every worker: microseconds of the supervisor's CPU for each outcome, from
    when all workers have ended two until each has one left."""
    from unittest.mock import patch

    from supervisor.session.loop import Loop

    at: list[tuple[float, float, int]] = []
    turn = Loop._turn

    def timed(self: Loop, events: Any) -> None:
        turn(self, events)
        at.append((time.monotonic(), time.process_time(), self.scheduler.finished_attempts))

    jobs = workers * each
    plan = [Job(id=f"job/{number}", params={"number": number, "seconds": seconds}) for number in range(jobs)]
    with patch.object(Loop, "_turn", timed):
        report = run(nap, plan, name="bench", output=output, workers=workers)
    assert report.counts.completed == jobs, report.counts
    steady = [turned for turned in at if 2 * workers <= turned[2] <= jobs - workers]
    (began, cpu, first), (ended, cpu_then, last) = steady[0], steady[-1]
    return {"each_us": 1e6 * (cpu_then - cpu) / (last - first), "rate": (last - first) / (ended - began)}


def start(output: str, workers: int, lock: str) -> dict[str, Any]:
    """Seconds from the order to start so many workers until all are ready, and this process's CPU meanwhile."""
    from unittest.mock import patch

    from supervisor.core.dispatch.dispatcher import Dispatcher
    from supervisor.session.loop import Loop

    at: dict[str, tuple[float, float]] = {}
    ready: set[int] = set()
    turn, is_ready = Loop._turn, Dispatcher.worker_is_ready
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def timed(self: Loop, events: Any) -> None:
            at.setdefault("ordered", (time.monotonic(), time.process_time()))
            turn(self, events)
            if len(ready) == workers and "ready" not in at:
                at["ready"] = time.monotonic(), time.process_time()
                fcntl.flock(file, fcntl.LOCK_UN)

        def noted(self: Dispatcher, worker: Any, *more: Any) -> None:
            ready.add(worker.incarnation)
            is_ready(self, worker, *more)

        plan = [Job(id=f"job/{number}", params={"number": number, "path": lock}) for number in range(workers)]
        with patch.object(Loop, "_turn", timed), patch.object(Dispatcher, "worker_is_ready", noted):
            run(until_unlocked, plan, name="bench", output=output, workers=workers)
    (ordered, cpu), (all_ready, cpu_then) = at["ordered"], at["ready"]
    return {"seconds": all_ready - ordered, "cpu": cpu_then - cpu}


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
