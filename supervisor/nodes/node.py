"""One node as the engine of several places sees it."""

from __future__ import annotations

import signal

from supervisor.core.terms import events as facts
from supervisor.nodes.carrier import Arrival
from supervisor.nodes.fencing import Heartbeat
from supervisor.nodes.shipping.file_receipt import NodeFiles
from supervisor.nodes.wire import HelloNode, Order, Ping, Used, encode
from supervisor.system.capacity.host_use import HostUse
from supervisor.system.resource_usage import Usage


class Node:
    """A node, from the arrival of its agent until nothing of it computes any more.

    members: its workers, slots by incarnation. lost: why its agent is over, None while it is not.
    """

    def __init__(self, place: int, arrival: Arrival, heartbeat: Heartbeat) -> None:
        self.place = place
        self.heartbeat = heartbeat
        self.key, self.name, self.seat, self.tag, self.link = arrival[:5]
        self.cpus, self.slots = arrival.cpus, arrival.slots
        self.hello: HelloNode | None = None
        self.files: NodeFiles[Order] | None = None  # if it shares no file system with us
        self.members: dict[int, int] = {}
        self.lost: str | None = None
        self.blameless = False  # its end was announced, or its silence was ours
        self.fencing = False  # it is lost, and what it runs may not have ended
        self.confirms: list[Node] = []  # lost nodes whose end this one's Hello confirms
        self.usage: dict[int, Usage] = {}
        self.host = HostUse()  # as it said last
        self.memory: dict[int, int] = {}
        self.left: dict[int, tuple[int, int]] = {}
        self.available: int | None = None
        self.asked_memory = False  # and not answered yet

    @property
    def usable(self) -> bool:
        return self.hello is not None and self.lost is None

    @property
    def pressing(self) -> bool:
        """Whether the supervisor should not sleep, as it does while many outcomes gather. Before the Hello it is the
        node that would wait for it, with nothing to do."""
        return self.lost is None and (self.hello is None or self.link.pressing)

    def send(self, *orders: Order) -> None:
        self.link.send(encode(list(orders)))

    def ping(self, now: float) -> None:
        self.send(Ping(*self.heartbeat.ping(now)))

    def receive(self, now: float) -> list[bytes]:
        messages = self.link.receive()
        if messages:
            self.heartbeat.hear(now)
        return messages

    def measured(self, used: Used) -> None:
        if used.usage is not None:
            self.usage = {key: usage for key, usage in used.usage.items() if key in self.members}
        if used.host is not None:
            self.host = used.host
        if used.memory is not None:
            self.asked_memory = False
            self.memory = {key: size for key, size in used.memory.items() if key in self.members}
            self.available, self.left = used.available, used.left

    @property
    def cause(self) -> str:
        """Of what its workers die."""
        return facts.NODE_ENDED if self.blameless else facts.NODE_LOST

    @staticmethod
    def death_of(incarnation: int, cause: str = facts.NODE_LOST) -> facts.WorkerDied:
        return facts.WorkerDied(incarnation, signal=int(signal.SIGKILL), cause=cause)

    def forget(self, incarnation: int) -> None:
        """This worker is dead."""
        for known in (self.usage, self.memory, self.left):
            known.pop(incarnation, None)
