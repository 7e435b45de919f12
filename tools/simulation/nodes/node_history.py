"""One simulated experiment on several hosts: the real core, engine and agents, and everything that may go wrong
between them.

Chance decides how long messages are under way, which hosts are cut off in which direction and for how long, who stands
still (a host, an agent, the supervisor; also between its look at the clock and that at what has come), who dies, and
what carriers do about it. After some minutes there is no more trouble, and the run has to come to its end.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from unittest import mock

from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.run_history import RunHistory
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import (
    Effects,
    Event,
    KillWorker,
    RevokeJobs,
    SignalWorker,
    StartJobs,
    StartWorker,
    StopWorker,
)
from supervisor.core.terms.jobs import COMPLETED
from supervisor.core.terms.needs import Totals
from supervisor.core.terms.records import AnyRecord, Completions, RunStarted
from supervisor.core.terms.settings import Settings
from supervisor.nodes import node_agent, nodes_engine
from supervisor.nodes.carrier import Arrival
from supervisor.nodes.nodes_engine import NodesEngine
from tools.simulation.nodes.book import TIMEOUT, Book
from tools.simulation.nodes.hosts import AgentProcess, Host, HostEngine, SimulatedGuard
from tools.simulation.nodes.network import Network, Process, SimulatedSelector
from tools.simulation.promises import Violation
from workers.transport.messages import FunctionSpec, Run, WorkerSpec

AT = "2025-10-14T00:00:00.000Z"
MOST_TURNS = 200_000
MOST_AT_ONE_TIME = 500  # turns of the supervisor while no time passes
LOST, ENDED = facts.NODE_LOST, facts.NODE_ENDED


class NodeHistory:
    """One experiment, from its first run to its end."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.rng = rng = random.Random(seed)
        self.verbose = verbose
        self.network = Network(rng)
        self.slowest = rng.choice([0.01, 0.5, 2.0, 4.5])
        self.book = Book(self.network, self.slowest)
        self.book.seconds = [
            rng.choice([0.02, 0.3, 3.0, 20.0, 70.0]) for _ in range(rng.choice([3, 12, 40, 90]))
        ]
        self.pauses = rng.choice([0.0, 0.0, 0.001, 0.02])
        self.hosts = [self._new_host(f"host{number}") for number in range(rng.choice([1, 2, 3]))]
        self.records: list[AnyRecord | Completions] = []
        self.keys = 0
        self.trouble_until = self.network.now + rng.choice([0.0, 60.0, 200.0, 400.0])
        self.book.trouble_until = self.trouble_until
        self.runs = 0
        self.supervisor: SupervisorProcess | None = None

    @property
    def number_of_jobs(self) -> int:
        return len(self.book.seconds)

    def _new_host(self, name: str) -> Host:
        rng = self.rng
        host = Host(self.network, name, f"kernel{rng.getrandbits(32)}", rng.choice([1, 2, 3]))
        host.hides = rng.random() < 0.35
        return host

    def say(self, text: object) -> None:
        if self.verbose:
            print(f"{self.network.now:10.3f}  {text}")

    def play(self) -> None:
        self.start_supervisor()
        self._plan_trouble()
        network, jobs = self.network, self.book.seconds
        while network.now < self.trouble_until:
            if not network._agenda:
                break
            network.run_until(min(self.trouble_until, network.now + 5.0))
            if self.is_over():
                break
        deadline = network.now + 2 * sum(jobs) + 6 * TIMEOUT + 200.0
        while not self.is_over():
            if network.now > deadline:
                raise Violation(f"jobs wait for ever: {self.unfinished()} of {len(jobs)} have not ended")
            network.run_until(network.now + 5.0)
        if left := self.unfinished():
            raise Violation(f"the run is over, and {left} jobs have not ended")

    def is_over(self) -> bool:
        return self.supervisor is not None and self.supervisor.alive and self.supervisor.core.finished

    def unfinished(self) -> int:
        assert self.supervisor is not None
        return sum(state != COMPLETED for state in self.supervisor.core.table.state)

    # -- the supervisor

    def start_supervisor(self) -> None:
        self.runs += 1
        self.say(f"run {self.runs}")
        self.supervisor = SupervisorProcess(self)
        self.supervisor.start()

    def kill_supervisor(self) -> None:
        supervisor = self.supervisor
        assert supervisor is not None
        if not supervisor.alive or self.is_over():
            return
        self.say("the supervisor is killed")
        supervisor.alive = False
        for agent in list(supervisor.carrier.agents.values()):
            agent.excused = True
            agent.supervisors_link.close()
        self.network.after(self.rng.choice([0.1, 2.0, 20.0]), self.start_supervisor)

    # -- trouble

    def _plan_trouble(self) -> None:
        mean = self.rng.choice([3.0, 15.0, 60.0])

        def happen() -> None:
            if self.network.now < self.trouble_until and not self.is_over():
                self._make_trouble()
                self.network.after(self.rng.expovariate(1 / mean), happen)

        self.network.after(self.rng.expovariate(1 / mean), happen)

    def _make_trouble(self) -> None:
        rng = self.rng
        host = rng.choice(self.hosts)
        what = rng.random()
        if what < 0.35:
            self.cut(host, rng.choice([("up",), ("down",), ("up", "down")]), self._seconds())
        elif what < 0.5:
            seconds = self._seconds()
            asleep = rng.random() < 0.5
            self.say(f"{host.name} stands still for {seconds} s")
            self.book.note(host, seconds)
            host.freeze(seconds, asleep=asleep)
        elif what < 0.6 and self.supervisor is not None:
            seconds = self._seconds()
            self.say(f"the supervisor stands still for {seconds} s")
            self.book.note(None, seconds)
            self.supervisor.stop(seconds)
        elif what < 0.68:
            self.kill_supervisor()
        elif what < 0.8 and host.agents:
            agent = rng.choice(host.agents)
            self.say(f"{agent.tag} crashes")
            agent.excused = True
            agent.die(unheard=rng.random() < 0.3)
        elif what < 0.86 and host.agents:
            self.lose_connection(rng.choice(host.agents))
        elif what < 0.91 and host.agents:
            agent = rng.choice(host.agents)
            self.say(f"{agent.tag} talks nonsense")
            agent.excused = True
            agent.up.put(b"\xc1")
        elif host.agents:
            agent = rng.choice(host.agents)
            seconds = self._seconds()
            self.say(f"{agent.tag} is stopped for {seconds} s")
            self.book.note(host, seconds)
            agent.stop(seconds)

    def _seconds(self) -> float:
        return self.rng.choice([0.3, 2.0, 5.0, 9.0, 20.0, 29.0, 31.0, 34.0, 36.0, 45.0, 90.0])

    def cut(self, host: Host, directions: tuple[str, ...], seconds: float) -> None:
        self.say(f"{host.name} is cut off {directions} for {seconds} s")
        self.book.note(host, seconds)
        for direction in directions:
            host.change_cut(direction, 1)
            self.network.after(seconds, lambda direction=direction: host.change_cut(direction, -1))  # type: ignore[misc]

    def lose_connection(self, agent: AgentProcess) -> None:
        """The supervisor is told that the connection is over; the agent hears nothing more."""
        self.say(f"the connection to {agent.tag} is over")
        agent.down.broken = agent.up.broken = True
        agent.excused = True
        self.network.after(0.001, lambda: agent.up._arrive(None))


class SupervisorProcess(Process):
    """Core and engine, with a loop that is fake."""

    def __init__(self, history: NodeHistory) -> None:
        super().__init__(history.network)
        self.history = history
        table, past = JobTable(), RunHistory()
        for number in range(len(history.book.seconds)):
            table.add(f"job/{number}")
        for record in history.records:
            table.apply(record)  # type: ignore[arg-type]
            past.apply(record)  # type: ignore[arg-type]
        self.elsewhere = past.elsewhere("here")
        position = past.position()
        position.run += 1
        self.next_n = len(history.records) + 1
        self.carrier = SimulatedCarrier(history, self)
        self.began_turn = self.network.now
        spec = WorkerSpec(
            experiment_id="simulated",
            tag="simulated",
            worker=0,
            incarnation=0,
            function=FunctionSpec("os", "getpid"),
            setup=None,
            seed=1,
            output_directory="/simulated",
            jobs_directory="/simulated",
        )
        resumed = position.run > 1
        self.engine = NodesEngine(lambda *_: spec, self.carrier, timeout=TIMEOUT, resumed=resumed)
        self.core = Scheduler(table, Settings(), 1, position, places=[])
        self._told_stood_still = 0.0
        self._ticks = self._same = 0
        self._last = 0.0

    def start(self) -> None:
        with self.network.turn_of(self):
            self.engine.start()
            self.carry_out([RunStarted(self.core.run, AT)], Effects([], []))
            effects = self.core.begin(self.now(), AT, self.next_n, elsewhere=self.elsewhere)
            self.carry_out(effects.records, effects)
        self.network.after(0.0, self.wake)

    def now(self) -> float:
        """The run's clock."""
        return self.network.now - self.stood_still

    def pause_in_turn(self) -> None:
        history, network = self.history, self.network
        if network.rng.random() < history.pauses and network.now < history.book.trouble_until:
            seconds = network.rng.choice([0.5, 3.0, 8.0, 12.0, 20.0, 33.0])
            history.say(f"the supervisor stands still in its turn for {seconds} s")
            with history.book.trouble(None):
                self.stand_still(seconds)

    def turn(self) -> None:
        self.began_turn = self.network.now
        self._same = self._same + 1 if self.network.now - self._last < 1e-5 else 0
        self._last = self.network.now
        if self._same > MOST_AT_ONE_TIME:
            raise Violation("the supervisor is woken again and again, and nothing is done")
        events: list[Event] = []
        if self.stood_still - self._told_stood_still > 1.0:
            events.append(facts.ClockJumped(self.stood_still - self._told_stood_still))
            self._told_stood_still = self.stood_still
        events += self.engine.poll(self.now())
        for event in events:
            self.history.say(event)
        events.append(facts.Synced(self.next_n - 1))
        effects = self.core.handle(events, self.now(), AT, self.next_n)
        self.carry_out(effects.records, effects)
        self._check_places()
        if self.core.finished:
            self.history.book.over = True
            return
        self._ticks += 1
        tick = self._ticks
        times = [
            time for time in (self.core.next_deadline(), self.engine.next_deadline()) if time is not None
        ]
        wait = max(1e-6, min(times, default=self.now() + 30.0) - self.now())
        if self.core.ledger.awaiting_sync:
            wait = 0.0
        self.network.after(wait, lambda: self.wake() if tick == self._ticks else None)

    def carry_out(self, records: list[AnyRecord | Completions], effects: Effects) -> None:
        for record in records:
            singly = list(record.each()) if isinstance(record, Completions) else [record]
            self.history.records += singly
            self.next_n += len(singly)
        engine = self.engine
        for command in effects.commands:
            self.history.say(command)
            match command:
                case StartJobs(incarnation, first, jobs, attempts, cpus):
                    line = b",".join(b"%d" % job for job in jobs)
                    engine.lease_jobs(incarnation, Run(first, attempts, line, cpus))
                case RevokeJobs(incarnation, leases):
                    engine.revoke(incarnation, leases)
                case StartWorker(slot, incarnation, devices, place, local_slot):
                    engine.start_worker(slot, incarnation, devices, place=place, local_slot=local_slot)
                case StopWorker(incarnation):
                    engine.stop_worker(incarnation)
                case KillWorker(incarnation, stack):
                    engine.kill_worker(incarnation, stack=stack)
                case SignalWorker(incarnation, signum):
                    engine.signal_worker(incarnation, signum)

    def _check_places(self) -> None:
        """Who is gone is given up in bounded time, and its workers are taken for dead soon after."""
        history = self.history
        for agent in self.carrier.agents.values():
            there = self.engine._nodes.get(agent.place)
            agent.freed = there is None
            if there is None or there.hello is None or agent.alive:
                continue
            if agent.gone_since is None:
                agent.gone_since = self.now()
            waited = self.now() - agent.gone_since
            if waited > history.book.longest_loss():
                raise Violation(f"{agent.tag} is gone for {waited:.1f} s and its jobs wait still")


class SimulatedCarrier:
    """Brings an agent to each host (`supervisor.nodes.carrier.Carrier`), and another one when it is over."""

    def __init__(self, history: NodeHistory, supervisor: SupervisorProcess) -> None:
        self._history, self._supervisor = history, supervisor
        self._arrivals: list[Arrival] = []
        self.agents: dict[int, AgentProcess] = {}
        self._places = 0

    def start(self) -> None:
        for host in self._history.hosts:
            self._bring(host)

    def _bring(self, host: Host) -> None:
        history = self._history
        if not self._supervisor.alive:
            return
        if not host.reachable():
            history.network.after(1.0, lambda: self._bring(host))
            return
        history.keys += 1
        key = history.keys
        silent_end = history.rng.random() < 0.5
        agent = AgentProcess(
            host,
            history.book,
            f"simulated/{self._supervisor.core.run}-{key}",
            slowest=history.slowest,
            silent_end=silent_end,
        )
        agent.pauses = history.pauses
        agent.supervisors_link.reader.receiver = self._supervisor
        self.agents[key] = agent
        self._arrivals.append(
            Arrival(key, host.name, None, agent.tag, agent.supervisors_link)  # type: ignore[arg-type]
        )
        history.network.after(0.0, self._supervisor.wake)

    def poll(self, now: float) -> list[Arrival]:
        arrivals, self._arrivals = self._arrivals, []
        for arrival in arrivals:
            self.agents[arrival.key].place = self._places
            self._places += 1
        return arrivals

    def fileno(self) -> int | None:
        return None

    def next_deadline(self) -> float | None:
        return None

    def greeted(self, key: int) -> None: ...

    def end(self, key: int) -> None:
        """Kill it, perhaps, when its host can be reached; and bring another one."""
        history, agent = self._history, self.agents[key]
        history.say(f"{agent.tag} is given up")
        if not agent.excused:
            if agent.alive:
                history.book.check_loss(agent.host)
            node = self._supervisor.engine._nodes[agent.place]
            if not node.blameless and history.book.was_our_silence(agent.host):
                raise Violation(f"{agent.tag} is counted as lost, and it was the supervisor that was silent")
        agent.excused = True
        host = agent.host
        if history.rng.random() < 0.5 and not host.hides:
            self._kill(agent)
        if history.rng.random() < 0.2:  # another machine of that name
            host = history._new_host(host.name)
            history.hosts[history.hosts.index(agent.host) if agent.host in history.hosts else 0] = host
        history.network.after(history.rng.choice([0.1, 1.0, 10.0]), lambda: self._bring(host))

    def _kill(self, agent: AgentProcess) -> None:
        if agent.alive and not agent.host.reachable():
            self._history.network.after(1.0, lambda: self._kill(agent))
        elif agent.alive:
            agent.die()

    def expected(self) -> list[Totals]:
        return []

    def why_ended(self, key: int) -> str:
        return ""

    def notices(self) -> list[tuple[str, str]]:
        return []

    def why_none(self) -> str:
        return ""

    def close(self, deadline: float) -> None: ...


@contextlib.contextmanager
def simulated_machines(network: Network) -> Iterator[None]:
    """While it lasts, agents and the engine of several places find simulated hosts."""

    def agent() -> AgentProcess:
        assert isinstance(network.current, AgentProcess)
        return network.current

    def sweep(tag: str, *_: object, spared: str = "") -> list[int]:
        found = [each for each in agent().host.agents if each.tag == tag or each.tag.startswith(tag + "/")]
        found = [each for each in found if not (spared and each.tag.startswith(spared))]
        for each in found:
            if not agent().host.hides:
                each.die(unheard=True)
        return [1] if any(each.alive for each in found) else []

    clock = SimpleNamespace(now=lambda: network.now, tick=lambda *_: 0.0)
    patches: list[tuple[object, str, object]] = [
        (node_agent, "LocalEngine", lambda *_, **__: HostEngine(agent())),
        (node_agent, "AgentGuard", lambda _: SimulatedGuard(agent())),
        (node_agent, "selectors", SimpleNamespace(DefaultSelector=SimulatedSelector, EVENT_READ=1)),
        (node_agent, "RunClock", lambda: clock),
        (node_agent, "time", SimpleNamespace(monotonic=lambda: network.now)),
        (node_agent, "boot_time", lambda: network.now),
        (node_agent, "sweep", sweep),
        (node_agent, "survivors", list),
        (node_agent, "usable_cores", lambda: agent().host.slots),
        (node_agent, "usable_memory", lambda: None),
        (node_agent, "boot_id", lambda: agent().host.kernel),
        (nodes_engine, "selectors", SimpleNamespace(DefaultSelector=SimulatedSelector)),
        (nodes_engine, "boot_id", lambda: "here"),
        (nodes_engine, "boot_time", lambda: network.now),
    ]
    with contextlib.ExitStack() as stack:
        for target, name, replacement in patches:
            stack.enter_context(mock.patch.object(target, name, replacement))
        yield


def play_nodes(
    seed: int,
    *,
    verbose: bool = False,
    prepare: Callable[[Network], contextlib.AbstractContextManager[None]] | None = None,
) -> NodeHistory:
    """One whole history; raises Violation. `prepare`: enters a fault into the code."""
    history = NodeHistory(seed, verbose=verbose)
    with simulated_machines(history.network):
        if prepare is None:
            history.play()
        else:
            with prepare(history.network):
                history.play()
    return history
