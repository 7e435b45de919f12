"""The peers' side of the benchmark: one library, one situation, one fresh process.

    python tools/benchmark/peers.py PEER SITUATION '{"jobs": 20000}'

The last line of its output is a JSON object; tools/bench.py starts it. Each library is used
as its documentation shows, with two workers, one job at a time where one can choose.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.durable_peers import dbos_map, parsl_map, submitit_map
from tools.benchmark.jobs import FRAGILE_JOBS, fragile, fragile_tasks, noop, note, spin

WORKERS = 2
Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


@contextlib.contextmanager
def _executor() -> Iterator[Map]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda function, values: pool.map(function, values, chunksize=1)


@contextlib.contextmanager
def _pool() -> Iterator[Map]:
    import multiprocessing

    with multiprocessing.Pool(WORKERS) as pool:
        yield pool.imap_unordered


@contextlib.contextmanager
def _joblib() -> Iterator[Map]:
    from joblib import Parallel, delayed

    with Parallel(n_jobs=WORKERS, return_as="generator_unordered") as parallel:

        def run(function: Callable[[Any], Any], values: Sequence[Any]) -> Iterable[Any]:
            found: Iterable[Any] = parallel(delayed(function)(value) for value in values)
            return found

        yield run


@contextlib.contextmanager
def _loky() -> Iterator[Map]:
    from loky import get_reusable_executor

    with get_reusable_executor(max_workers=WORKERS) as pool:
        yield lambda function, values: pool.map(function, values, chunksize=1)


@contextlib.contextmanager
def _mpire() -> Iterator[Map]:
    from mpire.pool import WorkerPool

    with WorkerPool(n_jobs=WORKERS, keep_alive=True) as pool:
        yield pool.imap_unordered


@contextlib.contextmanager
def _pebble() -> Iterator[Map]:
    from pebble import ProcessPool

    with ProcessPool(max_workers=WORKERS) as pool:
        yield lambda function, values: pool.map(function, values, chunksize=1).result()


@contextlib.contextmanager
def _ray() -> Iterator[Map]:
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="error", log_to_driver=False)

    def run(function: Callable[[Any], Any], values: Sequence[Any]) -> Iterator[Any]:
        remote = ray.remote(function)
        waiting = [remote.remote(value) for value in values]
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=min(100, len(waiting)))
            yield from ray.get(done)

    yield run
    ray.shutdown()


@contextlib.contextmanager
def _dask() -> Iterator[Map]:
    from distributed import Client, as_completed

    with Client(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as client:

        def run(function: Callable[[Any], Any], values: Sequence[Any]) -> Iterator[Any]:
            futures = client.map(function, values, pure=False)
            for _, result in as_completed(futures, with_results=True):
                yield result

        yield run


@contextlib.contextmanager
def _bare() -> Iterator[Map]:
    """No library: each process has its half of the jobs from the beginning."""
    import multiprocessing

    def run(function: Callable[[Any], Any], values: Sequence[Any]) -> Iterator[Any]:
        if len(values) < WORKERS:
            return
        readers = []
        for number in range(WORKERS):
            reader, writer = multiprocessing.Pipe(duplex=False)
            half = (function, values[number::WORKERS], writer)
            multiprocessing.Process(target=_do_all, args=half, daemon=True).start()
            readers.append(reader)
        for reader in readers:
            yield from reader.recv()

    yield run


def _do_all(function: Callable[[Any], Any], values: Sequence[Any], writer: Any) -> None:
    writer.send([function(value) for value in values])


class Peer(NamedTuple):
    """`jobs`: how many tiny ones are enough to measure it; `module`: what must be installed."""

    shown: str
    module: str
    distribution: str  # "": of the standard library
    jobs: int
    open: Callable[[], AbstractContextManager[Map]]
    heavy: bool = False
    situations: tuple[str, ...] = ("tiny", "cpu_1ms", "cpu_10ms", "killed")  # in which it is measured


_CPU = ("cpu_1ms", "cpu_10ms")
PEERS = {
    "bare": Peer("two bare processes, each with its half", "multiprocessing", "", 0, _bare, situations=_CPU),
    "executor": Peer("`ProcessPoolExecutor.map`, chunksize 1", "concurrent.futures", "", 20_000, _executor),
    "pool": Peer("`multiprocessing.Pool.imap_unordered`", "multiprocessing", "", 50_000, _pool),
    "joblib": Peer('joblib, `return_as="generator_unordered"`', "joblib", "joblib", 200_000, _joblib),
    "loky": Peer("loky, `map`, chunksize 1", "loky", "loky", 10_000, _loky),
    "mpire": Peer("mpire, `imap_unordered`, its own chunks", "mpire", "mpire", 200_000, _mpire),
    "pebble": Peer("pebble, `map`, chunksize 1", "pebble", "pebble", 20_000, _pebble),
    "ray": Peer("Ray, one task per job", "ray", "ray", 5_000, _ray, heavy=True),
    "dask": Peer("Dask distributed, `map`", "distributed", "distributed", 2_000, _dask, heavy=True),
}
# Of these only a few jobs are measured, and only when they are named: each costs them more.
_FEW = ("tiny", "cpu_10ms")
DURABLE_PEERS = {
    "parsl": Peer(
        "Parsl, `HighThroughputExecutor`, checkpoint at task exit",
        "parsl",
        "parsl",
        2_000,
        parsl_map,
        heavy=True,
        situations=_FEW,
    ),
    "dbos": Peer(
        "DBOS on SQLite, a queue of workflows, threads",
        "dbos",
        "dbos",
        200,
        dbos_map,
        heavy=True,
        situations=_FEW,
    ),
    "submitit": Peer(
        "submitit, local executor", "submitit", "submitit", 40, submitit_map, heavy=True, situations=_FEW
    ),
}
ALL_PEERS = {**PEERS, **DURABLE_PEERS}


def installed(peer: Peer) -> bool:
    return importlib.util.find_spec(peer.module) is not None


# ------------------------------------------------------------------------- situations


def _consume(values: Iterable[Any]) -> int:
    return sum(1 for _ in values)


def tiny(peer: Peer, jobs: int) -> dict[str, Any]:
    """No-op jobs: seconds from the first to the last with the workers there already, and
    seconds from nothing to everything closed."""
    opened = time.monotonic()
    with peer.open() as run:
        _consume(run(noop, range(10)))
        started = time.monotonic()
        done = _consume(run(noop, range(jobs)))
        seconds = time.monotonic() - started
    assert done == jobs, f"{done} of {jobs} jobs"
    return {"jobs": jobs, "seconds": seconds, "whole_seconds": time.monotonic() - opened}


def cpu(peer: Peer, jobs: int, each: float) -> dict[str, Any]:
    """Jobs that use the CPU: start, end and CPU seconds of each."""
    with peer.open() as run:
        _consume(run(noop, range(10)))
        return {"spans": list(run(spin, [each] * jobs))}


def killed(peer: Peer, path: str) -> dict[str, Any]:
    """A job kills its worker: how many results came, and what was raised."""
    completed = 0
    errors: list[str] = []
    try:
        with peer.open() as run:
            results = iter(run(fragile, fragile_tasks(path)))
            while len(errors) < FRAGILE_JOBS:
                try:
                    next(results)
                    completed += 1
                    note(path, "result")
                except StopIteration:
                    break
                except Exception as error:
                    errors.append(type(error).__name__)
    except Exception as error:
        errors.append(type(error).__name__)
    return {"completed": completed, "errors": errors}


SITUATIONS: dict[str, Callable[..., dict[str, Any]]] = {"tiny": tiny, "cpu": cpu, "killed": killed}


def main() -> None:
    name, situation, keywords = sys.argv[1:]
    found = SITUATIONS[situation](ALL_PEERS[name], **json.loads(keywords))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
