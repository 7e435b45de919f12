"""Nodes that are played by one process: agents that say what real ones say, and workers that are numbers.

So a supervisor on a small machine meets a cluster. A job takes as long as is asked for, by half more or less, and its
result is 1. `FakeCarrier` stands for the network; `python tools/benchmark/fake_nodes.py SECONDS WORKERS DESCRIPTOR ...`
plays the nodes, each behind one end of a socket pair.
"""

from __future__ import annotations

import heapq
import os
import platform
import random
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from supervisor.core.terms import events as facts
from supervisor.core.terms.needs import Totals
from supervisor.core.terms.version import VERSION as RELEASE
from supervisor.nodes.carrier import Arrival
from supervisor.nodes.carriers import CarrierSurroundings, add_carrier
from supervisor.nodes.link import Link
from supervisor.nodes.wire import (
    VERSION,
    Close,
    Done,
    HelloAgent,
    HelloNode,
    Kill,
    Lease,
    Measure,
    NodeEnds,
    Order,
    Ping,
    Pong,
    Report,
    Start,
    Stop,
    TakeBack,
    Used,
    decode_orders,
    encode,
    report_of,
)
from supervisor.system.interpreter import has_ended
from supervisor.system.resource_usage import Usage
from workers.transport.messages import Completed

NAME = "fake"


class FakeCarrier:
    """Brings so many nodes of so many workers, at once; none of them ever ends by itself."""

    def __init__(self, around: CarrierSurroundings, nodes: int, workers: int, seconds: float) -> None:
        self._tag, self._nodes, self._workers, self._seconds = around.tag, nodes, workers, seconds
        self._arrivals: list[Arrival] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        pairs = [socket.socketpair() for _ in range(self._nodes)]
        theirs = [pair[1].fileno() for pair in pairs]
        command = [sys.executable, __file__, str(self._seconds), str(self._workers), *map(str, theirs)]
        self._process = subprocess.Popen(command, pass_fds=theirs, start_new_session=True)
        for number, (ours, other) in enumerate(pairs):
            other.close()
            descriptor = ours.detach()
            tag = f"{self._tag}/fake-{number}"
            self._arrivals.append(Arrival(number, f"fake{number}", None, tag, Link(descriptor, descriptor)))

    def fileno(self) -> int | None:
        return None

    def poll(self, now: float) -> list[Arrival]:
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def next_deadline(self) -> float | None:
        return None

    def greeted(self, key: int) -> None:
        pass

    def end(self, key: int) -> None:
        pass

    def expected(self) -> list[Totals]:
        return []

    def why_ended(self, key: int) -> str:
        return ""

    def notices(self) -> list[tuple[str, str]]:
        return []

    def why_none(self) -> str:
        return "the played nodes have ended"

    def close(self, deadline: float) -> None:
        if self._process is not None and not has_ended(self._process, deadline - time.monotonic()):
            self._process.kill()
            self._process.wait()


def add(nodes: int, workers: int, seconds: float) -> None:
    """Let `engine="fake"` run jobs on such nodes."""
    add_carrier(NAME, lambda around: FakeCarrier(around, nodes, workers, seconds))


# --------------------------------------------------------------------------- the nodes


class FakeNode:
    def __init__(self, link: Link, workers: int, seconds: float, nodes: FakeNodes) -> None:
        self.link = link
        self._workers, self._seconds, self._nodes = workers, seconds, nodes
        self.leases: dict[int, deque[int]] = {}  # by incarnation; the first one runs
        self._stopping: set[int] = set()
        self.reports: list[Report] = []

    def obey(self, order: Order) -> None:
        match order:
            case Lease(incarnation, run):
                leases = self.leases[incarnation]
                idle = not leases
                leases.extend(range(run.first_lease, run.first_lease + len(run.attempts)))
                if idle:
                    self._begin(incarnation)
            case Start(_, incarnation):
                self.leases[incarnation] = deque()
                self._tell(facts.WorkerLaunched(incarnation, 10_000 + incarnation, time.time()))
                self._tell(facts.WorkerReady(incarnation))
            case TakeBack(incarnation, revoked):
                leases = self.leases.get(incarnation, deque())
                dropped = [lease for lease in list(leases)[1:] if lease in set(revoked)]
                self.leases[incarnation] = deque(lease for lease in leases if lease not in set(dropped))
                self._tell(facts.LeasesDropped(incarnation, dropped))
            case Stop(incarnation):
                self._stopping.add(incarnation)
                if not self.leases.get(incarnation):
                    self._end(incarnation, facts.WorkerDied(incarnation, exit_code=0))
            case Kill(incarnation):
                self._end(incarnation, facts.WorkerDied(incarnation, signal=9))
            case Ping(number):
                self.reports.append(Pong(number))
            case Measure():
                usage = {who: Usage(100 << 20, 99.0) for who in self.leases} if order.usage else None
                memory = dict.fromkeys(self.leases, 100 << 20) if order.memory else None
                self.reports.append(Used(usage, memory, 8 << 30))
            case HelloAgent():
                self.reports.append(self._hello())
            case Close():
                self.reports.append(NodeEnds("it was told to", "asked"))
            case _:
                pass

    def _hello(self) -> HelloNode:
        return HelloNode(
            VERSION,
            platform.python_version(),
            self._workers,
            64 << 30,
            (),
            False,
            "fake",
            os.getpid(),
            f"fake {id(self)}",
            True,
            release=RELEASE,
        )

    def _begin(self, incarnation: int) -> None:
        # By half more or less, or all workers would end their jobs in the same moments.
        seconds = self._seconds * random.uniform(0.5, 1.5)
        self._nodes.ends(self, incarnation, time.monotonic() + seconds)

    def finish(self, incarnation: int) -> None:
        """Its job has taken as long as it had to."""
        leases = self.leases.get(incarnation)
        if not leases:
            return
        self.reports.append(Done(incarnation, [Completed(leases.popleft(), self._seconds, b"1")]))
        if leases:
            self._begin(incarnation)
        elif incarnation in self._stopping:
            self._end(incarnation, facts.WorkerDied(incarnation, exit_code=0))

    def _tell(self, event: facts.Event) -> None:
        self.reports.append(report_of(event))

    def _end(self, incarnation: int, event: facts.WorkerDied) -> None:
        if self.leases.pop(incarnation, None) is not None:
            self._tell(event)


class FakeNodes:
    """All nodes, until the supervisor is gone."""

    def __init__(self, descriptors: list[int], workers: int, seconds: float) -> None:
        self._selector = selectors.DefaultSelector()
        self._ends: list[tuple[float, int, FakeNode, int]] = []
        self._count = 0
        self._nodes = [FakeNode(Link(each, each), workers, seconds, self) for each in descriptors]

    def ends(self, node: FakeNode, incarnation: int, at: float) -> None:
        self._count += 1
        heapq.heappush(self._ends, (at, self._count, node, incarnation))

    def play(self) -> None:
        while not all(node.link.ended for node in self._nodes):
            for node in self._nodes:
                node.link.watch(self._selector, node)
            wait = self._ends[0][0] - time.monotonic() if self._ends else 1.0
            ready = self._selector.select(max(0.0, min(wait, 1.0)))
            touched = {key.data: None for key, _ in ready}
            for node in touched:
                node.link.flush()
                for message in node.link.receive():
                    for order in decode_orders(message):
                        node.obey(order)
            now = time.monotonic()
            while self._ends and self._ends[0][0] <= now:
                _, _, node, incarnation = heapq.heappop(self._ends)
                node.finish(incarnation)
                touched[node] = None
            for node in touched:
                if node.reports:
                    node.link.send(encode(node.reports))
                    node.reports = []


if __name__ == "__main__":
    FakeNodes(list(map(int, sys.argv[3:])), int(sys.argv[2]), float(sys.argv[1])).play()
