"""The keywords of `main` and `run` as types, for editors and type checkers.

Nothing here is imported when an experiment is run. `request_of_main` and `request_of_run` check
the values. tests/options/test_public_types.py compares the names here with those that they accept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict


class MainSettings(TypedDict, total=False):
    """Keywords that `main` takes beside its parameters: defaults of the options of these names.

    Durations are seconds, or text such as "90s", "15m", "1h30m" and "1-12:00:00". Sizes are bytes, or
    text such as "400M" and "2G". None: no limit. The docstring of `main` says what each one is for.
    """

    workers: int | str
    all_tasks: bool
    timeout: float | str | None
    retries: int
    retry_timeouts: int
    retry_over_memory: bool
    backoff: float | str
    memory_limit: int | str | None
    keep_free: int | str | None
    nice: int
    rate: str | None
    max_failures: int | str | None
    deadline: float | str | None
    stall: float | str | None
    grace: float | str
    crash_limit: int
    checkpoint_every: int
    max_jobs_per_worker: int | None
    seed: int
    start_method: Literal["auto", "zygote", "spawn"]
    retry_failed: bool
    on_finish: str | None
    on_failure: str | None
    hook_timeout: float | str
    job_cpus: float | None
    job_memory: int | str | None
    job_gpus: float | None
    memory: int | str
    gpus: int | str
    resources: Mapping[str, float]
    engine: str
    address: str
    nodes: int | None
    files: Literal["auto", "shared", "ship"]
    ship: str | None
    node_timeout: float | str


class RunSettings(MainSettings, total=False):
    """Keywords that `run` takes beside its parameters: the settings, and what this run is to do."""

    experiment_id: str | None
    resume: str | Literal[False] | None
    only: str | Iterable[str] | None
    rerun: str | Iterable[str] | None
    accept_code: bool
    changed: Literal["refuse", "keep", "rerun"]
    debug: str | None
    show_output: bool
    progress: bool
