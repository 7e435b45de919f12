"""Jobs with GPUs and cores of their own, in the whole program. A GPU is a name here: no driver is asked."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.experiment_fixture import Experiment, wait_for

METHODS = ["zygote", "spawn"] if sys.platform == "linux" else ["spawn"]
SCRIPT = """
    import random

    AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")
    NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT")

    def jobs():
        chance = random.Random(5)
        for number in range(30):
            needs = {}
            if (gpus := chance.choice([None, 0.5, 0.5, 1, 2])) is not None:
                needs["gpus"] = gpus
            if (cpus := chance.choice([None, None, 0.5, 2, 3])) is not None:
                needs["cpus"] = cpus
            yield Job(id=f"job/{number:02}", params={"number": number, "needs": needs}, **needs)

    def evaluate(number, needs):
        note("began")
        if number in CRASHING and current_job().attempt == 1:
            os.kill(os.getpid(), 9)
        time.sleep(0.03)
        seen = {
            "gpus": current_job().gpus,
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "at import": AT_IMPORT,
            "cpus": current_job().cpus,
            "caps": [os.environ.get(name) for name in NAMES],
        }
        with open(os.environ["EXECUTIONS"] + ".seen", "a") as file:
            file.write(json.dumps({**seen, "job": current_job().id, "needs": needs, "pid": os.getpid()}) + "\\n")
        note("ran")
        return seen

    CRASHING = @CRASHING@

    if __name__ == "__main__":
        main(evaluate, jobs, name="devices", all_tasks=True, workers=4)
"""


def write(experiment: Experiment, crashing: list[int]) -> None:
    experiment.write(SCRIPT.replace("@CRASHING@", repr(crashing)))


def check_what_each_saw(experiment: Experiment, devices: set[str]) -> None:
    usual = None
    for line in (experiment.folder / "executions.txt.seen").read_text().splitlines():
        seen: dict[str, Any] = json.loads(line)
        needs = seen["needs"]
        wanted = -(-needs.get("gpus", 0) // 1)
        assert len(seen["gpus"]) == len(set(seen["gpus"])) == wanted, seen
        assert set(seen["gpus"]) <= devices
        assert seen["visible"] == seen["at import"] == ",".join(seen["gpus"]), seen
        assert seen["cpus"] == needs.get("cpus", 1)
        if "cpus" in needs:
            cap = str(max(1, int(needs["cpus"])))
            assert seen["caps"] == [cap] * 3, seen
        else:
            usual = usual or seen["caps"]
            assert seen["caps"] == usual and seen["caps"][2] is None, seen


def check_devices_are_not_shared(experiment: Experiment) -> None:
    """By the leases on record: a device holds one whole job, or two halves. Of a worker's leases one runs."""
    held: dict[int, dict[int, tuple[list[str], float]]] = defaultdict(dict)  # by incarnation and lease
    for record in experiment.journal():
        if record["type"] == "run_started":
            held.clear()
        elif record["type"] == "leased":
            given = record.get("given", {})
            devices = given.get("gpus", []), given.get("gpu_share", 1)
            leases = range(record["lease"], record["lease"] + len(record["jobs"]))
            held[record["incarnation"]].update(dict.fromkeys(leases, devices))
        elif record["type"] == "returned":
            for lease in record["leases"]:
                held[record["incarnation"]].pop(lease, None)
        elif record["type"] == "worker_ended":
            held.pop(record["incarnation"], None)
        elif record["type"] == "ended" or record.get("what") == "superseded":
            for running in held.values():
                running.pop(record["lease"] if record["type"] == "ended" else record["detail"]["lease"], None)
        taken: dict[str, float] = defaultdict(float)
        for gpus, share in (next(iter(running.values())) for running in held.values() if running):
            for gpu in gpus:
                taken[gpu] += share
        assert all(amount <= 1 for amount in taken.values()), (record, held)


@pytest.mark.parametrize("method", METHODS)
def test_each_job_finds_its_own_and_nobody_elses(experiment: Experiment, method: str) -> None:
    """Workers die in between, and their successors find the same."""
    write(experiment, crashing=[3, 11, 17])
    done = experiment.run("--gpus", "GPU-a,GPU-b,7", "--start-method", method)
    assert done.returncode == 0, done.stderr
    jobs = [f"job/{number:02}" for number in range(30)]
    experiment.all_ran(jobs)
    experiment.all_ran(jobs, "began")
    died = Counter(experiment.executions("began")) - Counter(experiment.executions())
    assert {"job/03", "job/11", "job/17"} <= set(died)
    check_what_each_saw(experiment, {"GPU-a", "GPU-b", "7"})
    check_devices_are_not_shared(experiment)


def test_after_a_kill_and_with_other_devices_the_rest_runs(experiment: Experiment) -> None:
    write(experiment, crashing=[])
    process = experiment.start("--gpus", "0,1")
    wait_for(lambda: len(experiment.executions()) >= 8)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not experiment.processes())
    done = experiment.run("--resume", "latest", "--gpus", "4,5")
    assert done.returncode == 0, done.stderr
    assert {record["state"] for record in experiment.final().values()} == {"completed"}
    check_what_each_saw(experiment, {"0", "1", "4", "5"})
    check_devices_are_not_shared(experiment)


@pytest.mark.skipif(sys.platform != "linux", reason="the zygote is Linux only")
def test_a_run_whose_jobs_all_have_gpus_imports_the_script_in_their_workers_only(
    experiment: Experiment,
) -> None:
    experiment.write(
        """
        if __name__ != "__main__" or os.environ.get("LONGHAUL_EXPERIMENT"):
            note("imported", os.environ["CUDA_VISIBLE_DEVICES"] or "none")

        def evaluate(number):
            while not os.path.exists("go"):
                time.sleep(0.01)

        if __name__ == "__main__":
            main(evaluate, [Job(params={"number": n}, gpus=1) for n in range(2)], name="all", all_tasks=True)
        """
    )
    process = experiment.start("--gpus", "0,1")
    wait_for(lambda: len(experiment.executions("imported")) == 2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 3  # one zygote, two workers
    (experiment.folder / "go").touch()
    assert process.wait() == 0
    assert sorted(experiment.executions("imported")) == ["0", "1"]


@pytest.mark.parametrize("method", METHODS)
def test_shared_memory_of_a_job_with_a_gpu_goes_with_its_supervisor(
    experiment: Experiment, method: str
) -> None:
    """The resource tracker of its worker is not killed with the worker."""
    if sys.platform != "linux":
        pytest.skip("looks into /dev/shm")
    name = f"longhaul_test_{id(experiment):x}"
    experiment.write(
        f"""
        from multiprocessing.shared_memory import SharedMemory

        def evaluate():
            segment = SharedMemory(create=True, size=1000, name={name!r})
            note("made")
            time.sleep(1000)

        if __name__ == "__main__":
            main(evaluate, [Job(gpus=1)], name="shared", all_tasks=True)
        """
    )
    process = experiment.start("--gpus", "0,", "--start-method", method)
    wait_for(lambda: experiment.executions("made"))
    segment = Path("/dev/shm", name)
    assert segment.exists()
    try:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_for(lambda: not experiment.processes())
        if method == "zygote":  # without one, the kernel kills the whole group
            wait_for(lambda: not segment.exists())
    finally:
        segment.unlink(missing_ok=True)
