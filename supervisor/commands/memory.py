"""`longhaul memory`: which jobs took most memory, and when.

Known are the samples in the journal (every five minutes, and whenever a worker has grown
much), the peak of a job that its worker died with, and the peak of each worker's whole life, which is
told when it is more than was measured of any of its jobs, with the job that it was, as far as known.
"""

from __future__ import annotations

import argparse
import heapq
from collections import deque

import msgspec

from supervisor.commands.attempts import Attempt, Attempts
from supervisor.commands.lookup import add_experiment, the_experiment
from supervisor.commands.show import clock
from supervisor.commands.tables import add_json, emit, emit_json, show_table
from supervisor.core.terms.records import Leased, WorkerEnded
from supervisor.core.terms.wording import duration, shorten, size
from supervisor.experiment.experiment_status import is_running
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_reader import history

_TOLERANCE = 1.1  # a worker's peak that much above all samples hides something
_LAST_JOBS = 3


class WorkerPeak(msgspec.Struct):
    """A worker that was larger once than any sample of it. `jobs`: the last ones it had. `job`: the one
    by which it was so large, "" if that is not known."""

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
    parser.add_argument("-n", "--most", type=_count, default=20, metavar="N", help="so many (default: 20)")
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
    if not use.attempts:
        emit(
            f"{layout.experiment_id}: no job's memory was measured; the first sample comes after some minutes"
        )
    else:
        rows = [
            [
                size(one.peak_rss or 0),
                clock(one.peak_at),
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
    if use.workers:
        emit("\nworkers that were larger between two samples, and by which job:")
        for worker in use.workers:
            jobs = "not known, the last were " + ", ".join(shorten(job, 60) for job in worker.jobs)
            emit(
                f"  {size(worker.peak_rss)}  worker {worker.worker}, pid {worker.pid}, until "
                f"{clock(worker.ended)}: {shorten(worker.job, 60) if worker.job else jobs}"
            )
    return 0


def memory_use(layout: Layout, most: int, *, live: bool) -> MemoryUse:
    """The attempts and the workers with the highest peaks."""
    top: list[tuple[int, int, Attempt]] = []
    seen: dict[int, int] = {}  # the highest peak known of any attempt, by pid
    count = 0

    def note(attempt: Attempt) -> None:
        nonlocal count
        if not attempt.peak_rss:
            return
        count += 1
        seen[attempt.pid or 0] = max(seen.get(attempt.pid or 0, 0), attempt.peak_rss)
        heapq.heappush(top, (attempt.peak_rss, -count, attempt))
        if len(top) > most:
            heapq.heappop(top)

    fold = Attempts(note)
    jobs: dict[int, deque[str]] = {}  # by incarnation
    ended: list[WorkerPeak] = []
    for record in history(layout):
        fold.apply(record)
        if isinstance(record, Leased):
            jobs.setdefault(record.incarnation, deque(maxlen=_LAST_JOBS)).extend(record.jobs)
        elif isinstance(record, WorkerEnded):
            last = list(jobs.pop(record.incarnation, ()))
            if record.peak_rss and last:
                ended.append(
                    WorkerPeak(
                        record.worker, record.pid, record.peak_rss, record.at, last, lease=record.peak_lease
                    )
                )
    if live:
        for attempt in fold.running():
            note(attempt)
    hidden = [worker for worker in ended if worker.peak_rss > _TOLERANCE * seen.get(worker.pid, 0)]
    hidden.sort(key=lambda worker: -worker.peak_rss)
    _name_jobs(layout, hidden[:most])
    return MemoryUse([attempt for _, _, attempt in sorted(top, reverse=True)], hidden[:most])


def _name_jobs(layout: Layout, workers: list[WorkerPeak]) -> None:
    """By their leases, in a second reading: nobody has to remember all of them for that."""
    wanted = {worker.lease: worker for worker in workers if worker.lease is not None}
    if not wanted:
        return
    for record in history(layout):
        if isinstance(record, Leased):
            for lease, worker in wanted.items():
                if record.lease <= lease < record.lease + len(record.jobs):
                    worker.job = record.jobs[lease - record.lease]
