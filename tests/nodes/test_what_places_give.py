"""What jobs get and see in several places, in whole programs over `--engine pipes`."""

from __future__ import annotations

import json
import platform
from typing import Any

import pytest

from supervisor.system.capacity.cpu_limits import usable_cores
from tests.experiment_fixture import Experiment
from workers.isolation.thread_caps import THREAD_VARIABLES

pytestmark = pytest.mark.slow

NODES = ("--engine", "pipes", "--nodes", "2")
NAMES = [f"node{number} ({platform.node()})" for number in (0, 1)]
MEET = """
    def meet(workers):
        note("ran")
        while len({line.split()[2] for line in Path(LOG).read_text().splitlines()}) < workers:
            time.sleep(0.005)
"""
SEEN = (
    MEET
    + """
    def jobs():
        for number in range(16):
            own = {"cpus": 2} if number >= 12 else {}
            yield Job(id=f"job/{number}", params={"number": number}, gpus=1, **own)

    def evaluate(number):
        meet(4 if number < 12 else 0)
        job = current_job()
        return {
            "workers": [job.worker, job.local_worker],
            "environment": [os.environ["LONGHAUL_WORKER"], os.environ["LONGHAUL_LOCAL_WORKER"]],
            "gpus": [*job.gpus, os.environ["CUDA_VISIBLE_DEVICES"]],
            "cpus": [job.cpus, os.environ["OMP_NUM_THREADS"]],
        }

    if __name__ == "__main__":
        main(evaluate, jobs, name="devices", workers=4, all_tasks=True)
"""
)
TIMES = (
    MEET
    + """
    import psutil

    def jobs():
        for number in range(@JOBS@):
            yield Job(id=f"job/{number}", params={"number": number}, @OWN@)

    def evaluate(number):
        meet(3 if number % 2 == 0 else 0)  # so that both nodes are there
        began = time.time()
        if number == 0 and @FELLS@ and current_job().attempt <= 3:
            psutil.Process().parent().parent().kill()  # the agent, and all that it has started
            time.sleep(1000)
        time.sleep(@SECONDS@)
        return [began, time.time()]

    if __name__ == "__main__":
        main(evaluate, jobs, name="times", workers=4, all_tasks=True, crash_limit=1)
"""
)


def spans(experiment: Experiment) -> dict[str, tuple[str, float, float]]:
    """(node, beginning, end) of the last attempt of each job."""
    return {job: (entry["place"], *entry["result"]) for job, entry in experiment.final().items()}


def overlap(one: tuple[str, float, float], other: tuple[str, float, float]) -> bool:
    return one[1] < other[2] and other[1] < one[2]


def test_worker_numbers_devices_and_threads_are_those_of_the_place(experiment: Experiment) -> None:
    experiment.write(SEEN)
    environment = experiment.environment()
    for name in THREAD_VARIABLES:
        environment.pop(name, None)
    run = experiment.run(*NODES, "--gpus", "0,2,3,5", env=environment)
    assert run.returncode == 0, run.stderr
    final = experiment.final()
    by_node: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for entry in final.values():
        by_node[entry["place"]].append(entry["result"])
        assert entry["given"]["gpus"] == entry["result"]["gpus"][:1]
    for node, devices in zip(by_node.values(), ({"0", "3"}, {"2", "5"}), strict=True):
        assert {result["workers"][1] for result in node} == {0, 1}, "each node counts its workers from 0"
        assert {device for result in node for device in result["gpus"]} == devices
    usual = str(max(1, usable_cores() // 4))
    for result in (result for node in by_node.values() for result in node):
        assert result["environment"] == [str(number) for number in result["workers"]]
        assert len(set(result["gpus"])) == 1, "it sees its own device and no other"
        assert result["cpus"] in ([2, "2"], [1, usual])
    assert [final[f"job/{number}"]["result"]["cpus"][0] for number in range(10, 14)] == [1, 1, 2, 2]


def test_licences_are_given_once_over_all_nodes(experiment: Experiment) -> None:
    own = 'resources={"license": 1} if number % 2 else None'
    script = TIMES.replace("@JOBS@", "16").replace("@OWN@", own).replace("@FELLS@", "False")
    experiment.write(script.replace("@SECONDS@", "0.1"))
    run = experiment.run(*NODES, "--resource", "license=1")
    assert run.returncode == 0, run.stderr
    taken = spans(experiment)
    assert {node for node, _, _ in taken.values()} == set(NAMES)
    licensed = [taken[f"job/{number}"] for number in range(1, 16, 2)]
    assert not any(overlap(one, other) for one in licensed for other in licensed if one is not other)


def test_a_job_that_takes_its_node_with_it_three_times_ends_alone_there(experiment: Experiment) -> None:
    script = TIMES.replace("@JOBS@", "30").replace("@OWN@", "").replace("@FELLS@", "True")
    experiment.write(script.replace("@SECONDS@", "0.3"))
    run = experiment.run(*NODES)
    assert run.returncode == 0, run.stderr
    final, taken = experiment.final(), spans(experiment)
    assert {entry["state"] for entry in final.values()} == {"completed"}
    assert final["job/0"]["attempts"] == 4
    records = [record for record in experiment.journal() if record["type"] == "ended"]
    assert [record["outcome"] for record in records if record["job"] == "job/0"] == ["lost"] * 3 + [
        "completed"
    ]
    assert {record["outcome"] for record in records} == {"lost", "completed"}
    alone = taken.pop("job/0")
    there = [span for span in taken.values() if span[0] == alone[0]]
    assert not any(overlap(alone, span) for span in there)
    lost = [record for record in experiment.journal() if record.get("what") == "place_lost"]
    assert len(lost) == 3 and json.dumps(lost).count("closed the connection") == 3
