"""An experiment on disk as a night of many workers leaves it, written by longhaul's own store without running a job.

python tools/benchmark/long_history.py '{"output": "/tmp/there", "jobs": 1000000}'
"""

from __future__ import annotations

import heapq
import json
import math
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import (
    Completions,
    Ended,
    Leased,
    Noted,
    Paused,
    RunEnded,
    RunStarted,
    Sampled,
    Unpaused,
    WorkerEnded,
    WorkerStarted,
)
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from supervisor.storage.plan.plan_builder import PlanBuilder
from supervisor.storage.store import Store

BEGAN = datetime(2026, 3, 1, 21, 0, tzinfo=UTC)
SETTINGS = {"workers": 2, "all_tasks": True, "retries": 1, "retry_failed": True}
SAMPLE_EVERY = 60.0
TRACEBACK = (
    'Traceback (most recent call last):\n  File "model.py", line {line}, in fit\nValueError: split {job}\n'
)


def write_history(
    output: str,
    jobs: int,
    *,
    workers: int = 16,
    hours: float = 8.0,
    runs: int = 1,
    failing: float = 0.001,
    kinds: int = 12,
    columns: int = 4,
    seed: int = 1,
    name: str = "night",
    finished: bool = True,
) -> Layout:
    """Jobs end in batches of one worker; some fail, in so many kinds; memory is sampled every minute.

    columns: numbers in each result. runs: the time is cut by so many runs, with hours between them, and each of them
    but the last died. Without `finished` the last one did, too, and a tenth of the jobs is left.
    """
    return _History(output, jobs, workers, hours, runs, failing, kinds, columns, seed, name).write(
        finished=finished
    )


class _History:
    def __init__(
        self,
        output: str,
        jobs: int,
        workers: int,
        hours: float,
        runs: int,
        failing: float,
        kinds: int,
        columns: int,
        seed: int,
        name: str,
    ) -> None:
        self.rng = random.Random(seed)
        self.jobs, self.workers, self.runs = jobs, workers, runs
        self.mean = hours * 3600 * workers / jobs
        self.failing, self.kinds, self.columns = failing, kinds, columns
        self.layout = Layout(output, name)
        self.ids = [f"d{number % 7}/run/{number}" for number in range(jobs)]
        builder = PlanBuilder()
        for number, job_id in enumerate(self.ids):
            params = {"n": number, "lr": 10.0 ** -(number % 5), "model": "abc"[number % 3], "fixed": "same"}
            builder.add(job_id, f"d{number % 7}", msgspec.json.encode(params))
        self.store = Store.create(
            self.layout,
            name=name,
            plan=builder,
            table=JobTable(),
            lock=Lock.none(),
            settings=SETTINGS,
            options={},
        )
        self.lease = 1

    def write(self, *, finished: bool) -> Layout:
        last = self.jobs if finished else self.jobs * 9 // 10
        started = 0.0
        for run in range(1, self.runs + 1):
            begin, end = last * (run - 1) // self.runs, last * run // self.runs
            started = self._run(run, started, range(begin, end), over=finished and run == self.runs)
            started += 4 * 3600
        if finished:
            self.store.close(Position(self.runs, self.lease, self.runs * self.workers + 1, [], []))
        else:
            self.store.release()
        return self.layout

    def _run(self, run: int, started: float, jobs: range, *, over: bool) -> float:
        at = clock(started)
        resumed = ["--resume", "night"] if run > 1 else []
        entry = {
            "directory": "/home/somebody/work",
            "sys_argv": ["night.py", *resumed],
            "function": ["__main__", "evaluate"],
        }
        argv = ["python", "night.py", *resumed]
        self.store.append(
            [
                RunStarted(
                    run,
                    at,
                    SETTINGS,
                    argv=argv,
                    host="machine",
                    pid=4000 + run,
                    entry=entry,
                    jobs=self.jobs,
                    offered=self.jobs,
                )
            ]
        )
        base = (run - 1) * self.workers + 1
        self.store.append([WorkerStarted(slot, base + slot, 5000 + slot, at) for slot in range(self.workers)])
        end, sample_at = started, started + SAMPLE_EVERY
        rss = [200 << 20] * self.workers
        for when, slot, batch, seconds in self._batches(started, jobs):
            while when > sample_at:
                rss = [int(size * self.rng.uniform(0.97, 1.04)) for size in rss]
                free = (32 << 30) - sum(rss)
                self.store.append(
                    [Sampled(clock(sample_at), {str(i): size for i, size in enumerate(rss)}, {}, free)]
                )
                sample_at += SAMPLE_EVERY
            self._end(slot, base + slot, when, batch, seconds)
            end = max(end, when)
        self._incidents(run, started, end, base)
        if over:
            at = clock(end + 0.1)
            self.store.append(
                [WorkerEnded(slot, base + slot, "finished", at) for slot in range(self.workers)]
            )
            self.store.append([RunEnded(run, "finished", at, 1 if self.failing else 0)])
        return end

    def _batches(self, started: float, jobs: range) -> Iterator[tuple[float, int, list[int], list[float]]]:
        """(end, worker, jobs, seconds), in the order in which they end."""
        most = max(1, min(64, int(0.1 / self.mean)))
        free = [(started + 0.5, slot) for slot in range(self.workers)]
        waiting: list[tuple[float, int, list[int], list[float]]] = []
        place = jobs.start
        while place < jobs.stop:
            begun, slot = heapq.heappop(free)
            batch = list(range(place, min(place + most, jobs.stop)))
            place += len(batch)
            seconds = [
                self.mean * self.rng.lognormvariate(-0.3, 0.8) * (1 + 0.3 * (job % 7)) / 1.9 for job in batch
            ]
            end = begun + sum(seconds)
            heapq.heappush(free, (end + 0.0002, slot))
            heapq.heappush(waiting, (end, slot, batch, seconds))
            while waiting and waiting[0][0] <= free[0][0]:
                yield heapq.heappop(waiting)
        while waiting:
            yield heapq.heappop(waiting)

    def _end(self, slot: int, incarnation: int, when: float, batch: list[int], seconds: list[float]) -> None:
        at, table = clock(when), self.store.table
        ids = [self.ids[job] for job in batch]
        first, self.lease = self.lease, self.lease + len(batch)
        self.store.append([Leased(slot, incarnation, first, ids, clock(when - sum(seconds)))])
        good = [index for index in range(len(batch)) if self.rng.random() >= self.failing]
        if good:
            jobs = [batch[index] for index in good]
            results = [msgspec.json.encode(self._result(job)) for job in jobs]
            took = [round(seconds[index], 6) for index in good]
            leases = [first + index for index in good]
            self.store.append(
                [
                    Completions(
                        slot, at, jobs, [ids[index] for index in good], [1] * len(jobs), took, results, leases
                    )
                ]
            )
            for job, each in zip(jobs, took, strict=True):
                table.state[job], table.attempts[job], table.seconds[job] = COMPLETED, 1, each
        for index in sorted({*range(len(batch))} - {*good}):
            job = batch[index]
            kind = job % self.kinds if self.kinds else 0
            error = {
                "outcome": "raised",
                "type": ("ValueError", "KeyError", "RuntimeError", "OSError")[kind % 4],
                "message": f"no such split: {job}",
                "where": f"model.py:{10 + kind}",
                "traceback": TRACEBACK.format(line=10 + kind, job=job),
                "output_tail": f"reading split {job}\n",
            }
            self.store.append(
                [
                    Ended(
                        ids[index],
                        1,
                        first + index,
                        "raised",
                        "failed",
                        seconds[index],
                        slot,
                        at,
                        error=error,
                    )
                ]
            )
            table.state[job], table.attempts[job], table.seconds[job] = FAILED, 1, seconds[index]
            table.outcome[job] = "raised"

    def _result(self, job: int) -> dict[str, float]:
        found = {"score": math.sin(job) * 10.0 ** -(job % 5), "loss": (job * 7919 % 1000) / 1000}
        for column in range(2, self.columns):
            found[f"metric{column}"] = math.sin(job * column) + column
        return found

    def _incidents(self, run: int, started: float, end: float, base: int) -> None:
        """A pause by hand and a worker that crashed, two thirds on."""
        at = started + (end - started) * 2 / 3
        self.store.append(
            [
                Noted("control", clock(at), {"order": "pause", "what": "paused"}),
                Paused("user", clock(at), "longhaul ctl, uid 1000"),
                Unpaused("user", clock(at + (end - started) / 50), (end - started) / 50),
                WorkerEnded(0, base, "crashed", clock(at), 5000, signal=11),
            ]
        )


def clock(seconds: float) -> str:
    """So many seconds after the night began, as records have it."""
    then = BEGAN + timedelta(seconds=seconds)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    keywords: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps({"directory": str(write_history(**keywords).directory)}))
