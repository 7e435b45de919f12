from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Event
from supervisor.core.terms.needs import Totals
from supervisor.engines.engine import Engine
from supervisor.engines.local_engine import LocalEngine
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.nodes.nodes_engine import NodesEngine
from supervisor.nodes.pipe_carrier import PipeCarrier
from supervisor.nodes.seats import seats_of
from supervisor.system.clock import boot_time
from tests.experiment_fixture import experiment
from workers.transport.messages import Completed, CompletedWith, FunctionSpec, Outcome, Run, WorkerSpec

__all__ = ["experiment"]

PATIENCE = 60.0  # seconds until a test gives up; nothing here waits for so long


class Driver:
    """A loop that only turns: polls an engine and keeps all events.

    through: "here": a local engine. "agent": one behind the wire, in an agent at the other ends of two pipes.
    """

    def __init__(
        self,
        root: Path,
        function: str,
        setup: str | None,
        method: str,
        limit: int,
        prestarted: PrestartedZygote | None = None,
        through: str = "here",
        **gpus: bool,
    ) -> None:
        self.root = root
        self.output = root / "output"
        self.tag = f"test:{root}"
        self.function = FunctionSpec("engine_jobs", function)
        self.setup = FunctionSpec("engine_jobs", setup) if setup else None
        self.limit = limit
        self.environment = {"OMP_NUM_THREADS": "3"}
        self.through = through
        self.engine: Engine
        if through == "agent":
            carrier = PipeCarrier(1, self.tag, str(self.output))
            seats = seats_of(8, Totals(8000), 1)
            self.engine = NodesEngine(self.spec, carrier, seats=seats, start_method=method, **gpus)
        else:
            self.engine = LocalEngine(self.spec, start_method=method, prestarted=prestarted, **gpus)
        self.events: list[Event] = []
        self.next_lease = 1
        self.engine.start()
        if through == "agent":
            self.until(lambda: [event for event in self.events if isinstance(event, facts.PlacesChanged)])

    def spec(self, worker: int, incarnation: int) -> WorkerSpec:
        return WorkerSpec(
            experiment_id="test",
            tag=self.tag,
            worker=worker,
            incarnation=incarnation,
            function=self.function,
            setup=self.setup,
            seed=7,
            output_directory=str(self.output),
            jobs_directory=str(self.root / "jobs"),
            output_limit=self.limit,
            environment=self.environment,
        )

    def turn(self, timeout: float = 0.05) -> None:
        now = time.monotonic()
        due = self.engine.next_deadline()
        wait = timeout if due is None else max(0.0, min(timeout, due - now))
        select.select([self.engine.fileno()], [], [], wait)
        self.events.extend(self.engine.poll(time.monotonic()))
        if isinstance(self.engine, LocalEngine):
            workers = self.engine._workers
            kept = {worker.number for worker in workers.to_be_watched()}, workers.pressing()
            assert kept == workers.scan()

    def settle(self) -> None:
        """Let all orders reach the workers' queues."""
        if isinstance(self.engine, NodesEngine):
            (node,) = self.engine._nodes.values()
            node.ping(boot_time())
            self.until(lambda: node.heartbeat._pong == node.heartbeat._number)
        else:
            self.turn(0.0)

    @property
    def node_tag(self) -> str:
        """What the workers carry."""
        return self.engine._nodes[0].tag if isinstance(self.engine, NodesEngine) else self.tag

    def until(self, reached: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (value := reached()):
            assert time.monotonic() < deadline, f"waited in vain; events: {self.events}"
            self.turn()
        return value

    def first(self, kind: type, incarnation: int) -> Any:
        for event in self.events:
            if isinstance(event, kind) and event.incarnation == incarnation:  # type: ignore[attr-defined]
                return event
        return None

    def start(self, *incarnations: int, devices: tuple[str, ...] | None = None) -> None:
        """Workers that are ready; worker slots are the incarnations less one."""
        for incarnation in incarnations:
            self.engine.start_worker(incarnation - 1, incarnation, devices)
        for incarnation in incarnations:
            self.until(lambda n=incarnation: self.first(facts.WorkerReady, n))

    def lease(
        self, incarnation: int, *params: dict[str, Any], ids: list[str] | None = None, cpus: int = 0
    ) -> int:
        """Hand out jobs; the number of the first lease. `cpus`: thousandths of a core."""
        first = self.next_lease
        self.next_lease += len(params)
        names = ids or [f"job/{first + i}" for i in range(len(params))]
        lines = [
            json.dumps({"id": name, "domain": "d", "params": p}).encode()
            for name, p in zip(names, params, strict=True)
        ]
        self.engine.lease_jobs(incarnation, Run(first, [1] * len(params), b"\n".join(lines), cpus))
        return first

    def outcomes(self) -> dict[int, Outcome]:
        return {
            outcome.lease: outcome
            for event in self.events
            if isinstance(event, facts.JobsFinished)
            for outcome in event.outcomes
        }

    def outcome(self, lease: int) -> Outcome:
        return self.until(lambda: self.outcomes().get(lease))

    def result(self, lease: int) -> Any:
        outcome = self.outcome(lease)
        assert isinstance(outcome, Completed | CompletedWith), outcome
        return json.loads(outcome.result)

    def death(self, incarnation: int) -> facts.WorkerDied:
        return self.until(lambda: self.first(facts.WorkerDied, incarnation))

    def pid(self, incarnation: int) -> int:
        return int(self.first(facts.WorkerLaunched, incarnation).pid)

    def note(self, name: str) -> Path:
        return self.root / name

    def read_note(self, name: str) -> str:
        self.until(self.note(name).exists)
        return self.note(name).read_text()

    def log(self, job_id: str) -> Path:
        from workers.job.file_names import file_name

        return self.output / (file_name(job_id) + ".log")

    @staticmethod
    def is_gone(pid: int) -> bool:
        """Whether it computes no more: while it exits it has no memory, some time before it is a zombie."""
        try:
            process = psutil.Process(pid)
            return bool(process.status() == psutil.STATUS_ZOMBIE) or not process.memory_info().vms
        except psutil.NoSuchProcess:
            return True


@pytest.fixture(autouse=True)
def _jobs_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(os.path.dirname(__file__))


@pytest.fixture
def through() -> str:
    """How the drivers of a test reach the engine; see `Driver`."""
    return "here"


@pytest.fixture
def drive(tmp_path: Path, through: str) -> Iterator[Callable[..., Driver]]:
    drivers: list[Driver] = []

    def make(
        function: str = "do",
        *,
        setup: str | None = None,
        method: str = "auto",
        limit: int = 10_000_000,
        prestarted: PrestartedZygote | None = None,
        **gpus: bool,
    ) -> Driver:
        root = tmp_path / f"run{len(drivers)}"
        root.mkdir()
        drivers.append(Driver(root, function, setup, method, limit, prestarted, through, **gpus))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.engine.close()
