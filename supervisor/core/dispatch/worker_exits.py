"""How a worker ended: as an outcome, as a sentence, as a record. Pure."""

from __future__ import annotations

import msgspec

from supervisor.core.state.worker_state import STARTING, STOPPING, WorkerState
from supervisor.core.terms.events import NODE_LOST, WorkerDied
from supervisor.core.terms.records import WorkerEnded
from supervisor.core.terms.wording import signal_name

_REQUESTED_EXITS = (1, 2, 15)  # SIGHUP, SIGINT, SIGTERM: it was asked to end
CANCELLED = "called off by hand (longhaul ctl cancel)"


def classify_exit(worker: WorkerState, event: WorkerDied, *, draining: bool) -> str:
    """The outcome of the attempt that a worker ran when it died."""
    if worker.kill_reason is not None:
        return worker.kill_reason.outcome
    if event.cause:
        return "lost" if event.cause == NODE_LOST else "interrupted"
    # How it ended is unknown if its parent, the zygote, has died before it.
    left = worker.leaving and event.signal is None and event.exit_code is None
    return "interrupted" if draining or left or event.signal in _REQUESTED_EXITS else "crashed"


def worker_ended_record(worker: WorkerState, event: WorkerDied, kind: str, at: str) -> WorkerEnded:
    """The record of a worker's end. `kind`: the outcome of its attempt."""
    if worker.kill_reason is not None:
        why = "killed"
    elif worker.status == STARTING:
        why = "never_ready"
    elif worker.status == STOPPING and event.exit_code == 0:
        why = "finished"
    else:
        why = kind
    return WorkerEnded(
        worker=worker.slot,
        incarnation=worker.incarnation,
        why=why,
        at=at,
        pid=worker.pid,
        exit_code=event.exit_code,
        signal=event.signal,
        peak_rss=max(event.peak_rss or 0, event.earlier_peak_rss) or None,
        peak_lease=event.earlier_peak_lease if event.earlier_peak_rss >= (event.peak_rss or 0) else None,
        error=worker.error,
    )


def with_measured_peak(event: WorkerDied, measured: int) -> WorkerDied:
    """The event with the larger of two peaks in bytes: that of the worker process alone, and `measured`, with
    its descendants."""
    alone = 0 if event.peak_is_shared else event.peak_rss or 0
    return msgspec.structs.replace(event, peak_rss=max(alone, measured), peak_is_shared=False)


def describe_exit(kind: str, death: WorkerDied, seconds: float) -> str:
    """How an attempt ended with its worker, in a sentence; with the place in the code if known."""
    message = _describe_cause(kind, death, seconds)
    if not death.where:
        return message
    return (
        f"{message}, in {death.function} ({death.where})"
        if death.function
        else f"{message}, at {death.where}"
    )


def _describe_cause(kind: str, death: WorkerDied, seconds: float) -> str:
    if kind == "timed_out":
        return f"stopped after {seconds:.1f} s: longer than its timeout"
    if kind == "cancelled":
        return CANCELLED
    if kind == "interrupted":
        return "stopped in the middle"
    if death.cause == NODE_LOST:
        return "the node that it ran on was lost"
    if death.signal is not None:
        name = signal_name(death.signal)
        perhaps = ", perhaps because the memory was used up" if name == "SIGKILL" else ""
        return f"its worker was killed by {name}{perhaps}"
    if death.exit_code is not None:
        return f"its worker exited with code {death.exit_code} before there was a result"
    return "its worker died before there was a result"


def with_log_path(message: str, event: WorkerDied) -> str:
    """The message about a worker without a job, with the path of its output."""
    return f"{message.rstrip()}; all that it has printed is in {event.log}" if event.log else message


def exit_phrase(event: WorkerDied) -> str:
    if event.output:
        return event.output
    if event.signal is not None:
        return f"killed by {signal_name(event.signal)}"
    return "it left no trace" if event.exit_code is None else f"exit code {event.exit_code}"
