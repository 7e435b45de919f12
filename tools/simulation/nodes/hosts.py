"""Hosts, the agents on them, and the workers of these."""

from __future__ import annotations

from collections import deque
from typing import Any

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Event
from supervisor.nodes import fencing
from supervisor.nodes.fencing import LOOK_EVERY
from supervisor.nodes.node_agent import NodeAgent
from tools.simulation.nodes.book import Book, Execution
from tools.simulation.nodes.network import Network, Process, SimulatedLink, Wire
from tools.simulation.promises import Violation
from workers.transport.messages import Completed, Run

UNSEEN = 0.001  # seconds before a job starts in which its worker may miss what comes


class Host:
    """slots: workers that it has room for. kernel: which one runs there."""

    def __init__(self, network: Network, name: str, kernel: str, slots: int) -> None:
        self.network, self.name, self.kernel, self.slots = network, name, kernel, slots
        self.agents: list[AgentProcess] = []
        self.frozen = 0
        self.thawed = -1e9  # when it went on
        self.suspended = 0.0  # seconds for which the machine slept
        self.hides = False  # no agent finds the processes of another
        self.cut = {"up": 0, "down": 0}

    def reachable(self) -> bool:
        return not (self.frozen or any(self.cut.values()))

    def freeze(self, seconds: float, *, asleep: bool) -> None:
        """All its processes stand still. `asleep`: a monotonic clock does so as well."""
        self.halt()
        if asleep:
            self.suspended += seconds
        self.network.after(seconds, self.thaw)

    def halt(self) -> None:
        self.frozen += 1
        for execution in self._executions():
            if self.frozen == 1:
                execution.ticket += 1
                execution.left -= self.network.now - execution.resumed

    def thaw(self) -> None:
        self.frozen -= 1
        if self.frozen:
            return
        self.thawed = self.network.now
        for agent in list(self.agents):
            for worker in list(agent.workers()):
                if worker.running is not None:
                    worker.go_on()
                    agent.book.check_alone(worker.running.job)
            agent.catch_up()

    def _executions(self) -> list[Execution]:
        return [w.running for agent in self.agents for w in agent.workers() if w.running is not None]

    def change_cut(self, direction: str, by: int) -> None:
        self.cut[direction] += by
        for agent in self.agents:
            agent.apply_cuts()


class AgentProcess(Process):
    """An agent's process; its workers die with it."""

    def __init__(self, host: Host, book: Book, tag: str, *, slowest: float, silent_end: bool) -> None:
        super().__init__(host.network)
        self.host, self.book, self.tag = host, book, tag
        self.down, self.up = Wire(host.network, slowest), Wire(host.network, slowest)
        self.engine: HostEngine | None = None
        self.link = SimulatedLink(self.down, self.up)
        self.supervisors_link = SimulatedLink(self.up, self.down, silent_end=silent_end)
        self.down.receiver = self
        self.pauses = 0.0  # chance of standing still in the middle of a turn
        self.freed = False  # its workers were taken for dead
        self.excused = False  # the supervisor was told of its end
        self.place = -1
        self.gone_since: float | None = None  # on the run's clock: when it was first seen to be dead
        self._ticks = 0
        self.apply_cuts()
        with self.network.turn_of(self):
            self.agent = NodeAgent(self.link)  # type: ignore[arg-type]
        self.agent._woken = _Nobody()  # type: ignore[assignment]
        host.agents.append(self)
        self.network.after(0.0, self.wake)

    def workers(self) -> list[HostWorker]:
        return list(self.engine.workers.values()) if self.engine is not None and self.alive else []

    def stands_still(self) -> bool:
        return self.stopped > 0 or self.host.frozen > 0

    def apply_cuts(self) -> None:
        for wire, direction in ((self.down, "down"), (self.up, "up")):
            if self.host.cut[direction]:
                wire.cut = True
            elif wire.cut:
                wire.mend()

    def pause_in_turn(self) -> None:
        if self.network.rng.random() < self.pauses and self.network.now < self.book.trouble_until:
            seconds = self.network.rng.choice([0.5, 4.0, 20.0, 33.0])
            with self.book.trouble(self.host):
                self.host.halt()
                try:
                    self.stand_still(seconds)
                finally:
                    self.host.thaw()

    def turn(self) -> None:
        self._ticks += 1
        tick = self._ticks
        self.network.after(LOOK_EVERY, lambda: self.wake() if tick == self._ticks else None)
        if not self.agent._why:
            self.agent.turn()
        if self.agent._why:
            if self.agent._how == "silence" and not self.excused:
                self.book.check_loss(self.host)
            self.agent.finish()
            self.die()

    def die(self, *, unheard: bool = False) -> None:
        """The process is over. `unheard`: nobody is told so."""
        if self.alive:
            self.alive = False
            if self.engine is not None:
                self.engine.end()
            self.host.agents.remove(self)
            if not unheard:
                self.link.close()


class SimulatedGuard:
    """The process beside an agent (`supervisor.nodes.agent_guard.AgentGuard`)."""

    def __init__(self, process: AgentProcess) -> None:
        self._process = process
        self._until = 0.0

    def feed(self, until: float) -> None:
        if until != self._until:
            self._until = until
            self._look_after(until + fencing.GUARD_AFTER - self._process.network.now)

    def _look_after(self, seconds: float) -> None:
        network = self._process.network
        network.after(max(0.0, seconds) + fencing.GUARD_LOOKS_EVERY * network.rng.random(), self._look)

    def _look(self) -> None:
        process = self._process
        if not process.alive or not fencing.guard_is_due(self._until, process.network.now):
            return
        if process.host.frozen:
            self._look_after(fencing.GUARD_LOOKS_EVERY)
        elif process.engine is not None:
            process.engine.end()

    def close(self) -> None: ...


class _Nobody:
    def recv(self, size: int) -> bytes:
        raise BlockingIOError


class HostWorker:
    """Runs leases in order. It reads what it is told between two jobs."""

    def __init__(self, engine: HostEngine, incarnation: int) -> None:
        self.engine, self.incarnation = engine, incarnation
        self.queue: deque[tuple[int, int]] = deque()
        self.revoked: list[tuple[float, list[int]]] = []  # when, which
        self.running: Execution | None = None
        self.ready = self.finishing = False
        self.last = -1  # the last lease that has ended

    def first(self) -> int | None:
        """The first lease without an end."""
        if self.running is not None:
            return self.running.lease
        return self.queue[0][0] if self.queue else None

    def next_job(self) -> None:
        process = self.engine.process
        if self.running is not None or not self.ready or not process.alive or process.host.frozen:
            return
        self._read_revocations()
        if self.queue:
            lease, job = self.queue.popleft()
            seconds = process.book.seconds[job]
            self.running = Execution(process.host, process.tag, job, lease, seconds)
            process.book.begin(self.running)
            self._schedule()
        elif self.finishing:
            self.engine.tell(facts.WorkerDied(self.incarnation, exit_code=0))
            del self.engine.workers[self.incarnation]

    def _read_revocations(self) -> None:
        network = self.engine.process.network
        unseen = []
        for since, leases in self.revoked:
            if network.now - since < UNSEEN and self.queue and network.rng.random() < 0.5:
                unseen.append((since, leases))
                continue
            dropped = [lease for lease, _ in self.queue if lease in leases]
            self.queue = deque(entry for entry in self.queue if entry[0] not in leases)
            if dropped:
                self.engine.tell(facts.LeasesDropped(self.incarnation, dropped))
        self.revoked = unseen

    def go_on(self) -> None:
        assert self.running is not None
        self.running.resumed = self.engine.process.network.now
        self._schedule()

    def _schedule(self) -> None:
        execution = self.running
        assert execution is not None
        execution.ticket += 1
        ticket = execution.ticket

        def end() -> None:
            if self.running is execution and execution.ticket == ticket and self.engine.process.alive:
                self._end_job(execution)

        self.engine.process.network.after(max(0.0, execution.left), end)

    def _end_job(self, execution: Execution) -> None:
        self.running = None
        self.last = execution.lease
        self.engine.process.book.end(execution)
        result = b"%d" % execution.job
        self.engine.tell(
            facts.JobsFinished(self.incarnation, [Completed(execution.lease, execution.left, result)])
        )
        self.next_job()


class HostEngine:
    """What an agent drives (`supervisor.engines.local_engine.LocalEngine`)."""

    def __init__(self, process: AgentProcess) -> None:
        self.process = process
        self.workers: dict[int, HostWorker] = {}
        self.events: list[Event] = []

    def start(self) -> None:
        self.process.engine = self

    def fileno(self) -> int:
        return -1

    def next_deadline(self) -> float | None:
        return None

    def pressing(self) -> bool:
        return False

    def usage(self) -> dict[int, Any]:
        return {}

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.process.network.after(0.0, self.process.wake)

    def start_worker(self, slot: int, incarnation: int, devices: object, *, local_slot: int) -> None:
        self._check_order()
        worker = self.workers[incarnation] = HostWorker(self, incarnation)
        self.tell(facts.WorkerLaunched(incarnation, 1000 + incarnation, 0.0))

        def ready() -> None:
            if self.process.alive and incarnation in self.workers:
                worker.ready = True
                self.tell(facts.WorkerReady(incarnation))
                worker.next_job()

        self.process.network.after(self.process.network.rng.choice([0.05, 0.5]), ready)

    def _check_order(self) -> None:
        """Others may have its jobs: only if it stood still after it had looked at the time it may not know."""
        if self.process.freed and not self.process.pauses:
            raise Violation(f"{self.process.tag} obeys an order although it was taken for dead")

    def lease_jobs(self, incarnation: int, run: Run) -> None:
        self._check_order()
        if (worker := self.workers.get(incarnation)) is not None:
            jobs = [int(line) for line in run.lines.split(b",")]
            worker.queue.extend(enumerate(jobs, run.first_lease))
            worker.next_job()

    def revoke(self, incarnation: int, leases: list[int]) -> None:
        self._check_order()
        if (worker := self.workers.get(incarnation)) is not None:
            worker.revoked.append((self.process.network.now, leases))
            if worker.running is None:
                worker.next_job()

    def unstarted(self, incarnation: int, leases: list[int]) -> list[int] | None:
        worker = self.workers.get(incarnation)
        first = worker.first() if worker is not None else None
        if self.events:
            return None
        return [] if first is None else [lease for lease in leases if lease > first]

    def least_held(self) -> int:
        return min(
            [len(worker.queue) + (worker.running is not None) for worker in self.workers.values()], default=0
        )

    def outbox_room(self) -> int:
        return 1 << 20

    def stop_worker(self, incarnation: int) -> None:
        if (worker := self.workers.get(incarnation)) is not None:
            worker.finishing = True
            worker.next_job()

    def kill_worker(self, incarnation: int, *, stack: bool) -> None:
        worker = self.workers.pop(incarnation, None)
        if worker is not None:
            self._end_running(worker)
            self.tell(facts.WorkerDied(incarnation, signal=9))

    def signal_worker(self, incarnation: int, signum: int) -> None: ...

    def stop_workers(self, *, suspend: bool) -> None: ...

    def poll(self, now: float) -> list[Event]:
        events, self.events = self.events, []
        return events

    def close(self) -> None:
        self.end()

    def end(self) -> None:
        for worker in self.workers.values():
            self._end_running(worker)
        self.workers.clear()

    def _end_running(self, worker: HostWorker) -> None:
        if worker.running is not None:
            self.process.book.end(worker.running)
            worker.running = None
