"""A real agent at the other ends of two pipes: when it ends, and what it leaves."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.core.terms import events as facts
from supervisor.engines.launcher import preparation_for
from supervisor.nodes.node_agent import nap_after
from supervisor.nodes.pipe_carrier import PipeCarrier
from supervisor.nodes.wire import (
    VERSION,
    Close,
    Done,
    Fact,
    HelloAgent,
    HelloNode,
    Lease,
    NodeEnds,
    Order,
    Ping,
    Pong,
    Report,
    Start,
    TakeBack,
    decode_reports,
    encode,
    event_of,
)
from tests.experiment_fixture import PATIENCE, wait_for
from workers.isolation.thread_caps import THREAD_VARIABLES
from workers.transport.messages import Completed, FunctionSpec, Outcome, Run, WorkerSpec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc"),
]

PINGS = 1_000_000  # numbers of those that no test sends itself


class Held:
    """An agent, with the test as its supervisor."""

    def __init__(
        self,
        root: Path,
        *,
        silence: float = 1000.0,
        before: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        caps: bool = False,
        code: tuple[str, ...] = (),
        libraries: tuple[str, ...] = (),
    ) -> None:
        self.carrier = PipeCarrier(1, f"test:{root}", str(root / "output"))
        self.carrier.start()
        (arrival,) = self.carrier.poll(0.0)
        self.link, self.tag = arrival.link, arrival.tag
        self.reports: list[Report] = []
        spec = WorkerSpec(
            experiment_id="test",
            tag="replaced",
            worker=0,
            incarnation=0,
            function=FunctionSpec("engine_jobs", "do"),
            setup=None,
            seed=7,
            output_directory=str(root / "output"),
            jobs_directory=str(root / "jobs"),
            environment=environment or {},
        )
        preparation = preparation_for(spec)
        hello = HelloAgent(
            VERSION,
            spec,
            preparation,
            self.tag,
            silence=silence,
            before=list(before),
            caps=caps,
            code=list(code),
            libraries=list(libraries),
        )
        self.tell(hello)

    @property
    def pid(self) -> int:
        return self.until(self.first(HelloNode)).pid

    def tell(self, *orders: Order) -> None:
        self.link.send(encode(list(orders)))

    def turn(self) -> None:
        with selectors.DefaultSelector() as selector:
            self.link.watch(selector)
            selector.select(0.05)
            self.link.flush()
            for message in self.link.receive():
                self.reports += decode_reports(message)
            self.link._watched = {}

    def until(self, reached: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (value := reached()):
            assert time.monotonic() < deadline, f"waited in vain; reports: {self.reports}"
            self.turn()
        return value

    def first(self, kind: type) -> Callable[[], Any]:
        return lambda: next((report for report in self.reports if isinstance(report, kind)), None)

    def event(self, kind: type) -> Any:
        events = lambda: [event_of(r) for r in self.reports if isinstance(r, Fact | Done)]  # noqa: E731
        return self.until(lambda: next((event for event in events() if isinstance(event, kind)), None))

    def worker(self) -> int:
        """Start one; its pid. However long that takes, it is no silence."""
        self.until(self.first(HelloNode))
        self.tell(Start(0, 1, None, 0), Ping(PINGS, 0))
        number, due, end = PINGS, 0.0, time.monotonic() + PATIENCE
        while not any(isinstance(each, Fact) and each.kind == "WorkerReady" for each in self.reports):
            assert time.monotonic() < end, f"waited in vain; reports: {self.reports}"
            self.turn()
            if Pong(number) in self.reports and time.monotonic() > due:
                number, due = number + 1, time.monotonic() + 0.1
                self.tell(Ping(number, number - 1))
        return int(self.event(facts.WorkerLaunched).pid)

    def lease(self, first: int, **params: Any) -> None:
        line = json.dumps({"id": f"job/{first}", "params": params}).encode()
        self.tell(Lease(1, Run(first, [1], line)))

    def is_over(self) -> bool:
        """Whether the agent and all its processes have ended."""
        self.turn()
        return bool(self.link.ended) and not tagged(self.tag)


def tagged(tag: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != "zombie" and process.environ().get("LONGHAUL_EXPERIMENT") == tag:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Held]]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "engines"))
    held: list[Held] = []

    def make(**more: Any) -> Held:
        root = tmp_path / f"node{len(held)}"
        root.mkdir()
        held.append(Held(root, **more))
        return held[-1]

    yield make
    for each in held:
        each.link.close()
        each.carrier.close(time.monotonic() + 10.0)
        assert not tagged(each.tag)


def test_it_runs_jobs_and_ends_when_it_is_told(hold: Callable[..., Held]) -> None:
    node = hold()
    pid = node.worker()
    node.lease(5, what="pid")
    (outcome,) = node.event(facts.JobsFinished).outcomes
    assert isinstance(outcome, Completed) and int(outcome.result) == pid
    node.tell(Ping(1, 0))
    node.until(lambda: Pong(1) in node.reports)
    node.tell(Close())
    assert node.until(node.first(NodeEnds)) == NodeEnds("it was told to", "asked")
    node.until(node.is_over)


def test_it_imports_no_code_of_the_users(hold: Callable[..., Held]) -> None:
    node = hold()
    node.worker()
    assert "engine_jobs" not in Path(f"/proc/{node.pid}/maps").read_text()
    node.lease(5, what="has-module", name="supervisor.nodes.node_agent")
    (outcome,) = node.event(facts.JobsFinished).outcomes
    assert outcome.result == b"false"


def test_it_ends_its_workers_when_nobody_is_at_the_other_end(
    hold: Callable[..., Held], tmp_path: Path
) -> None:
    node = hold()
    node.worker()
    node.lease(5, what="leave-child", note=str(tmp_path / "child"), new_session=True)
    node.until((tmp_path / "child").exists)
    os.close(os.dup(node.link.writer))
    node.link.close()
    deadline = time.monotonic() + PATIENCE
    while tagged(node.tag):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("of_the_node", "caps", "expected"), [(None, True, "1"), ("3", True, "3"), (None, False, "7")]
)
def test_thread_caps_are_worked_out_where_the_place_is(
    hold: Callable[..., Held],
    monkeypatch: pytest.MonkeyPatch,
    of_the_node: str | None,
    caps: bool,
    expected: str,
) -> None:
    """A place has a worker for each core, and leaves alone what its own environment says. With seats the caps of the
    supervisor hold, whose machine they share."""
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if of_the_node is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", of_the_node)
    node = hold(environment={"OMP_NUM_THREADS": "7"}, caps=caps)
    node.worker()
    node.lease(5, what="cores")
    (outcome,) = node.event(facts.JobsFinished).outcomes
    assert json.loads(outcome.result) == [1, expected]


def test_sigterm_is_an_end_in_order(hold: Callable[..., Held]) -> None:
    node = hold()
    node.worker()
    node.lease(5, what="sleep")
    os.kill(node.pid, signal.SIGTERM)
    assert node.until(node.first(NodeEnds)) == NodeEnds("it was sent SIGTERM", "asked")
    node.until(node.is_over)


def test_a_ctrl_c_that_reaches_it_is_none_of_its_business(hold: Callable[..., Held]) -> None:
    node = hold()
    pid = node.worker()
    os.kill(node.pid, signal.SIGINT)
    node.lease(5, what="pid")
    assert int(node.event(facts.JobsFinished).outcomes[0].result) == pid


def test_it_ends_its_workers_when_it_hears_nothing(hold: Callable[..., Held]) -> None:
    node = hold(silence=1.0)
    node.worker()
    node.lease(5, what="sleep")
    end = node.until(node.first(NodeEnds))
    assert "heard nothing" in end.why and end.how == "silence"
    node.until(node.is_over)


def test_pings_keep_it_up_if_they_answer_its_pongs(hold: Callable[..., Held]) -> None:
    node = hold(silence=2.0)
    node.worker()
    begun = time.monotonic()
    number = 0
    while time.monotonic() < begun + 3.0:
        number += 1
        node.tell(Ping(number, number - 1))
        node.until(lambda n=number: Pong(n) in node.reports)
        time.sleep(0.1)
    assert node.first(NodeEnds)() is None
    # However many come: a Ping that knows no new Pong may have been under way for a long time.
    while not node.first(NodeEnds)():
        assert time.monotonic() < begun + PATIENCE
        number += 1
        node.tell(Ping(number, 1))
        node.turn()


def guards(agent: psutil.Process) -> list[psutil.Process]:
    return [child for child in agent.children() if is_alive(child) and "agent_guard" in str(child.cmdline())]


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_guard_ends_the_workers_of_an_agent_that_does_not_look_at_the_time(
    hold: Callable[..., Held],
) -> None:
    """It was stopped, and its workers go on: others may have their jobs by now."""
    node = hold(silence=1.5)
    worker = psutil.Process(node.worker())
    node.lease(5, what="sleep")
    agent = psutil.Process(node.pid)
    (guard,) = guards(agent)
    agent.suspend()
    wait_for(lambda: not is_alive(worker) and not is_alive(guard), "worker and guard to end")
    assert agent.status() == psutil.STATUS_STOPPED
    agent.resume()
    node.until(node.is_over)
    assert node.first(NodeEnds)().how == "silence"


def test_a_guard_that_was_killed_is_replaced_and_ends_with_its_agent(hold: Callable[..., Held]) -> None:
    node = hold()
    agent = psutil.Process(node.pid)
    (guard,) = guards(agent)
    guard.kill()

    def another() -> psutil.Process | None:
        node.tell(Ping(1, 0))
        return next((each for each in guards(agent) if each != guard), None)

    again = node.until(another)
    agent.kill()
    wait_for(lambda: not is_alive(again), "the guard to end")
    node.until(node.is_over)


def test_orders_that_come_too_late_are_not_obeyed(hold: Callable[..., Held], tmp_path: Path) -> None:
    """It stood still for longer than its time: others may have its jobs by now."""
    node = hold(silence=1.0)
    worker = node.worker()
    agent = psutil.Process(node.pid)
    agent.suspend()
    until = time.clock_gettime(time.CLOCK_BOOTTIME) + 1.5
    node.lease(5, what="sleep", seconds=0.0, note=str(tmp_path / "ran"))
    node.tell(Ping(1, 0))
    while time.clock_gettime(time.CLOCK_BOOTTIME) < until:
        time.sleep(0.05)
    agent.resume()
    node.until(node.is_over)
    assert not psutil.pid_exists(worker) and not (tmp_path / "ran").exists()
    assert node.first(Done)() is None


def batch(node: Held, first: int, jobs: list[dict[str, Any]]) -> None:
    """Lease several jobs at once."""
    lines = [json.dumps({"id": f"job/{first + n}", "params": job}).encode() for n, job in enumerate(jobs)]
    node.tell(Lease(1, Run(first, [1] * len(jobs), b"\n".join(lines))))


def test_leases_that_were_taken_back_are_withdrawn_before_the_job_in_front_of_them_ends(
    hold: Callable[..., Held], tmp_path: Path
) -> None:
    node = hold()
    node.worker()
    gate, began, ran = tmp_path / "gate", tmp_path / "began", tmp_path / "ran"
    first = {"what": "wait-for", "gate": str(gate), "note": str(began)}
    batch(node, 5, [first, *[{"what": "sleep", "seconds": 0.0, "note": str(ran)}] * 3])
    node.until(began.exists)
    node.tell(TakeBack(1, [6, 7, 8]))
    assert node.event(facts.LeasesWithdrawn).leases == [6, 7, 8]
    assert node.first(Done)() is None
    gate.touch()
    assert node.event(facts.LeasesDropped).leases == [6, 7, 8]
    assert [outcome.lease for outcome in node.event(facts.JobsFinished).outcomes] == [5]
    assert not ran.exists()


def test_no_lease_that_was_withdrawn_has_started(hold: Callable[..., Held]) -> None:
    """However quickly the worker goes through them."""
    node = hold()
    node.worker()
    withdrawn, done, dropped = set(), set(), set()
    for turn in range(24):
        first, seconds = 1 + 100 * turn, (0.0, 0.0004, 0.004, 0.04)[turn % 4]
        number = 5 if seconds > 0.01 else 100
        leases = set(range(first, first + number))
        node.reports.clear()
        batch(node, first, [{"what": "sleep", "seconds": seconds}] * number)
        time.sleep(0.002 * turn)
        node.tell(TakeBack(1, sorted(leases)[1:]))

        def settled(leases: set[int] = leases) -> bool:
            for event in [event_of(r) for r in node.reports if isinstance(r, Fact | Done)]:
                if isinstance(event, facts.JobsFinished):
                    done.update(outcome.lease for outcome in event.outcomes)
                elif isinstance(event, facts.LeasesDropped):
                    dropped.update(event.leases)
                elif isinstance(event, facts.LeasesWithdrawn):
                    withdrawn.update(event.leases)
            return leases <= done | dropped

        node.until(settled)
    assert not withdrawn & done and not dropped & done
    assert done and dropped and withdrawn


def test_its_hello_says_that_nothing_of_the_node_before_is_left(hold: Callable[..., Held]) -> None:
    first = hold()
    first.worker()
    first.lease(5, what="sleep")
    psutil.Process(first.pid).suspend()  # it ends nothing by itself
    second = hold(before=(first.tag,))
    assert second.until(second.first(HelloNode)).cleared
    assert not tagged(first.tag)


@pytest.mark.parametrize(
    ("seconds", "held", "nap"),
    [
        (0.0, 8000, 0.005),  # 1,000 jobs
        (0.001, 0, 0.03),
        (0.010, 4, 0.03),  # the worker has no more than is said in time
        (0.010, 24, 0.12),
        (0.001, 300, 0.15),
        (0.010, 1000, 0.2),
        (0.02, 8, 0.0),  # told at once
    ],
)
def test_outcomes_gather_while_the_workers_hold_enough(seconds: float, held: int, nap: float) -> None:
    outcomes: list[Outcome] = [Completed(1, 9.0, b"1"), Completed(2, seconds, b"1")]
    told: list[facts.Event] = [facts.JobsFinished(1, outcomes)]
    assert nap_after(told, lambda: held, lambda: 1 << 20) == pytest.approx(nap, rel=0.01)
    assert nap_after([*told, facts.WorkerReady(2)], lambda: held, lambda: 1 << 20) == 0.0


def test_outcomes_gather_no_longer_than_they_fill_half_the_pipe_of_a_worker() -> None:
    large = facts.JobsFinished(1, [Completed(1, 0.005, b"1" * 60_000)])
    small = facts.JobsFinished(2, [Completed(2, 0.005, b"1")])
    for told in ([large], [large, small], [small, large]):
        assert nap_after(list(told), lambda: 1000, lambda: 1 << 20) == pytest.approx(0.0436, rel=0.02)
    assert nap_after([small], lambda: 1000, lambda: 1 << 20) == 0.2
    assert nap_after([small], lambda: 1000, lambda: 0) == 0.0


def test_the_process_of_a_guard_imports_little() -> None:
    """It is one more interpreter at the start of each node."""
    code = "import sys, supervisor.nodes.agent_guard; print(sorted({'msgspec', 'subprocess'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
