"""What Ray does to the processes that it starts, and its memory monitor, on a real raylet."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from supervisor.system.capacity.cpu_limits import usable_cores
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.nodes.ray.conftest import RayNodes
from workers.isolation.thread_caps import THREAD_VARIABLES

pytestmark = pytest.mark.needs_ray

SEEN = """
    import signal

    def jobs():
        yield Job(id="one")

    def evaluate():
        return {
            "niceness": os.nice(0),
            "oom_score": int(Path("/proc/self/oom_score_adj").read_text()),
            "blocked": [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
            "threads": os.environ["OMP_NUM_THREADS"],
        }

    if __name__ == "__main__":
        main(evaluate, jobs, name="seen", workers="auto")
"""
# The first job takes so much memory, once, that Ray's monitor acts.
HUNGRY = """
    def jobs():
        for number in range(4):
            yield Job(id=f"job/{number}", params={"number": number})

    def evaluate(number):
        note("ran")
        if number == 0 and current_job().attempt == 1:
            taken = []
            while True:
                taken.append(bytearray(os.urandom(1 << 20)) * 64)
                time.sleep(0.02)
        return number

    if __name__ == "__main__":
        main(evaluate, jobs, name="hungry", workers=1, all_tasks=True, crash_limit=1)
"""
ROOM = 2 << 30  # bytes until the monitor acts


@pytest.fixture(scope="module")
def watched() -> Iterator[RayNodes]:
    """A raylet whose memory monitor acts soon."""
    memory = psutil.virtual_memory()
    if memory.available < 3 * ROOM:
        pytest.skip("there is too little memory")
    share = 1.0 - (memory.available - ROOM) / memory.total
    os.environ.update(RAY_memory_usage_threshold=f"{share:.4f}", RAY_memory_monitor_refresh_ms="100")
    try:
        nodes = RayNodes(1)
    finally:
        for name in ("RAY_memory_usage_threshold", "RAY_memory_monitor_refresh_ms"):
            del os.environ[name]
    yield nodes
    nodes.shutdown()


@pytest.mark.parametrize("threads", ["", "3"])
def test_jobs_are_as_the_raylet_and_threads_as_the_user_says(
    experiment: Experiment, watched: RayNodes, threads: str
) -> None:
    """Ray's own workers have niceness 15, OOM score 1000, SIGINT blocked, and as many threads as the node has CPUs."""
    experiment.write(SEEN)
    environment = experiment.environment()
    for name in THREAD_VARIABLES:
        environment.pop(name, None)
    if threads:
        environment["OMP_NUM_THREADS"] = threads
    run = experiment.run(*watched.options, env=environment)
    assert run.returncode == 0, run.stderr
    seen = experiment.final()["one"]["result"]
    assert experiment.run("--engine", "local").returncode == 0  # as a job on this machine has it
    root = os.geteuid() == 0
    here = json.loads(max(experiment.output.glob("*/logs_final.json")).read_text())[0]["result"]
    assert seen["niceness"] == (here["niceness"] if root else 15)
    assert seen["oom_score"] == (here["oom_score"] if root else 1000)
    assert seen["blocked"] == []
    assert seen["threads"] == (threads or str(max(1, usable_cores() // usable_cores())))


def test_what_rays_memory_monitor_kills_costs_its_job_nothing_and_the_user_is_told(
    experiment: Experiment, watched: RayNodes
) -> None:
    experiment.write(HUNGRY)
    supervisor = experiment.start(*watched.options)
    wait_for(experiment.executions, "the first job")
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    assert "Ray's memory monitor killed its agent" in err and "--memory-limit" in err
    ended = [each for each in experiment.journal() if each["type"] == "ended" and each["job"] == "job/0"]
    assert [each["outcome"] for each in ended] == ["lost", "completed"]
    assert Counter(experiment.completed_in_journal()) == {f"job/{number}": 1 for number in range(4)}
    assert "1 lost" in err
    wait_for(lambda: not experiment.processes(), "its processes to end")
