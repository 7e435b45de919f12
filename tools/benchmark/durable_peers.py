"""Peers that keep a record of what is done, or give each job to a process of its own, as their documentation shows
them; each is imported only when it is used.

Nothing leaves this machine: Parsl binds to the loopback address and its usage tracking stays off, DBOS has no
conductor and exports no traces.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

WORKERS = 2
POLLING = (
    0.01  # seconds; by default DBOS looks once a second for what is in a queue, Parsl never waits so long
)
Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


def parsl_config(run_dir: Path, workers: int, *, retries: int = 0) -> Any:
    """One block of so many workers on this machine; each result goes to a checkpoint when its task ends."""
    from parsl.config import Config
    from parsl.dataflow.memoization import BasicMemoizer
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    # It starts programs of its own by name; they stand beside the interpreter.
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    executor = HighThroughputExecutor(
        label="local",
        address="127.0.0.1",
        cores_per_worker=0.01,
        max_workers_per_node=workers,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    return Config(
        executors=[executor],
        memoizer=BasicMemoizer(checkpoint_mode="task_exit"),
        retries=retries,
        run_dir=str(run_dir),
        strategy="none",
        usage_tracking=0,
    )


@contextlib.contextmanager
def parsl_map() -> Iterator[Map]:
    import parsl

    with tempfile.TemporaryDirectory() as folder, parsl.load(parsl_config(Path(folder), WORKERS)):

        def run(function: Callable[[Any], Any], values: Sequence[Any]) -> Iterator[Any]:
            # Without the cache: the same values come again, and are to be computed again.
            app = parsl.python_app(function)
            for future in [app(value) for value in values]:
                yield future.result()

        yield run


@contextlib.contextmanager
def dbos_queue(database: Path, workers: int) -> Iterator[str]:
    """DBOS, launched on this database; the name of a queue from which so many workflows run at once."""
    from dbos import DBOS

    DBOS(
        config={
            "name": "batch",
            "system_database_url": f"sqlite:///{database}",
            "application_version": "1",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    try:
        DBOS.register_queue("jobs", worker_concurrency=workers, polling_interval_sec=POLLING)
        yield "jobs"
    finally:
        DBOS.destroy()


@contextlib.contextmanager
def dbos_map() -> Iterator[Map]:
    """Each job a workflow of one step, in threads of this process: DBOS has no worker processes."""
    from dbos import DBOS

    steps: dict[str, Callable[[Any], Any]] = {}

    @DBOS.workflow()  # type: ignore[untyped-decorator]
    def one(name: str, value: Any) -> Any:
        return steps[name](value)

    with tempfile.TemporaryDirectory() as folder, dbos_queue(Path(folder, "dbos.sqlite"), WORKERS) as queue:

        def run(function: Callable[[Any], Any], values: Sequence[Any]) -> Iterator[Any]:
            name = function.__name__
            steps.setdefault(name, DBOS.step()(function))
            for handle in [DBOS.enqueue_workflow(queue, one, name, value) for value in values]:
                yield handle.get_result()

        yield run


def submitit_jobs(
    folder: Path, function: Callable[[Any], Any], values: Sequence[Any], workers: int
) -> Iterator[tuple[Any, Any]]:
    """(value, job that has ended), in the order in which they end. The local executor starts whatever it is given at
    once, so no more than `workers` are given to it."""
    import submitit

    executor = submitit.AutoExecutor(folder=folder, cluster="local")
    executor.update_parameters(timeout_min=60)
    waiting = list(reversed(values))
    running: list[tuple[Any, Any]] = []
    while waiting or running:
        while waiting and len(running) < workers:
            value = waiting.pop()
            running.append((value, executor.submit(function, value)))
        ended = [(value, job) for value, job in running if job.done()]
        running = [(value, job) for value, job in running if not any(job is other for _, other in ended)]
        yield from ended
        if not ended:
            time.sleep(POLLING)


@contextlib.contextmanager
def submitit_map() -> Iterator[Map]:
    with tempfile.TemporaryDirectory() as folder:

        def run(function: Callable[[Any], Any], values: Sequence[Any]) -> Iterator[Any]:
            for _, job in submitit_jobs(Path(folder), function, values, WORKERS):
                yield job.result()

        yield run
