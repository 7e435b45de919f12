"""Raylets on hosts of their own, and a link between them that is cut: each job runs, and none in two places."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from supervisor.nodes.fencing import FENCE
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.nodes.execution_log import WATCHED, Execution, executions, in_two_places, now
from tests.nodes.hosts import Host, needs_hosts, switch
from tests.nodes.ray.conftest import HAS_RAY, start_ray

pytestmark = [pytest.mark.needs_ray, needs_hosts()]

# The first four jobs wait for the gate of their host; the others take a third of a second each, until "hurry".
SCRIPT = (
    WATCHED
    + """
def jobs():
    for number in range(@JOBS@):
        yield Job(id=f"job/{number}", params={"number": number})

def evaluate(number):
    with watched():
        until = time.monotonic() + 0.3
        while not Path(LOG).with_name("hurry").exists():
            time.sleep(0.01)
            gate = Path(LOG).with_name(f"gate-{socket.gethostname()}")
            if gate.exists() if number < 4 else time.monotonic() > until:
                break
    return number * number

if __name__ == "__main__":
    main(evaluate, jobs, name="cut", workers="auto", all_tasks=True, crash_limit=1, grace=1)
"""
)


class RayHosts:
    """Two hosts with a raylet and two CPUs each; the supervisor is on the first one."""

    def __init__(self, head: Host, other: Host) -> None:
        self.head, self.other = head, other
        self.address = f"{head.address}:6379"
        options = ("--num-cpus=2", "--object-store-memory=80000000")
        start_ray(head, "--head", "--port=6379", "--include-dashboard=false", *options)
        start_ray(other, f"--address={self.address}", *options)


@pytest.fixture(scope="module")
def ray_hosts() -> Iterator[RayHosts]:
    if not HAS_RAY:
        pytest.skip("Ray is not installed")
    with switch() as made:
        yield RayHosts(made.host(), made.host())


class Stage:
    def __init__(self, experiment: Experiment, hosts: RayHosts, jobs: int, timeout: str) -> None:
        self.experiment, self.hosts, self.jobs = experiment, hosts, jobs
        experiment.write(SCRIPT.replace("@JOBS@", str(jobs)))
        wrapper = hosts.head.entered(experiment.folder)
        options = ("--engine", "ray", "--address", hosts.address, "--node-timeout", timeout)
        self.supervisor = experiment.start(*options, wrapper=wrapper)
        wait_for(lambda: len(self.ran()) >= 4, "four jobs at the same time")
        assert len(self.on(hosts.head)) == len(self.on(hosts.other)) == 2

    def ran(self) -> list[Execution]:
        return executions(self.experiment)

    def on(self, host: Host, after: float = 0.0) -> list[Execution]:
        return [each for each in self.ran() if each.host == host.name and each.begin > after]

    def open(self, gate: str) -> None:
        self.experiment.folder.joinpath(gate).touch()

    def end(self) -> str:
        """The run ends well, every job is there once, none ran in two places, nothing is left; what was said."""
        _, err = self.supervisor.communicate(timeout=PATIENCE)
        assert self.supervisor.returncode == 0, err
        names = [f"job/{number}" for number in range(self.jobs)]
        final = self.experiment.final()
        assert {job: entry["result"] for job, entry in final.items()} == {
            name: number * number for number, name in enumerate(names)
        }
        assert Counter(self.experiment.completed_in_journal()) == Counter(names)
        assert in_two_places(self.ran()) == []
        wait_for(lambda: not self.experiment.processes(), "processes are left")
        return err

    def outcomes(self) -> Counter[str]:
        return Counter(each["outcome"] for each in self.experiment.journal() if each["type"] == "ended")


def test_a_link_cut_for_less_than_the_timeout_costs_nothing(
    experiment: Experiment, ray_hosts: RayHosts
) -> None:
    stage = Stage(experiment, ray_hosts, 12, "12s")
    ray_hosts.other.cut()
    stage.open("hurry")  # jobs end meanwhile, and nobody hears of it
    time.sleep(2.0)
    ray_hosts.other.heal()
    stage.end()
    assert stage.outcomes() == {"completed": 12}
    assert max(Counter(each.job for each in stage.ran()).values()) == 1


def test_a_link_cut_for_longer_moves_its_jobs_when_they_have_ended_there(
    experiment: Experiment, ray_hosts: RayHosts
) -> None:
    head, other = ray_hosts.head, ray_hosts.other
    stage = Stage(experiment, ray_hosts, 300, "3s")
    stage.open(f"gate-{head.name}")
    cut, jobs = now(), {each.job for each in stage.on(other)}
    other.cut()
    wait_for(lambda: jobs <= {each.job for each in stage.on(head, cut)}, "its jobs to run again")
    assert now() - cut >= 3.0
    assert not [each for each in stage.on(other) if each.last > cut + 3.0 + FENCE], (
        "its agent ended them too late"
    )
    healed = now()
    other.heal()
    wait_for(lambda: stage.on(other, healed), "the host to be used again")
    stage.open("hurry")
    said = stage.end()
    assert stage.outcomes() == {"completed": 300, "lost": 2}
    assert "nothing was heard of it for 3s; 2 jobs that ran there run again" in said
    assert "is fenced" in said and "1 lost" in said and "1 fenced" in said
