"""The state of a run as views, the progress file and the summary may see it. Pure, read-only."""

from __future__ import annotations

from typing import Any

import msgspec

from supervisor.core.terms.jobs import Counts
from supervisor.core.terms.records import Ended


class WorkerSnapshot(msgspec.Struct):
    """One worker. `seconds` is how long its job has been running."""

    worker: int
    pid: int
    incarnation: int
    status: str  # starting, ready, stopping
    job: str | None = None
    attempt: int = 0
    seconds: float = 0.0
    since: str | None = None  # ISO 8601 UTC
    rss_bytes: int = 0
    cpu_percent: float = 0.0
    fraction: float | None = None  # of its job that is done, as the job has reported it
    metrics: dict[str, Any] = {}  # that the job has reported
    reported: float | None = None  # seconds since the job's last report
    slow: bool = False  # much slower than the other jobs of its domain
    place: str = ""  # the node where it is, if there are several


class NodeSnapshot(msgspec.Struct):
    """One node, in a run with several. workers: that it has; busy: those with a job; slots: that it may have.

    load: processes there that run or want to, averaged over a minute; cores: that jobs may take. cpu_percent, of a
    core, and memory_used: of everything on the host, or in its control group. heard_age: seconds since anything was
    heard of it. None: not known.
    """

    node: str
    workers: int
    busy: int
    slots: int
    cores: float
    load: float | None = None
    cpu_percent: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    heard_age: float | None = None
    place: int = -1  # its number


class FailureSnapshot(msgspec.Struct):
    """One attempt that ended badly.

    Attributes
    ----------
    job: its id.
    domain: None if it has none.
    outcome: "raised", "unencodable", "crashed", "timed_out", "over_memory", "cancelled", "interrupted" or "lost".
    type: of the exception, "ValueError"; "" for a crash.
    message: of the exception, or what became of the worker.
    where: the innermost line of the user's own code, "model.py:88"; "" if it is not known.
    attempt: 1 for the first start of the job.
    final: whether the job is failed; else it runs again.
    seconds: how long the attempt took.
    signal: by which the worker died; None if by none.
    exit_code: of a worker that exited, or of a program that ended; None if there is none.
    peak_rss: bytes of memory at most, of the job; None if it is not known.
    traceback: as Python prints it; of a timeout the stack. "" if there is none.
    output_tail: the last lines that the job printed.
    at: when it ended, UTC.
    worker_peak_rss: bytes; in place of `peak_rss` if it is not known how much of that was this job's.
    """

    job: str
    domain: str | None
    outcome: str  # raised, unencodable, crashed, timed_out, ...
    type: str  # "ValueError"; "" for crashes
    message: str
    where: str  # "model.py:88", or ""
    attempt: int
    final: bool
    seconds: float = 0.0
    signal: int | None = None
    exit_code: int | None = None
    peak_rss: int | None = None  # bytes
    traceback: str = ""
    output_tail: str = ""  # last lines that the job printed
    at: str = ""
    worker_peak_rss: int | None = None  # bytes; if it is not known how much of that was this job's


class WaitingJob(msgspec.Struct):
    """A job for which the others have to leave room. `lacks`: what it waits for, `3 cores (2 free)`."""

    job: str
    lacks: str


class UnfitJobs(msgspec.Struct):
    """Jobs of a run that ask for more than there is and stay pending: how many, one of them, and why."""

    jobs: int
    first: str
    why: str


class NeedsSnapshot(msgspec.Struct, omit_defaults=True):
    """What running jobs take, and what there is, in a run whose jobs say what they need.

    Pairs are (taken, total): cores, devices and units of other resources as users write them, memory in bytes.
    memory, gpus: None if no job asks for any; the total of memory is None if it is unknown. More is taken than
    there is while jobs finish that began when there was more.
    """

    cpus: tuple[int | float, int | float]
    memory: tuple[int, int | None] | None = None
    gpus: tuple[int | float, int] | None = None
    resources: dict[str, tuple[int | float, int | float]] = {}
    waiting: WaitingJob | None = None
    unfit: UnfitJobs | None = None


class RunSnapshot(msgspec.Struct):
    """A run at one moment. Durations in seconds, `rate` in jobs per second."""

    experiment_id: str
    name: str
    directory: str  # absolute: data/outputs/<name>
    state: str  # running, draining, paused, waiting_for_space, finished, interrupted
    counts: Counts
    elapsed: float
    rate: float = 0.0
    eta_seconds: float | None = None
    workers: list[WorkerSnapshot] = []
    grace_left: float | None = None  # while draining
    waiting_for: str = ""  # why nothing is handed out, in words
    retries: int = 0
    crashes: int = 0
    timeouts: int = 0
    gone: int = 0  # jobs of earlier plans that this plan does not have
    unselected: int = 0  # pending jobs that --only leaves out
    checkpoint_age: float | None = None
    domains: dict[str, Counts] = {}  # a little older than `counts` when there are many jobs
    disk_free: int | None = None  # bytes, where the experiment is
    memory_free: int | None = None  # bytes that processes could still get
    memory_total: int | None = None
    needs: NeedsSnapshot | None = None  # if jobs say what they need
    nodes: list[NodeSnapshot] | None = None  # None: this machine alone

    @property
    def asked(self) -> int:
        """Jobs that are finished or that this run is to finish: those that --only leaves out are none."""
        return self.counts.total - self.unselected


def failure_of(record: Ended, domain: str | None) -> FailureSnapshot:
    """A record of an attempt that ended without a result, as a view wants it."""
    error = record.error or {}
    return FailureSnapshot(
        job=record.job,
        domain=domain,
        outcome=record.outcome,
        type=error.get("type", ""),
        message=error.get("message", ""),
        where=error.get("where", ""),
        attempt=record.attempt,
        final=record.state == "failed",
        seconds=record.seconds,
        signal=error.get("signal"),
        exit_code=error.get("exit_code"),
        peak_rss=error.get("peak_rss"),
        traceback=error.get("traceback", ""),
        output_tail=error.get("output_tail", ""),
        at=record.at,
        worker_peak_rss=error.get("worker_peak_rss"),
    )
