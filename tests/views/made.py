"""Snapshots and failures to show."""

from __future__ import annotations

from typing import Any

from supervisor.core.state.snapshot import (
    FailureSnapshot,
    NeedsSnapshot,
    NodeSnapshot,
    RunSnapshot,
    UnfitJobs,
    WaitingJob,
    WorkerSnapshot,
)
from supervisor.core.terms.jobs import Counts


def counts(completed: int = 740, failed: int = 3, in_progress: int = 6, pending: int = 1251) -> Counts:
    return Counts(completed + failed + in_progress + pending, completed, failed, in_progress, pending)


def worker(slot: int, **more: Any) -> WorkerSnapshot:
    given: dict[str, Any] = {
        "worker": slot,
        "pid": 1000 + slot,
        "incarnation": slot + 1,
        "status": "ready",
        "job": f"iris/forest/{slot}",
        "attempt": 1,
        "seconds": 60.0 * slot,
        "rss_bytes": 1 << 30,
        "cpu_percent": 98.0,
    }
    return WorkerSnapshot(**{**given, **more})


def snapshot(*, workers: int = 6, **more: Any) -> RunSnapshot:
    given: dict[str, Any] = {
        "experiment_id": "experiment_20251014_223000",
        "name": "pilot_experiment",
        "directory": "/data/outputs/pilot_experiment",
        "state": "running",
        "counts": counts(),
        "elapsed": 8000.0,
        "rate": 1.2,
        "eta_seconds": 5 * 3600.0,
        "workers": [worker(slot) for slot in range(workers)],
    }
    return RunSnapshot(**{**given, **more})


def needs(**more: Any) -> NeedsSnapshot:
    given: dict[str, Any] = {
        "cpus": (3.5, 4),
        "memory": (6 << 30, 15 << 30),
        "gpus": (1.5, 2),
        "resources": {"license": (1, 2)},
        "waiting": WaitingJob("big/7", "3 cores (2 free)"),
        "unfit": UnfitJobs(2, "big/9", "asks for 8 cores, but there are 4 (--workers)"),
    }
    return NeedsSnapshot(**{**given, **more})


def failure(job: str = "iris/forest/200", **more: Any) -> FailureSnapshot:
    given: dict[str, Any] = {
        "job": job,
        "domain": "iris",
        "outcome": "raised",
        "type": "ValueError",
        "message": "no such split",
        "where": "model.py:88",
        "attempt": 1,
        "final": True,
        "seconds": 12.0,
    }
    return FailureSnapshot(**{**given, **more})


def crash(job: str = "iris/forest/300", **more: Any) -> FailureSnapshot:
    given: dict[str, Any] = {
        "outcome": "crashed",
        "type": "",
        "where": "",
        "message": "its worker was killed by SIGSEGV",
        "signal": 11,
        "peak_rss": 2 << 30,
    }
    return failure(job, **{**given, **more})


def node(number: int, **more: Any) -> NodeSnapshot:
    given: dict[str, Any] = {
        "node": f"node{number} (host)",
        "workers": 4,
        "busy": 3,
        "slots": 4,
        "cores": 4,
        "load": 3.9,
        "cpu_percent": 385.0,
        "memory_used": 6 << 30,
        "memory_total": 15 << 30,
        "heard_age": 2.0,
        "place": number,
    }
    return NodeSnapshot(**{**given, **more})
