"""The scripts that run a batch, one for each library: as its documentation shows it, with two workers.

    python tools/damage/damage_programs.py CONTENDER '{"folder": "DIR", "jobs": 50, "long_from": 0, "crash": 25}'

The same words start a batch and go on with it. The last line of the output is a JSON object: `done`, the numbers
of the jobs whose results are there; `blamed`, number -> what the library says of a job that failed; `lost`, what it
says if the batch as a whole is given up.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.damage.damage_jobs import Batch, job, number_of

WORKERS = 2
ATTEMPTS = 3  # of a job that fails, where a library counts them
Answer = dict[str, Any]


def answer(done: Iterable[int], blamed: dict[int, str] | None = None, lost: str = "") -> Answer:
    return {"done": sorted(done), "blamed": blamed or {}, "lost": lost}


def _of_futures(futures: dict[Future[int], int]) -> Answer:
    done, blamed = [], {}
    for future in as_completed(futures):
        try:
            done.append(future.result())
        except Exception as error:
            blamed[futures[future]] = type(error).__name__
    return answer(done, blamed)


def _longhaul(batch: Batch) -> Answer:
    from supervisor import Job, run

    plan = [Job(id=str(number_of(task)), params={"task": task}) for task in batch.tasks()]
    begun = Path(batch.folder, "logs").exists()
    report = run(
        job, plan, name="batch", output=batch.folder, resume="latest" if begun else None, workers=WORKERS
    )
    return answer(report.results().values(), {int(each.job): each.outcome for each in report.failures()})


def _executor(batch: Batch) -> Answer:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        return _of_futures({pool.submit(job, task): number_of(task) for task in batch.tasks()})


def _joblib(batch: Batch) -> Answer:
    """With a `Memory`: the cache from which a second start takes what there is."""
    from joblib import Memory, Parallel, delayed

    cached = Memory(Path(batch.folder, "cache"), verbose=0).cache(job)
    done: list[int] = []
    try:
        with Parallel(n_jobs=WORKERS, return_as="generator_unordered") as parallel:
            done.extend(
                parallel(delayed(cached)(task) for task in batch.tasks())
            )  # as many as there are before it
    except Exception as error:
        return answer(done, lost=type(error).__name__)
    return answer(done)


def _parsl(batch: Batch) -> Answer:
    import parsl

    from tools.benchmark.durable_peers import parsl_config

    with parsl.load(parsl_config(Path(batch.folder, "runinfo"), WORKERS, retries=ATTEMPTS - 1)):
        app = parsl.python_app(job, cache=True)
        return _of_futures({app(task): number_of(task) for task in batch.tasks()})


def _dbos(batch: Batch) -> Answer:
    from dbos import DBOS, SetWorkflowID

    from tools.benchmark.durable_peers import dbos_queue

    step = DBOS.step()(job)

    @DBOS.workflow(max_recovery_attempts=ATTEMPTS)  # type: ignore[untyped-decorator]
    def one(task: str) -> int:
        found: int = step(task)
        return found

    done, blamed = [], {}
    with dbos_queue(Path(batch.folder, "dbos.sqlite"), WORKERS) as queue:
        handles = {}
        for task in batch.tasks():
            with SetWorkflowID(f"job-{number_of(task)}"):
                handles[number_of(task)] = DBOS.enqueue_workflow(queue, one, task)
        for number, handle in handles.items():
            try:
                done.append(handle.get_result())
            except Exception as error:
                blamed[number] = type(error).__name__
    return answer(done, blamed)


def _submitit(batch: Batch) -> Answer:
    from tools.benchmark.durable_peers import submitit_jobs

    done, blamed = [], {}
    for task, ended in submitit_jobs(Path(batch.folder, "submitit"), job, batch.tasks(), WORKERS):
        try:
            done.append(ended.result())
        except Exception as error:
            blamed[number_of(task)] = type(error).__name__
    return answer(done, blamed)


def _prefect(batch: Batch) -> Answer:
    """With a server of its own on the loopback address, as without any setting."""
    home = Path(batch.folder, "prefect")
    os.environ |= {
        "PREFECT_HOME": str(home),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "storage"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # by default it gives up after 20
    }
    from prefect import flow, task
    from prefect.cache_policies import INPUTS
    from prefect.task_runners import ProcessPoolTaskRunner

    one = task(job, persist_result=True, cache_policy=INPUTS, retries=ATTEMPTS - 1)
    found: list[Answer] = []

    def batch_of_jobs() -> None:
        done, blamed = [], {}
        for number, future in [(number_of(each), one.submit(each)) for each in batch.tasks()]:
            try:
                done.append(future.result())
            except Exception as error:
                blamed[number] = type(error).__name__
        found.append(answer(done, blamed))

    try:
        flow(batch_of_jobs, task_runner=ProcessPoolTaskRunner(max_workers=WORKERS))()
    except Exception as error:
        found.append(answer([], lost=type(error).__name__))
    return found[0]


def _metaflow(batch: Batch) -> Answer:
    """Its runner takes the place of this process, so that it is the one that can be killed."""
    os.environ |= {"METAFLOW_USER": "bench", "METAFLOW_DEFAULT_METADATA": "local"}
    options = ["--max-workers", str(WORKERS), "--max-num-splits", str(batch.jobs + 1)]
    if Path(batch.folder, ".metaflow", "BatchFlow").exists():
        words = ["resume", *options]
    else:
        words = ["run", *options, "--batch", json.dumps(batch._asdict())]
    program = Path(__file__).resolve().parent / "metaflow_flow.py"
    os.execv(sys.executable, [sys.executable, str(program), "--no-pylint", *words])


class Contender(NamedTuple):
    """`share`: of the jobs of the largest batch; it is less where a job costs so much that all would take hours.
    `record`: the file pattern, below the folder, of what a second start reads; "" if there is none."""

    shown: str
    module: str
    distribution: str
    run: Callable[[Batch], Answer] | None  # None: it is a program
    record: str
    share: float = 1.0
    heavy: bool = False


CONTENDERS = {
    "longhaul": Contender("**longhaul**", "supervisor", "", _longhaul, "logs/journal_*.jsonl"),
    "executor": Contender("`ProcessPoolExecutor`", "concurrent.futures", "", _executor, ""),
    "joblib": Contender("joblib with `Memory`", "joblib", "joblib", _joblib, "cache/**/output.pkl"),
    "parsl": Contender(
        'Parsl, `HighThroughputExecutor`, `checkpoint_mode="task_exit"`',
        "parsl",
        "parsl",
        _parsl,
        "runinfo/*/checkpoint/tasks.pkl",
        heavy=True,
    ),
    "dbos": Contender("DBOS on SQLite", "dbos", "dbos", _dbos, "dbos.sqlite", share=0.05, heavy=True),
    "submitit": Contender(
        "submitit, local executor", "submitit", "submitit", _submitit, "", share=0.005, heavy=True
    ),
    "prefect": Contender(
        "Prefect, `ProcessPoolTaskRunner`, cached by inputs",
        "prefect",
        "prefect",
        _prefect,
        "prefect/storage/*",
        share=0.025,
        heavy=True,
    ),
    "metaflow": Contender(
        "Metaflow, `foreach` with `@retry` and `@catch`, `resume`",
        "metaflow",
        "metaflow",
        _metaflow,
        ".metaflow/BatchFlow/*/one/*/*.data.json",
        share=0.005,
        heavy=True,
    ),
    "parallel": Contender("GNU parallel, `--joblog --resume`", "", "", None, "joblog"),
    "parallel-failed": Contender("GNU parallel, `--joblog --resume-failed`", "", "", None, "joblog"),
}


def is_here(contender: Contender) -> bool:
    """Whether its library can be imported, or its program is in PATH."""
    if contender.run is None:
        return shutil.which("parallel") is not None
    return importlib.util.find_spec(contender.module) is not None


def main() -> None:
    name, fields = sys.argv[1:]
    program = CONTENDERS[name].run
    assert program is not None
    print(json.dumps(program(Batch(**json.loads(fields)))), flush=True)


if __name__ == "__main__":
    main()
