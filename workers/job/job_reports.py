"""`current_job().report()`: the progress of a running job.

A report may come from any thread of the job, from a signal handler or a forked child, at any rate. It is sent as
one small frame in one write, and never blocks: if the pipe is full, or another thread or child is writing, the
report is dropped. The next one replaces it anyway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from workers.transport.messages import Reported
from workers.transport.worker_queues import PIPE_BUF, WorkerQueues

MAX_METRICS = PIPE_BUF // 2  # bytes, encoded
_MAX_TEXT = 200  # characters of a metric that is text

_encode = msgspec.msgpack.Encoder().encode


class Reporter:
    """Sends reports and notices of jobs to the supervisor."""

    def __init__(self, queues: WorkerQueues) -> None:
        self._queues = queues

    def report(self, job_id: str, fraction: float | None, metrics: dict[str, Any]) -> None:
        self._queues.send_aside(Reported(job_id, fraction, metrics))

    def notice(self, job_id: str, text: str) -> None:
        """A notice for the user."""
        self._queues.send_aside(Reported(job_id, notice=text[:1000]))


def checked(fraction: Any, metrics: Mapping[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """Fraction and metrics as they can be sent. Raises TypeError, ValueError."""
    plain = {name: _metric(name, value) for name, value in metrics.items()}
    size = len(_encode(plain)) if plain else 0
    if size > MAX_METRICS:
        raise ValueError(f"report(): the metrics are {size} bytes, at most {MAX_METRICS} are allowed")
    return _fraction(fraction), plain


def _fraction(value: Any) -> float | None:
    """Between 0 and 1: rounding errors of the caller are no reason to fail a job."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"report(): the fraction is a number from 0 to 1, not {value!r:.100}") from None
    return None if math.isnan(number) else min(1.0, max(0.0, number))


def _metric(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value[:_MAX_TEXT].encode(errors="replace").decode()
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"report(): {name}={value!r:.100} is neither a number nor text") from None
    return number if math.isfinite(number) else str(number)
