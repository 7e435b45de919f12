"""`longhaul status`: what a progress file says, for people. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from supervisor.core.jobs import Counts
from supervisor.core.snapshot import FailureSnapshot, RunSnapshot, WorkerSnapshot
from supervisor.views.failure_lines import failure_line
from supervisor.views.plain import progress as progress_line
from supervisor.views.words import duration, one_line, shorten, size

_MOST_WORKERS = 64
_MOST_FAILURES = 5
OVER = ("finished", "unfinished", "interrupted")


class ProgressWorker(msgspec.Struct):
    """A worker as the progress file has it."""

    worker: int
    pid: int = 0
    job: str | None = None
    since: str | None = None
    attempt: int = 0
    incarnation: int = 0
    rss_bytes: int = 0
    cpu_percent: float = 0.0
    fraction: float | None = None
    slow: bool = False


class ProgressSupervisor(msgspec.Struct):
    """Whose progress it is."""

    pid: int = 0
    host: str = ""


class Progress(msgspec.Struct):
    """As much of `progress_<id>.json` as is told."""

    experiment_id: str
    state: str
    counts: Counts
    name: str = ""
    saved_at: str = ""
    rate: float = 0.0
    eta_seconds: float | None = None
    elapsed_seconds: float = 0.0
    waiting_for: str = ""
    supervisor: ProgressSupervisor = msgspec.field(default_factory=ProgressSupervisor)
    control: str | None = None  # the socket for `longhaul ctl`
    workers: list[ProgressWorker] = []
    recent_failures: list[FailureSnapshot] = []


def status_text(progress: Progress, now: datetime, *, gone: bool = False, word: str = "") -> str:
    """How an experiment goes. `now` has a time zone; `gone`: its supervisor is known dead; `word`: for
    its state, if the progress file does not know a better one."""
    over = progress.state in OVER
    state = "died" if gone and not over else word or progress.state.replace("_", " ")
    age = seconds_since(progress.saved_at, now)
    when = "" if age is None else f", {duration(age)} ago"
    lines = [f"{one_line(progress.name)} {progress.experiment_id}: {state}{when}".strip()]
    workers = [] if over or gone else progress.workers
    snapshot = RunSnapshot(
        experiment_id=progress.experiment_id,
        name=progress.name,
        directory="",
        state=progress.state,
        counts=progress.counts,
        elapsed=progress.elapsed_seconds,
        rate=0.0 if over or gone else progress.rate,
        eta_seconds=None if over or gone else progress.eta_seconds,
        workers=[WorkerSnapshot(worker.worker, worker.pid, 0, "ready", worker.job) for worker in workers],
        waiting_for="" if over or gone else progress.waiting_for,
    )
    lines.append(f"  {progress_line(snapshot, now.astimezone())}")
    if gone and not over:
        where = f"pid {progress.supervisor.pid} on {progress.supervisor.host}"
        resume = f"--resume {progress.experiment_id}"
        lines.append(f"  its supervisor ({where}) is gone; a resume goes on where it was: {resume}")
        lines.append("  more may be recorded than is counted here: longhaul verify looks into the journal")
    lines.extend(_worker(worker, now) for worker in workers[:_MOST_WORKERS] if worker.job is not None)
    lines.extend(f"  {failure_line(failure)}" for failure in progress.recent_failures[-_MOST_FAILURES:])
    return "\n".join(lines)


def _worker(worker: ProgressWorker, now: datetime) -> str:
    seconds = seconds_since(worker.since or "", now)
    running = "" if seconds is None else duration(seconds)
    name = shorten(one_line(worker.job or ""), 60)
    usage = f"{size(worker.rss_bytes):>6} {worker.cpu_percent:4.0f}%"
    done = "" if worker.fraction is None else f"  {worker.fraction:.0%} done"
    return f"  {worker.worker:>4}  {name:<40}  {running:>8}  {usage}{done}{'  slow' * worker.slow}"


def seconds_since(at: str, now: datetime | str) -> float | None:
    """Between two instants, ISO 8601; None if one cannot be read."""
    try:
        then = datetime.fromisoformat(at)
        now = datetime.fromisoformat(now) if isinstance(now, str) else now
    except ValueError:
        return None
    return (now - then).total_seconds() if then.tzinfo is not None and now.tzinfo is not None else None
