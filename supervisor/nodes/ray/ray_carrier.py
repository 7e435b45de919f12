"""The carrier of a Ray cluster (`supervisor.nodes.carrier.Carrier`): agents on its nodes, through a driver process.

The driver may be lost, with all agents: then there is another one, for a while.
"""

from __future__ import annotations

import os
import selectors
import time

from supervisor.core.terms.errors import LonghaulError
from supervisor.core.terms.needs import THOUSAND, Totals
from supervisor.nodes.carrier import Arrival
from supervisor.nodes.link import Link
from supervisor.nodes.ray.driver_process import DriverProcess
from supervisor.nodes.ray.driver_protocol import (
    AgentArrived,
    AgentEnded,
    Bring,
    ClusterNode,
    Connect,
    Connected,
    EndAgent,
    Expected,
    Greeted,
    Leave,
    NoneLeft,
    NotConnected,
    Notice,
    Report,
    tag_of_agent,
)
from supervisor.nodes.wire import Close, encode

AGAIN_AFTER = 1.0  # seconds from the start of a driver to that of its successor, at least
_KEYS_OF_ONE = 1_000_000  # of agents, for one driver
_LEAVE_WITHIN = 4.0


class RayCarrier:
    """driver: connected. directory: where what it prints is kept.

    cpus, per_job, nodes, gpus: as of `Bring`. patience: seconds without a driver that is connected, until none is
    started any more.
    """

    def __init__(
        self,
        driver: DriverProcess,
        tag: str,
        directory: str,
        *,
        cpus: int | None,
        per_job: float,
        nodes: int | None,
        gpus: bool,
        patience: float,
        bootstrap: str,
        library: str,
        options: list[str],
        start_directory: str | None,
        connect: Connect,
    ) -> None:
        self._connect = connect  # for another driver, with the address that the first one has found
        self._driver: DriverProcess | None = driver
        self._tag, self._directory, self._patience = tag, directory, patience
        self._token = os.urandom(4).hex()  # other runs of the experiment have agents as well
        self._bring = Bring(
            tag,
            self._token,
            0,
            cpus,
            per_job,
            nodes,
            gpus,
            library=library,
            bootstrap=bootstrap,
            options=options,
            directory=start_directory,
        )
        self._selector = selectors.DefaultSelector()
        self._drivers = 0
        self._due: float | None = None  # when to start the next driver, on the loop's clock
        self._lost_at: float | None = None  # when there was a connected one last
        self._began = 0.0
        self._none_left = ""
        self._error = ""
        self._now = 0.0
        self._living: dict[int, str] = {}  # names of nodes, by the keys of their agents
        self._links: dict[int, Link] = {}  # by the keys of the living
        self._greeted: set[str] = set()  # names of nodes
        self._expected: list[ClusterNode] = []
        self._cluster: dict[str, ClusterNode] = {}  # all nodes that were ever told, by name
        self._notices: list[tuple[str, str]] = []
        self._told_of_nodes: set[str] = set()
        self._why_ended: dict[int, str] = {}  # by key, until somebody wants to know

    def fileno(self) -> int:
        return self._selector.fileno()

    def start(self) -> None:
        os.makedirs(self._directory, exist_ok=True)
        assert self._driver is not None and self._driver.connected is not None
        self._selector.register(self._driver.control, selectors.EVENT_READ)
        self._use(self._driver.connected)

    def _use(self, connected: Connected) -> None:
        """Let the driver bring agents."""
        assert self._driver is not None
        self._connect.address = connected.address
        self._expect(connected.nodes)
        self._lost_at = None
        self._bring.first_key = self._drivers * _KEYS_OF_ONE
        self._drivers += 1
        self._none_left = ""
        self._driver.send(self._bring)

    def poll(self, now: float) -> list[Arrival]:
        self._now = now
        if self._driver is None and self._due is not None and now >= self._due:
            self._start_driver()
        arrivals: list[Arrival] = []
        while self._driver is not None and self._selector.select(0):
            reports = self._driver.receive()
            if reports is None:
                self._lose_driver(self._driver.why_over())
                break
            if not reports:
                break
            for report, descriptor in reports:
                arrivals += self._on_report(report, descriptor)
        return arrivals

    def _on_report(self, report: Report, descriptor: int | None) -> list[Arrival]:
        match report:
            case AgentArrived(key, name, cpus, slots):
                assert descriptor is not None
                self._living[key] = name
                tag = tag_of_agent(self._tag, key, self._token)
                link = self._links[key] = Link(descriptor, descriptor)
                return [Arrival(key, name, None, tag, link, cpus=cpus, slots=slots)]
            case AgentEnded(key, why):
                self._links.pop(key, None)
                self._lost(self._living.pop(key, ""))
                self._error = self._why_ended[key] = why
            case Leave(key):
                if (wire := self._links.get(key)) is not None:
                    wire.send(encode([Close()]))
            case Expected(nodes):
                self._expect(nodes)
            case NoneLeft(why):
                self._none_left = why
            case Notice(level, text, node):
                self._note(level, text, node)
            case Connected():
                self._use(report)
            case NotConnected(why):
                self._error = why
        return []

    def _note(self, level: str, text: str, node: str) -> None:
        """What is true of many nodes is told of the first one."""
        if not node:
            self._notices.append((level, text))
        elif text not in self._told_of_nodes:
            self._told_of_nodes.add(text)
            self._notices.append((level, f"{node}: {text}"))

    def _expect(self, nodes: list[ClusterNode]) -> None:
        self._expected = nodes
        self._cluster.update({node.name: node for node in nodes})

    def _lost(self, name: str) -> None:
        """Its agent is over; that another one may come is told in a moment, or that none will."""
        self._greeted.discard(name)
        if (node := self._cluster.get(name)) is not None and node not in self._expected:
            self._expected = [*self._expected, node]

    def expected(self) -> list[Totals]:
        return [_totals_of(node) for node in self._expected if node.name not in self._greeted]

    def next_deadline(self) -> float | None:
        return self._due if self._driver is None else None

    def greeted(self, key: int) -> None:
        self._greeted.add(self._living.get(key, ""))
        if self._driver is not None:
            self._driver.send(Greeted(key))

    def end(self, key: int) -> None:
        self._why_ended.pop(key, None)
        if self._driver is not None:
            self._driver.send(EndAgent(key))

    def why_ended(self, key: int) -> str:
        return self._why_ended.get(key, "")

    def notices(self) -> list[tuple[str, str]]:
        found, self._notices = self._notices, []
        return found

    def why_none(self) -> str:
        if self._driver is None and self._due is None:
            return self._error
        return "" if self._living else self._none_left

    # ---------------------------------------------------------------------- driver

    def _lose_driver(self, why: str) -> None:
        """It is over, and all agents with it; another one has to be connected."""
        driver, self._driver = self._driver, None
        assert driver is not None
        self._selector.unregister(driver.control)
        if driver.connected is not None:
            self._lost_at = self._now
        if driver.problem is None:
            self._error = why
        driver.close(0.0, self._log)
        self._why_ended.update(dict.fromkeys(self._living, f"the Ray driver is lost: {why}"))
        for name in self._living.values():
            self._lost(name)
        self._living.clear()
        for link in self._links.values():
            link.hang_up()  # a connection past Ray outlives the driver, and where the head is gone the actor as well
        self._links.clear()
        since = self._now if self._lost_at is None else self._lost_at
        given_up = self._now - since > self._patience
        self._due = None if given_up else max(self._now, self._began + AGAIN_AFTER)

    def _start_driver(self) -> None:
        self._began, self._due = self._now, None
        try:
            self._driver = DriverProcess()
        except (OSError, LonghaulError) as error:
            self._error = f"the Ray driver cannot be started: {error}"
            self._due = self._now + AGAIN_AFTER
            return
        self._driver.connect(self._connect)
        self._selector.register(self._driver.control, selectors.EVENT_READ)

    @property
    def _log(self) -> str:
        return os.path.join(self._directory, "%ray.log")

    def close(self, deadline: float) -> None:
        self._due = None
        if self._driver is not None:
            self._selector.unregister(self._driver.control)
            within = min(_LEAVE_WITHIN, max(0.5, deadline - time.monotonic()))
            self._driver.close(within, self._log)
            self._driver = None
        self._selector.close()


def _totals_of(node: ClusterNode) -> Totals:
    """What its agent may offer; how much memory, only the agent knows."""
    return Totals(node.cpus * THOUSAND, None, tuple(map(str, range(node.gpus))))
