"""Hosts of their own, and what may happen to them and to the network between: no job runs in two places at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from supervisor.nodes.fencing import FENCE
from tests.conftest import some
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.nodes.execution_log import WATCHED, Execution, executions, in_two_places, now
from tests.nodes.hosts import Host, child_of, needs_hosts, switch

pytestmark = [pytest.mark.slow, needs_hosts()]

# The first four jobs wait for their host's gate; the others take a third of a second each, until "hurry".
SCRIPT = (
    WATCHED
    + """
def jobs():
    for number in range(int(os.environ["JOBS"])):
        yield Job(id=f"job/{number}", params={"number": number})

def is_open(name):
    return Path(LOG).with_name(f"gate-{name}").exists()

def evaluate(number):
    with watched():
        until = time.monotonic() + 0.3
        while not is_open("hurry"):
            time.sleep(0.01)
            if is_open(socket.gethostname()) if number < 4 else time.monotonic() > until:
                break
    return number * number

if __name__ == "__main__":
    import supervisor.nodes.fencing
    from tests.nodes import tcp_carrier
    supervisor.nodes.fencing.FENCE = float(os.environ.get("FENCE", supervisor.nodes.fencing.FENCE))
    tcp_carrier.add(os.environ["HOSTS"].split(","))
    main(evaluate, jobs, name="hosts", workers=4, all_tasks=True, crash_limit=1, grace=1)
"""
)


class Stage:
    """A supervisor's host and two for jobs."""

    def __init__(self, experiment: Experiment, home: Host, first: Host, second: Host) -> None:
        self.experiment = experiment
        self.home, self.first, self.second = home, first, second
        experiment.write(SCRIPT)
        self.jobs = 0
        self._seen = 0  # executions before the present run
        self._recorded: set[str] = set()

    def start(
        self, jobs: int, timeout: str, *arguments: str, engine: str = "tcp", **environ: str
    ) -> subprocess.Popen[str]:
        self._look()
        self.jobs = jobs
        nodes = ["--nodes", "2", "--node-timeout", timeout] if engine == "tcp" else []
        environment = {**self.experiment.environment(), **environ}
        environment["HOSTS"] = f"{self.first.address},{self.second.address}"
        environment["JOBS"] = str(jobs)
        wrapper = self.home.entered(self.experiment.folder)
        return self.experiment.start("--engine", engine, *nodes, *arguments, wrapper=wrapper, env=environment)

    def supervisor(self) -> int:
        return child_of(self.experiment.started[-1].pid)

    def _look(self) -> None:
        """What was recorded when the run before this one ended does not run any more."""
        ran = self.ran()
        again = self._recorded & {each.job for each in ran[self._seen :]}
        assert not again, f"recorded as completed and run again: {again}"
        self._seen, self._recorded = len(ran), set(self.experiment.completed_in_journal())

    def ran(self) -> list[Execution]:
        return executions(self.experiment)

    def on(self, host: Host, after: float = 0.0) -> list[Execution]:
        return [each for each in self.ran() if each.host == host.name and each.begin > after]

    def all_four_run(self) -> None:
        wait_for(lambda: len(self.ran()) >= 4, "four jobs at the same time")
        assert len(self.on(self.first)) == len(self.on(self.second)) == 2

    def open(self, gate: str) -> None:
        self.experiment.folder.joinpath(f"gate-{gate}").touch()

    def run_again(self, jobs: set[str], after: float) -> None:
        wait_for(
            lambda: jobs <= {each.job for each in self.ran() if each.begin > after},
            f"{jobs} did not run again",
        )

    def end(self, *, allowed: float = 0.0) -> None:
        """The run ends well, every job is there once, none ran in two places, nothing is left."""
        process = self.experiment.started[-1]
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        self._look()
        names = [f"job/{number}" for number in range(self.jobs)]
        final = self.experiment.final()
        assert sorted(final) == sorted(names)
        assert {job: each["result"] for job, each in final.items()} == {
            f"job/{number}": number * number for number in range(self.jobs)
        }
        assert Counter(self.experiment.completed_in_journal()) == Counter(names)
        assert in_two_places(self.ran(), allowed) == []
        wait_for(lambda: not self.experiment.processes(), "processes are left")

    def runs_begun(self) -> int:
        return sum(each["type"] == "run_started" for each in self.experiment.journal())

    def outcomes(self) -> Counter[str]:
        return Counter(each["outcome"] for each in self.experiment.journal() if each["type"] == "ended")


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """For all tests: to make them takes as long as a run."""
    with switch() as made:
        yield [made.host() for _ in range(3)]


@pytest.fixture
def stage(experiment: Experiment, hosts: list[Host]) -> Iterator[Stage]:
    yield Stage(experiment, *hosts)
    for process in experiment.started:  # nsenter keeps a host from ending if it stands still
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    for host in hosts:
        host.renew()


@pytest.mark.parametrize("what", some(["cut", "frozen"], 1))
def test_a_host_away_for_less_than_the_timeout_loses_nothing(stage: Stage, what: str) -> None:
    """And each host has pids and a name of its own."""
    stage.start(12, "8s")
    stage.all_four_run()
    for host in (stage.first, stage.second):
        assert len(host.processes()) >= 5  # the first process, agent, zygote, two workers
    (stage.second.cut if what == "cut" else stage.second.freeze)()
    stage.open("hurry")  # jobs end meanwhile, and nobody hears of it
    time.sleep(2.0)
    (stage.second.heal if what == "cut" else stage.second.thaw)()
    stage.end()
    assert stage.outcomes() == {"completed": 12}
    assert max(Counter(each.job for each in stage.ran()).values()) == 1
    assert len(stage.first.processes()) == len(stage.second.processes()) == 1


def test_a_host_cut_off_for_longer_runs_nothing_when_its_jobs_run_elsewhere(stage: Stage) -> None:
    stage.start(200, "2s")
    stage.all_four_run()
    stage.open(stage.first.name)
    cut, jobs = now(), {each.job for each in stage.on(stage.second)}
    stage.second.cut()
    stage.run_again(jobs, cut)
    assert len(stage.second.processes()) == 1, "its agent had not ended the workers"
    assert not stage.on(stage.second, cut + 3.0)
    healed = now()
    stage.second.heal()
    wait_for(lambda: stage.on(stage.second, healed), "the host to be used again")
    stage.open("hurry")
    stage.end()
    assert stage.outcomes() == {"completed": 200, "lost": 2}


def test_a_host_that_is_back_sooner_says_itself_that_its_jobs_are_dead(stage: Stage) -> None:
    """Longer away than the timeout, but not as long as the supervisor would have waited for it, which is longer than
    this test has patience."""
    stage.start(200, "2s", FENCE="1000")
    stage.all_four_run()
    stage.open(stage.first.name)
    cut, jobs = now(), {each.job for each in stage.on(stage.second)}
    stage.second.cut()
    wait_for(lambda: len(stage.second.processes()) == 1, "its agent to end the workers")
    stage.second.heal()
    stage.run_again(jobs, cut)
    (fenced,) = (each for each in stage.experiment.journal() if each.get("what") == "place_fenced")
    assert fenced["detail"]["confirmed"]
    stage.open("hurry")
    stage.end()
    assert stage.outcomes() == {"completed": 200, "lost": 2}


def test_a_host_frozen_for_longer_ends_its_jobs_within_a_second_of_its_return(stage: Stage) -> None:
    stage.start(200, "2s")
    stage.all_four_run()
    stage.open(stage.first.name)
    frozen, jobs = now(), {each.job for each in stage.on(stage.second)}
    stage.second.freeze()
    stage.run_again(jobs, frozen)
    thawed = now()
    stage.second.thaw()
    wait_for(lambda: stage.on(stage.second, thawed), "the host to be used again")
    kept = [each for each in stage.on(stage.second) if each.begin < frozen]
    assert not [each for each in kept if each.last > thawed + 1.0]
    stage.open("hurry")
    process = stage.experiment.started[-1]
    stage.end(allowed=max((each.last for each in kept), default=0.0) - frozen)
    assert process.returncode == 0
    assert stage.outcomes()["completed"] == 200
    others = [each for each in stage.ran() if each not in kept]
    assert in_two_places(others) == []


def test_a_host_that_dies_costs_its_jobs_nothing_and_is_used_when_it_is_back(stage: Stage) -> None:
    stage.start(200, "2s")
    stage.all_four_run()
    stage.open(stage.first.name)
    died, jobs = now(), {each.job for each in stage.on(stage.second)}
    stage.second.die()
    stage.run_again(jobs, died)
    booted = now()
    stage.second.boot()
    stage.second.heal()
    wait_for(lambda: stage.on(stage.second, booted), "the host to be used again")
    stage.open("hurry")
    stage.end()
    assert stage.outcomes() == {"completed": 200, "lost": 2}


def test_a_supervisor_that_stands_still_for_longer_than_the_timeout_blames_nobody(stage: Stage) -> None:
    stage.start(12, "2s")
    stage.all_four_run()
    stopped = now()
    supervisor = stage.supervisor()
    os.kill(supervisor, signal.SIGSTOP)
    wait_for(
        lambda: len(stage.first.processes()) == len(stage.second.processes()) == 1,
        "the agents to end the workers",
    )
    assert now() - stopped < 2.0 + FENCE
    stage.open("hurry")
    for pid in (supervisor, stage.experiment.started[-1].pid):  # nsenter stops with what it has started
        os.kill(pid, signal.SIGCONT)
    stage.end()
    assert stage.outcomes() == {"completed": 12, "interrupted": 4}


def kill_supervisor(stage: Stage) -> None:
    os.kill(stage.supervisor(), signal.SIGKILL)
    stage.experiment.started[-1].communicate()


def interrupt(stage: Stage) -> None:
    process = stage.experiment.started[-1]
    wait_for(lambda: stage.runs_begun() == len(stage.experiment.started), "the run does not begin")
    os.kill(stage.supervisor(), signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT, err


def test_a_supervisor_killed_while_a_host_is_cut_off_leaves_no_job_running_twice(stage: Stage) -> None:
    """The host goes on until its agent misses the supervisor. The next run, on one machine, begins at once with all
    other jobs; it is killed as well, and the one after it still knows."""
    stage.start(200, "3s")
    stage.all_four_run()
    cut, jobs = now(), {each.job for each in stage.on(stage.second)}
    others = {each.job for each in stage.on(stage.first)}
    stage.second.cut()
    kill_supervisor(stage)
    stage.open(stage.home.name)
    stage.start(200, "", "--resume", "latest", engine="local")
    stage.run_again(others, cut)
    kill_supervisor(stage)
    stage.start(200, "", "--resume", "latest", engine="local")
    stage.run_again(jobs, cut)
    assert in_two_places(stage.ran()) == []
    assert len(stage.second.processes()) == 1
    interrupt(stage)
    stage.second.heal()
    back = now()
    stage.start(200, "3s", "--resume", "latest")
    wait_for(lambda: stage.on(stage.first, back) and stage.on(stage.second, back), "both hosts to be used")
    stage.open("hurry")
    stage.end()


def test_jobs_that_a_killed_supervisor_left_on_hosts_run_again_as_soon_as_these_say_so(stage: Stage) -> None:
    """Nobody waits for the timeout of a host that can be asked."""
    stage.start(12, "60s")
    stage.all_four_run()
    jobs = {each.job for each in stage.ran()}
    stage.second.cut()  # its agent does not hear of the end
    killed = now()
    kill_supervisor(stage)
    stage.second.heal()
    stage.open("hurry")
    stage.start(12, "60s", "--resume", "latest")
    stage.end()
    assert jobs <= {each.job for each in stage.ran() if each.begin > killed}


def test_a_run_interrupted_while_a_host_is_cut_off_leaves_its_jobs_to_the_next_one(stage: Stage) -> None:
    stage.start(12, "3s")
    stage.all_four_run()
    stage.second.cut()
    interrupt(stage)
    stage.open("hurry")
    stage.start(12, "", "--resume", "latest", engine="local")
    stage.end()
