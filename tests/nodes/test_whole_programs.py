"""Whole programs over several agents (`--engine pipes`): nothing is lost, paid for or recorded twice."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import sys
import time
from collections import Counter
from typing import Any

import psutil
import pytest

from tests.conftest import some
from tests.experiment_fixture import PATIENCE, Experiment, longhaul, wait_for

pytestmark = pytest.mark.slow

SCRIPT = """
    def jobs():
        for number in range(@JOBS@):
            yield Job(id=f"job/{number}", params={"number": number})

    def evaluate(number):
        note("ran")
        gate = Path(LOG).with_name("gate")
        time.sleep(0.15)  # so that no job waits behind another one
        while number >= 4 and not gate.exists():
            time.sleep(0.005)
        print("job", number)
        job = current_job()
        return {"workers": [job.worker, job.local_worker], "node": os.environ["LONGHAUL_EXPERIMENT"]}

    if __name__ == "__main__":
        main(evaluate, jobs, name="nodes", workers=4, all_tasks=True, crash_limit=1)
"""
NODES = ("--engine", "pipes", "--nodes", "2")


def write(experiment: Experiment, jobs: int = 24) -> None:
    experiment.write(SCRIPT.replace("@JOBS@", str(jobs)))


def attempts(experiment: Experiment, job: str) -> list[dict[str, Any]]:
    """As `longhaul show` has them."""
    shown = longhaul("show", job, "--json", str(experiment.output))
    tries: list[dict[str, Any]] = json.loads(shown.stdout)["attempts"]
    return tries


def shown_places(experiment: Experiment) -> set[str]:
    """Of the workers in the progress file."""
    progress = json.loads(experiment.path("progress").read_text())
    return {worker["place"] for worker in progress["workers"]}


def open_gate(experiment: Experiment) -> None:
    experiment.folder.joinpath("gate").touch()


def agents(pid: int) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(pid).children()
        if any("node_agent" in word for word in process.cmdline())
    ]


def all_four_run(experiment: Experiment) -> None:
    """Every worker of both nodes has a job that waits for the gate."""
    wait_for(lambda: len(experiment.executions()) >= 8, "four jobs that wait")


def all_completed(experiment: Experiment, jobs: int = 24) -> dict[str, dict[str, Any]]:
    final = experiment.final()
    assert sorted(final) == sorted(f"job/{number}" for number in range(jobs))
    assert {entry["state"] for entry in final.values()} == {"completed"}
    assert Counter(experiment.completed_in_journal()) == Counter(final.keys())
    return final


def test_two_nodes_share_the_jobs(experiment: Experiment) -> None:
    write(experiment)
    open_gate(experiment)
    run = experiment.run(*NODES)
    assert run.returncode == 0, run.stderr
    results = [entry["result"] for entry in all_completed(experiment).values()]
    assert Counter(experiment.executions()) == Counter(f"job/{number}" for number in range(24))
    nodes = {result["node"].rpartition("-")[2] for result in results}
    assert nodes <= {"0", "1"}
    assert {tuple(result["workers"]) for result in results} <= {(0, 0), (1, 1), (2, 0), (3, 1)}
    logs = list(experiment.output.glob("*/output/*.log"))
    assert len(logs) == 24 and not list(experiment.output.glob("*/output/.*"))


def test_this_carrier_is_in_no_help_and_the_options_need_each_other(experiment: Experiment) -> None:
    write(experiment)
    shown = experiment.run("--help").stdout
    assert "--nodes" in shown and "--engine" in shown and "pipes" not in shown
    wrong = [
        (("--nodes", "2"), "--nodes needs --engine ray"),
        (("--engine", "pipes", "--nodes", "0"), "expected a whole number, at least 1"),
        (("--engine", "carts"), "expected local or ray"),
    ]
    for (_, part), done in zip(wrong, experiment.refused(words for words, _ in wrong), strict=True):
        assert (done.returncode, done.made) == (2, False)
        assert part in done.stderr and len(done.stderr.splitlines()) == 1


# One that is killed: as well in `test_progress_file_status_and_log_tell_of_the_nodes`.
@pytest.mark.parametrize("how", some(["terminated", "frozen", "killed"], 2))
def test_the_end_of_a_node_costs_its_jobs_nothing(experiment: Experiment, how: str) -> None:
    write(experiment)
    supervisor = experiment.start(*NODES, "--node-timeout", "4s")
    all_four_run(experiment)
    first = agents(supervisor.pid)[0]
    {"killed": first.kill, "terminated": first.terminate, "frozen": first.suspend}[how]()
    wait_for(lambda: len(experiment.executions()) >= 10, "the jobs of the node to run again")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    final = all_completed(experiment)
    ended = [r["outcome"] for r in experiment.journal() if r["type"] == "ended" and "outcome" in r]
    how_it_ended = "interrupted" if how == "terminated" else "lost"
    assert Counter(ended) == {"completed": 24, how_it_ended: 2}
    assert not experiment.processes()
    said = {
        "killed": " is lost: it closed the connection",
        "terminated": " has ended: it was sent SIGTERM",
        "frozen": " is lost: nothing was heard of it for 4s",
    }[how]
    told = f"({platform.node()}){said}; 2 jobs that ran there run again"
    (log,) = experiment.output.glob("*/supervisor.log")
    assert told in log.read_text()
    assert how == "terminated" or told in err
    assert {entry["place"] for entry in final.values()} == {f"node{n} ({platform.node()})" for n in (0, 1)}
    job = next(
        r["job"] for r in experiment.journal() if r["type"] == "ended" and r["outcome"] == how_it_ended
    )
    again = attempts(experiment, job)
    assert [attempt["outcome"] for attempt in again] == [how_it_ended, "completed"]
    assert again[0]["error"]["message"] == again[0]["place"].partition(" ")[0] + f" ({platform.node()}){said}"
    assert again[1]["place"] == final[job]["place"]


# As a shell with job control does it: Ctrl+Z stops no process group without a parent in its session.
IN_A_GROUP = "import subprocess, sys; sys.exit(subprocess.Popen(sys.argv[1:], process_group=0).wait())"


@pytest.mark.parametrize("stop", some([signal.SIGTSTP, signal.SIGSTOP], 1))  # Ctrl+Z stops the workers, too
def test_what_ends_while_the_supervisor_stands_still_is_interrupted(
    experiment: Experiment, stop: signal.Signals
) -> None:
    write(experiment)
    wrapper = (sys.executable, "-c", IN_A_GROUP)
    started = experiment.start(*NODES, "--node-timeout", "1s", wrapper=wrapper)
    all_four_run(experiment)
    (supervisor,) = psutil.Process(started.pid).children()
    both = agents(supervisor.pid)
    os.kill(supervisor.pid, stop)
    over = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    wait_for(lambda: all(agent.status() in over for agent in both), "the agents to end")
    os.kill(supervisor.pid, signal.SIGCONT)
    wait_for(lambda: len(experiment.executions()) >= 12, "all four to run again")
    open_gate(experiment)
    _, err = started.communicate(timeout=PATIENCE)
    assert started.returncode == 0, err
    all_completed(experiment)
    ended = [r["outcome"] for r in experiment.journal() if r["type"] == "ended" and "outcome" in r]
    assert Counter(ended) == {"completed": 24, "interrupted": 4}


# As well in `test_a_state_is_loaded_wherever_its_job_goes_on_after_the_loss_of_its_node`, beside this file.
@pytest.mark.exhaustive
def test_every_node_may_end_and_come_back(experiment: Experiment) -> None:
    write(experiment)
    supervisor = experiment.start(*NODES)
    all_four_run(experiment)
    for agent in agents(supervisor.pid):
        agent.kill()
    wait_for(lambda: len(experiment.executions()) >= 12, "all four to run again")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    all_completed(experiment)


def test_no_process_outlives_the_supervisor_and_one_machine_goes_on_with_its_run(
    experiment: Experiment,
) -> None:
    write(experiment)
    supervisor = experiment.start(*NODES)
    all_four_run(experiment)
    wait_for(lambda: len(shown_places(experiment)) == 2, "the progress file to name both nodes")
    recorded = set(experiment.completed_in_journal())
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.communicate()
    wait_for(lambda: not experiment.processes(), "the processes of both nodes to end")
    before = Counter(experiment.executions())
    open_gate(experiment)
    run = experiment.run("--resume", "latest", "--engine", "local")
    assert run.returncode == 0, run.stderr
    all_completed(experiment)
    for job, entry in experiment.final().items():
        assert ("place" in entry) == (job in recorded), "only those ran on a node"
    after = Counter(experiment.executions())
    assert all(after[job] == before[job] for job in recorded)


def test_what_a_frozen_agent_has_kept_is_ended_by_the_next_resume(experiment: Experiment) -> None:
    write(experiment)
    supervisor = experiment.start(*NODES)
    all_four_run(experiment)
    agents(supervisor.pid)[0].suspend()
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.communicate()
    open_gate(experiment)
    run = experiment.run("--resume", "latest")
    assert run.returncode == 0, run.stderr
    assert "ended processes of an earlier run" in run.stderr
    all_completed(experiment)
    assert not experiment.processes()


def drains(experiment: Experiment) -> int:
    return sum(record.get("what") == "drain" for record in experiment.journal())


def test_ctrl_c_drains_the_nodes_and_a_second_one_ends_them(experiment: Experiment) -> None:
    """Twice in the first run, once in the second one; the third has the rest."""
    write(experiment)
    supervisor = experiment.start(*NODES)
    all_four_run(experiment)
    os.kill(supervisor.pid, signal.SIGINT)
    time.sleep(0.1)  # else both are one keystroke, which was forwarded as well
    os.kill(supervisor.pid, signal.SIGINT)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == -signal.SIGINT, err
    assert not experiment.processes()
    assert len(experiment.completed_in_journal()) == 4
    supervisor = experiment.start("--resume", "latest", *NODES)
    wait_for(lambda: len(experiment.executions()) >= 12, "four jobs that wait")
    before = drains(experiment)
    os.kill(supervisor.pid, signal.SIGINT)
    wait_for(lambda: drains(experiment) > before, "the drain")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == -signal.SIGINT, err
    assert not experiment.processes()
    assert len(experiment.completed_in_journal()) >= 8
    run = experiment.run("--resume", "latest", *NODES)
    assert run.returncode == 0, run.stderr
    all_completed(experiment)


def test_agents_that_cannot_start_end_the_run_and_say_why(experiment: Experiment) -> None:
    write(experiment)
    environment = experiment.environment()
    environment["PYTHONPATH"] += os.pathsep + str(experiment.folder)
    experiment.folder.joinpath("sitecustomize.py").write_text(
        "import os, sys\nif any('node_agent' in word for word in sys.orig_argv): os._exit(7)\n"
    )
    run = experiment.run(*NODES, env=environment)
    assert run.returncode == 75, run.stderr
    assert "the agent of a node ended before it was ready (exit code 7)" in run.stderr
    assert not experiment.processes()


def test_progress_file_status_and_log_tell_of_the_nodes(experiment: Experiment) -> None:
    write(experiment)
    supervisor = experiment.start(*NODES, "--node-timeout", "4s")
    all_four_run(experiment)

    def shown() -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = json.loads(experiment.path("progress").read_text()).get("nodes", [])
        known = [node for node in nodes if node["memory_used"] and node["cpu_percent"] is not None]
        return nodes if len(nodes) == len(known) == 2 and all(node["busy"] == 2 for node in nodes) else []

    nodes = wait_for(shown, "both nodes to say how busy they are")
    assert [node["node"] for node in nodes] == [f"node{number} ({platform.node()})" for number in (0, 1)]
    for node in nodes:
        assert (node["workers"], node["slots"], node["cores"]) == (2, 2, 2)
        assert node["load"] >= 0 and 0 < node["memory_used"] < node["memory_total"]
        assert 0 <= node["heard_age"] < 4
        assert "place" not in node
    told = longhaul("status", str(experiment.output))
    lines = [line.split() for line in told.stdout.splitlines()]
    assert ["node0", "2", "of", "2"] in [[line[0], *line[2:5]] for line in lines if len(line) > 5]
    agents(supervisor.pid)[1].kill()
    wait_for(lambda: len(experiment.executions()) >= 10, "the jobs of the node to run again")
    open_gate(experiment)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    all_completed(experiment)
    ended = [r["outcome"] for r in experiment.journal() if r["type"] == "ended" and "outcome" in r]
    assert Counter(ended) == {"completed": 24, "lost": 2}
    (log,) = experiment.output.glob("*/supervisor.log")
    words = log.read_text()
    for part in (
        " join",
        " is lost: it closed",
        " is fenced: no process of its jobs is alive; they run again",
    ):
        assert part in words and part in err, part
    assert re.search(r"  nodes: 3 joined, 1 lost \(node\d \(\S+\)\), 1 fenced\n", err)
