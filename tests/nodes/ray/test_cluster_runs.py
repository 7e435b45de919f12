"""The same script on a real Ray cluster of three raylets: what comes of it, and what must survive what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import psutil
import pytest

from supervisor.nodes.ray.direct_wires import CALLS_ONLY
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.nodes.ray.conftest import GPUS, RayNodes, agents_of, driver_of

pytestmark = pytest.mark.needs_ray

SCRIPT = """
    import sys

    def jobs():
        for number in range(@JOBS@):
            yield Job(id=f"job/{number}", params={"number": number})

    def evaluate(number):
        note("ran")
        gate = Path(LOG).with_name("gate")
        while number >= 3 and not gate.exists():
            time.sleep(0.005)
        print("job", number)
        return {
            "local": current_job().local_worker,
            "node": os.environ["LONGHAUL_EXPERIMENT"].rpartition("/")[2],
            "niceness": os.nice(0),
            "ray": "ray" in sys.modules,
            "threads": os.environ.get("OMP_NUM_THREADS"),
        }

    if __name__ == "__main__":
        main(evaluate, jobs, name="cluster", workers="auto", all_tasks=True, crash_limit=1)
"""


GPU_SCRIPT = """
    def jobs():
        for number in range(6):
            yield Job(id=f"job/{number}", gpus=1)

    def evaluate():
        note("ran")
        while not Path(LOG).with_name("gate").exists():
            time.sleep(0.005)
        return [os.environ["CUDA_VISIBLE_DEVICES"], list(current_job().gpus), current_job().local_worker]

    if __name__ == "__main__":
        main(evaluate, jobs, name="gpus", workers="auto", all_tasks=True)
"""


def write(experiment: Experiment, jobs: int = 12) -> None:
    experiment.write(SCRIPT.replace("@JOBS@", str(jobs)))


def open_gate(experiment: Experiment) -> None:
    experiment.folder.joinpath("gate").touch()


def all_three_run(experiment: Experiment) -> None:
    """The worker of each node has a job that waits for the gate."""
    wait_for(lambda: len(experiment.executions()) >= 6, "three jobs that wait")


def all_completed(experiment: Experiment, jobs: int = 12) -> dict[str, dict[str, Any]]:
    final = experiment.final()
    assert sorted(final) == sorted(f"job/{number}" for number in range(jobs))
    assert {entry["state"] for entry in final.values()} == {"completed"}
    assert Counter(experiment.completed_in_journal()) == Counter(final.keys())
    return final


def ended_otherwise(experiment: Experiment) -> Counter[str]:
    ended = [r["outcome"] for r in experiment.journal() if r["type"] == "ended" and "outcome" in r]
    return Counter(outcome for outcome in ended if outcome != "completed")


WIRES = pytest.mark.parametrize("calls", ["0", "1"], ids=["direct", "calls"])


def with_wires(experiment: Experiment, calls: str) -> dict[str, str]:
    """The environment in which agents have a connection of their own, or all goes through calls of Ray's."""
    return {**experiment.environment(), CALLS_ONLY: calls}


@WIRES
def test_the_nodes_of_a_cluster_share_the_jobs(experiment: Experiment, cluster: RayNodes, calls: str) -> None:
    write(experiment)
    supervisor = experiment.start(*cluster.options, env=with_wires(experiment, calls))
    all_three_run(experiment)
    with open(f"/proc/{supervisor.pid}/maps", encoding="ascii") as maps:
        assert "/ray/" not in maps.read()
    connected = psutil.Process(supervisor.pid).net_connections("tcp")
    assert len(connected) == (3 if calls == "0" else 0)
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    assert "12 jobs, 3 workers" in err
    results = [entry["result"] for entry in all_completed(experiment).values()]
    assert Counter(experiment.executions()) == Counter(f"job/{number}" for number in range(12))
    assert len({result["node"] for result in results}) == 3
    assert {result["local"] for result in results} == {0}
    # Ray's workers are at 15 and may use as many threads as the node has CPUs; what it has set is undone.
    assert {result["niceness"] for result in results} == {os.nice(0)}
    assert {result["ray"] for result in results} == {False}
    assert len(list(experiment.output.glob("*/output/job*.log"))) == 12
    assert not experiment.processes()


def test_the_engine_may_change_from_one_resume_to_the_next(experiment: Experiment, cluster: RayNodes) -> None:
    write(experiment)
    supervisor = experiment.start(*cluster.options)
    all_three_run(experiment)
    recorded = set(experiment.completed_in_journal())
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.communicate()
    wait_for(lambda: not experiment.processes(), "the processes of all nodes to end")
    before = Counter(experiment.executions())
    supervisor = experiment.start("--resume", "latest", "--engine", "local", "--workers", "2", "--grace", "0")
    wait_for(lambda: len(experiment.executions()) >= before.total() + 2, "two jobs that wait")
    os.kill(supervisor.pid, signal.SIGINT)
    supervisor.communicate(timeout=PATIENCE)
    open_gate(experiment)
    run = experiment.run("--resume", "latest", "--engine", "ray", "--workers", "auto")
    assert run.returncode == 0, run.stderr
    assert "3 workers" in run.stderr  # the address was remembered
    all_completed(experiment)
    after = Counter(experiment.executions())
    assert all(after[job] == before[job] for job in recorded)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_drains_the_cluster_and_a_second_one_ends_its_jobs(
    experiment: Experiment, cluster: RayNodes, times: int
) -> None:
    write(experiment)
    supervisor = experiment.start(*cluster.options)
    all_three_run(experiment)
    os.kill(supervisor.pid, signal.SIGINT)
    if times == 2:
        wait_for(lambda: "draining" in progress(experiment), "the drain")
        os.kill(supervisor.pid, signal.SIGINT)
    else:
        open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == -signal.SIGINT, err
    assert not experiment.processes()
    open_gate(experiment)
    run = experiment.run("--resume", "latest")
    assert run.returncode == 0, run.stderr
    all_completed(experiment)


def progress(experiment: Experiment) -> str:
    return experiment.path("progress").read_text()


@WIRES
def test_a_carrier_or_an_agent_that_is_killed_costs_its_job_nothing(
    experiment: Experiment, cluster: RayNodes, calls: str
) -> None:
    write(experiment)
    supervisor = experiment.start(*cluster.options, env=with_wires(experiment, calls))
    all_three_run(experiment)
    first, second, _ = agents_of(experiment)
    psutil.Process(first.ppid()).kill()
    second.kill()
    wait_for(lambda: len(experiment.executions()) >= 8, "the jobs of both nodes to run again")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    all_completed(experiment)
    assert ended_otherwise(experiment) == Counter(lost=2)


@WIRES
def test_a_driver_that_is_killed_costs_its_jobs_nothing(
    experiment: Experiment, cluster: RayNodes, calls: str
) -> None:
    write(experiment)
    supervisor = experiment.start(*cluster.options, env=with_wires(experiment, calls))
    all_three_run(experiment)
    driver_of(experiment, supervisor.pid).kill()
    wait_for(lambda: len(experiment.executions()) >= 9, "all jobs to run again")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    all_completed(experiment)
    assert ended_otherwise(experiment) == Counter(lost=3)


def test_a_raylet_that_is_killed_costs_its_jobs_nothing_and_another_joins(
    experiment: Experiment, cluster: RayNodes
) -> None:
    write(experiment)
    supervisor = experiment.start(*cluster.options)
    all_three_run(experiment)
    cluster.kill(cluster.nodes[2])
    wait_for(lambda: len(agents_of(experiment)) == 2, "the agent to end")
    wait_for(lambda: ended_otherwise(experiment)["lost"] == 1, "its job to be told lost")
    cluster.add()
    wait_for(lambda: len(experiment.executions()) >= 7, "its job to run again, on a node that has joined")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    all_completed(experiment)


def test_gpus_are_taken_of_ray_and_each_job_sees_its_own(experiment: Experiment, cluster: RayNodes) -> None:
    experiment.write(GPU_SCRIPT)
    supervisor = experiment.start(*cluster.options)
    wait_for(lambda: len(experiment.executions()) == 2, "a job on each node with GPUs")
    wait_for(lambda: cluster.free("GPU") == 0 and cluster.free("CPU") == 0, "Ray to see them taken")
    for agent in agents_of(experiment):
        agent.kill()
    wait_for(lambda: len(experiment.executions()) == 4, "the successors to have the same")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    results = [entry["result"] for entry in all_completed(experiment, 6).values()]
    assert all(visible in ("0", "1") and gpus == [visible] and local == 0 for visible, gpus, local in results)
    wait_for(lambda: cluster.free("GPU") == 4 and cluster.free("CPU") == 3, "Ray to see them free")


# Another program of the cluster, which has all GPUs of both nodes until it is told to end.
HOLDER = f"""
import sys, ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")

@ray.remote(num_cpus=0, num_gpus={GPUS})
class Holder:
    def ready(self):
        return True

holders = [Holder.remote() for _ in range(2)]
assert all(ray.get([each.ready.remote() for each in holders]))
print("held", flush=True)
sys.stdin.read()
"""


def test_gpus_that_others_have_are_waited_for(experiment: Experiment, cluster: RayNodes) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, cluster.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        experiment.write(GPU_SCRIPT)
        open_gate(experiment)
        supervisor = experiment.start(*cluster.options)
        wait_for(lambda: list(experiment.output.glob("*/supervisor.log")), "its log")
        (log,) = experiment.output.glob("*/supervisor.log")
        wait_for(lambda: "waiting for free GPUs: others have taken those of" in log.read_text(), "its notice")
        assert not experiment.executions() and supervisor.poll() is None
    finally:
        holder.communicate(timeout=PATIENCE)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    all_completed(experiment, 6)


def test_what_is_lacking_is_a_demand_and_a_node_that_joins_is_used(
    experiment: Experiment, cluster: RayNodes
) -> None:
    write(experiment)
    supervisor = experiment.start(*cluster.options, "--workers", "5")
    all_three_run(experiment)
    wait_for(lambda: cluster.waiting_actors() == 2, "the demand for two CPUs")
    cluster.add()
    wait_for(lambda: len(experiment.executions()) >= 7, "a job on the node that has joined")
    assert len(agents_of(experiment)) == 4
    wait_for(lambda: cluster.waiting_actors() == 1, "the demand for what is still lacking")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    all_completed(experiment)
    wait_for(lambda: cluster.waiting_actors() == 0, "the demand to end with the run")


def test_the_jobs_of_a_node_that_is_taken_away_are_interrupted_and_not_charged(
    experiment: Experiment, cluster: RayNodes
) -> None:
    write(experiment)
    supervisor = experiment.start(*cluster.options)
    all_three_run(experiment)
    cluster.drain(cluster.nodes[2], 5)
    wait_for(lambda: ended_otherwise(experiment)["interrupted"] == 1, "its job to be interrupted")
    wait_for(lambda: len(agents_of(experiment)) == 2, "its agent to end")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    cluster.kill(cluster.nodes[2])
    assert supervisor.returncode == 0, err
    assert "takes" in err and "away" in err
    all_completed(experiment)
    assert ended_otherwise(experiment) == Counter(interrupted=1)


def test_a_head_that_is_gone_ends_the_run_and_one_machine_goes_on(experiment: Experiment) -> None:
    cluster = RayNodes(1)
    try:
        write(experiment)
        quick = {**experiment.environment(), "RAY_gcs_rpc_server_reconnect_timeout_s": "3"}
        supervisor = experiment.start(*cluster.options, "--node-timeout", "1s", env=quick)
        wait_for(lambda: len(experiment.executions()) >= 4, "a job that waits")
        cluster.kill_head()
        _, err = supervisor.communicate(timeout=PATIENCE)
    finally:
        cluster.shutdown()
    assert supervisor.returncode == 75, err
    assert "no Ray cluster answers at" in err
    assert not experiment.processes()
    open_gate(experiment)
    run = experiment.run("--resume", "latest", "--engine", "local")
    assert run.returncode == 0, run.stderr
    all_completed(experiment)


def test_a_run_takes_its_share_and_another_one_gets_the_rest(
    experiment: Experiment, cluster: RayNodes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write(experiment)
    other = Experiment(tmp_path_factory.mktemp("other"))
    write(other, jobs=4)
    first = experiment.start(*cluster.options, "--workers", "2")
    wait_for(lambda: len(experiment.executions()) >= 5, "two jobs that wait")
    second = other.start(*cluster.options)
    wait_for(lambda: len(other.executions()) >= 4, "the last job")
    (agent,) = agents_of(other)
    assert len(agents_of(experiment)) == 2
    open_gate(experiment)
    _, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, err
    wait_for(lambda: len(agents_of(other)) == 3, "the nodes that are free now")
    assert agent in agents_of(other)
    open_gate(other)
    _, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, err
    all_completed(experiment)
    all_completed(other, 4)


def test_a_run_for_which_nothing_is_free_says_so_and_waits(
    experiment: Experiment, cluster: RayNodes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write(experiment)
    other = Experiment(tmp_path_factory.mktemp("other"))
    write(other, jobs=3)
    first = experiment.start(*cluster.options)
    all_three_run(experiment)
    second = other.start(*cluster.options, "--nodes", "1")
    wait_for(lambda: list(other.output.glob("*/supervisor.log")), "its log")
    (log,) = other.output.glob("*/supervisor.log")
    wait_for(lambda: "waiting for free CPUs" in log.read_text(), "its notice")
    open_gate(experiment)
    _, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, err
    _, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, err
    assert len({entry["result"]["node"] for entry in all_completed(other, 3).values()}) == 1
    wait_for(lambda: not other.processes(), "its processes to end")


def test_a_head_that_comes_back_with_its_storage_costs_nothing(
    experiment: Experiment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cluster = RayNodes(1, tmp_path_factory.mktemp("storage"))
    try:
        write(experiment, jobs=40)
        supervisor = experiment.start(*cluster.options)
        wait_for(lambda: len(experiment.executions()) >= 4, "a job that waits")
        cluster.kill_head()
        open_gate(experiment)
        wait_for(lambda: len(experiment.completed_in_journal()) == 40, "all jobs, without a head")
        cluster.restart_head()
        _, err = supervisor.communicate(timeout=PATIENCE)
    finally:
        cluster.shutdown()
    assert supervisor.returncode == 0, err
    assert Counter(experiment.executions()) == Counter(f"job/{number}" for number in range(40))
    all_completed(experiment, 40)


def test_what_is_shipped_is_imported_from_the_copy(experiment: Experiment, cluster: RayNodes) -> None:
    package = experiment.folder / "code" / "helpers"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").touch()
    package.joinpath("answers.py").write_text("def answer():\n    return __file__\n")
    package.parent.joinpath("data.txt").write_text("data")
    experiment.script = package.parent / "exp.py"
    experiment.write("""
        from helpers.answers import answer

        def jobs():
            for number in range(3):
                yield Job(id=f"job/{number}")

        def evaluate():
            return [answer(), __file__, os.getcwd(), Path("data.txt").read_text(), sys.argv[0]]

        if __name__ == "__main__":
            main(evaluate, jobs, name="shipped", workers="auto", all_tasks=True)
    """)
    run = experiment.run(*cluster.options, "--ship", str(experiment.folder / "other"))
    assert run.returncode == 2 and "there is no such directory" in run.stderr
    run = experiment.run(*cluster.options, "--ship", str(package))
    assert run.returncode == 2 and "the script is not in it" in run.stderr
    assert not experiment.output.exists()
    run = experiment.run(*cluster.options, "--ship", str(package.parent))
    assert run.returncode == 0, run.stderr
    for entry in all_completed(experiment, 3).values():
        *paths, data, program = entry["result"]
        assert data == "data"
        assert not any(path.startswith(str(experiment.folder)) for path in (*paths, program))
        assert paths[0].startswith(paths[2]) and paths[1] == program
