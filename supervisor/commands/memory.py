"""`longhaul memory`: the jobs with the highest peak memory, and when they had it.

The journal has three sources. Samples are taken every minute, of more than 64 workers every five, and when a
worker has grown much. If a worker died during a job, the record of that attempt has the peak. The record of a
worker's end has the peak of its whole life. If it names the job that caused the peak, that job gets it.
Otherwise the worker is listed, if its peak is higher than all samples of its jobs.
"""

from __future__ import annotations

import argparse
import heapq
from collections import deque

import msgspec

from supervisor.commands.attempts import MARK, SAMPLE, Attempt, Attempts, take_mark
from supervisor.commands.lookup import add_experiment, the_experiment
from supervisor.commands.show import clock
from supervisor.commands.tables import add_json, emit, emit_json, show_table
from supervisor.core.terms.records import Ended, WorkerEnded, WorkerStarted
from supervisor.core.terms.wording import duration, shorten, size
from supervisor.experiment.experiment_status import is_running
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_reader import history

_TOLERANCE = 1.1  # a worker is listed if its peak is so many times the highest sample of its jobs
_LAST_JOBS = 3


class WorkerPeak(msgspec.Struct):
    """A worker whose peak is higher than all samples of it. `jobs`: the last ones it ran. `job`: the one that
    caused the peak, "" if unknown."""

    worker: int
    pid: int
    peak_rss: int
    ended: str
    jobs: list[str]
    job: str = ""
    lease: int | None = None


class MemoryUse(msgspec.Struct):
    """Attempts and workers, largest first."""

    attempts: list[Attempt] = []
    workers: list[WorkerPeak] = []


def describe(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    parser.add_argument(
        "-n", "--most", type=_count, default=20, metavar="N", help="show at most N jobs (default: 20)"
    )
    add_json(parser)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    layout = the_experiment(arguments)
    use = memory_use(layout, arguments.most, live=is_running(layout))
    if arguments.json:
        emit_json(use)
        return 0
    unnamed = [worker for worker in use.workers if not worker.job]
    if not use.attempts:
        sampled = "samples are taken every minute, and when a worker has grown beyond 192M"
        text = f"{layout.experiment_id}: no memory use of single jobs was recorded ({sampled})"
        emit(f"{text}; peaks of whole workers:" if unnamed else text)
    else:
        rows = [
            [
                size(one.peak_rss or 0),
                "exact" if one.peak_from == MARK else clock(one.peak_at),
                one.job,
                str(one.attempt or "-"),
                "-" if one.worker is None else str(one.worker),
                one.outcome.replace("_", " "),
                "-" if one.seconds is None else duration(one.seconds),
            ]
            for one in use.attempts
        ]
        heads = ["peak", "at", "job", "attempt", "worker", "outcome", "took"]
        show_table(heads, rows, right=("peak", "attempt", "worker", "took"))
        if any(one.peak_from == MARK for one in use.attempts):
            emit("exact: the high-water mark of the job; a time: when the peak was measured")
        if any(one.peak_from == SAMPLE for one in use.attempts):
            emit("between two samples a job may have used more memory than is shown")
        if unnamed:
            emit(
                "\nworkers with a higher peak than all samples of their jobs (which job caused it is unknown):"
            )
    for worker in unnamed:
        jobs = ", ".join(shorten(job, 60) for job in worker.jobs)
        emit(
            f"  {size(worker.peak_rss)}  worker {worker.worker}, pid {worker.pid}, until "
            f"{clock(worker.ended)}: its last jobs were {jobs}"
        )
    return 0


def memory_use(layout: Layout, most: int, *, live: bool) -> MemoryUse:
    """The attempts and the workers with the highest peaks."""
    marks = {
        record.peak_lease: record.peak_rss or 0
        for record in history(layout)
        if isinstance(record, WorkerEnded) and record.peak_lease is not None
    }
    top: list[tuple[int, int, Attempt]] = []
    seen: dict[int, int] = {}  # the highest sample of any attempt, by pid
    named: dict[int, str] = {}  # the jobs of `marks`
    count = 0

    def note(attempt: Attempt) -> None:
        nonlocal count
        if attempt.peak_rss:
            seen[attempt.pid or 0] = max(seen.get(attempt.pid or 0, 0), attempt.peak_rss)
        if attempt.lease in marks:
            named[attempt.lease] = attempt.job
            take_mark(attempt, marks)
        if not attempt.peak_rss:
            return
        count += 1
        heapq.heappush(top, (attempt.peak_rss, -count, attempt))
        if len(top) > most:
            heapq.heappop(top)

    fold = Attempts(note)
    jobs: dict[int, deque[str]] = {}  # the last that a worker ran, by its slot
    ended: list[WorkerPeak] = []
    for record in history(layout):
        fold.apply(record)
        if isinstance(record, WorkerStarted):
            jobs[record.worker] = deque(maxlen=_LAST_JOBS)
        elif isinstance(record, Ended) and record.worker in jobs:
            jobs[record.worker].append(record.job)
        elif isinstance(record, WorkerEnded):
            last = list(jobs.pop(record.worker, ()))
            if record.peak_rss and last:
                job = named.get(record.peak_lease or 0, "")
                peak = record.worker, record.pid, record.peak_rss, record.at, last
                ended.append(WorkerPeak(*peak, job=job, lease=record.peak_lease))
    if live:
        for attempt in fold.running():
            note(attempt)
    hidden = [worker for worker in ended if worker.peak_rss > _TOLERANCE * seen.get(worker.pid, 0)]
    hidden.sort(key=lambda worker: -worker.peak_rss)
    return MemoryUse([attempt for _, _, attempt in sorted(top, reverse=True)], hidden[:most])
