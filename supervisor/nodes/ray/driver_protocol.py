"""What the supervisor and its Ray driver say to each other: small packets. What the agents say goes past these,
through a socket for each agent whose descriptor comes with `AgentArrived`.
"""

from __future__ import annotations

import os
import socket

import msgspec

MAX_PACKET = 60_000  # bytes
_MAX_TEXT = 2_000

# ------------------------------------------------------------------------------ down


class Connect(msgspec.Struct, tag=1):
    """The first packet. address: `auto`, `local` or HOST:PORT. ship: a directory that every node gets a copy of; ""
    if none is. outputs: where experiments are: if that is in it, it is left out."""

    address: str
    ship: str = ""
    outputs: str = ""


class Reserve(msgspec.Struct, tag=6):
    """Make the actors that `Bring` will ask for, so that Ray starts their processes meanwhile; cpus, per_job, nodes: as
    there. Nothing is told before `Bring`, and no agent started. None is made if a node has GPUs: whether they are
    needed is known later, and the CPUs that go with them must not be taken elsewhere."""

    cpus: int | None
    per_job: float
    nodes: int | None


class Bring(msgspec.Struct, tag=2):
    """Start agents, and others for those that end, until `End` or the end of the connection.

    tag: of the experiment. token: of this run, in the tags of its agents; their keys begin with `first_key`.
    cpus: as many of the cluster's CPUs at most, None: all. per_job: CPUs that a job takes, if it does not say.
    nodes: on as many nodes at most. gpus: take the GPUs of these nodes as well.
    """

    tag: str
    token: str
    first_key: int
    cpus: int | None
    per_job: float
    nodes: int | None
    gpus: bool
    library: str  # where msgspec is, for `interpreter_of`
    bootstrap: str
    options: list[str]  # of the interpreter
    directory: str | None  # that the script was started in


class EndAgent(msgspec.Struct, tag=3):
    key: int


class Greeted(msgspec.Struct, tag=5):
    """This agent has said Hello."""

    key: int


class Quit(msgspec.Struct, tag=4):
    """Leave the cluster, in order."""


Order = Connect | Reserve | Bring | EndAgent | Greeted | Quit

# -------------------------------------------------------------------------------- up


class ClusterNode(msgspec.Struct, frozen=True):
    """memory: bytes, as Ray counts it."""

    name: str
    cpus: int
    gpus: int
    memory: int


class Connected(msgspec.Struct, tag=10):
    """address: HOST:PORT, whatever was asked for."""

    address: str
    nodes: list[ClusterNode]


class NotConnected(msgspec.Struct, tag=11):
    why: str
    wrong: bool = True  # what was asked for; else something failed


class AgentArrived(msgspec.Struct, tag=12):
    """An agent was started; a descriptor comes with it. name: of its node. cpus: taken there."""

    key: int
    name: str
    cpus: int
    slots: int


class AgentEnded(msgspec.Struct, tag=13):
    """An agent, or its start, is over; another one may come."""

    key: int
    why: str


class Leave(msgspec.Struct, tag=17):
    """The node of this agent is about to be taken away: let it end in order."""

    key: int


class NoneLeft(msgspec.Struct, tag=14):
    """No agent runs, and no node is left on which one might start. `why` is "" when one may again."""

    why: str


class Expected(msgspec.Struct, tag=16):
    """The nodes on which an agent is being started, or may be soon."""

    nodes: list[ClusterNode]


class Notice(msgspec.Struct, tag=15):
    """For the user. node: of which it was found first; others may tell the same, which is told once."""

    level: str
    text: str
    node: str = ""


Report = Connected | NotConnected | AgentArrived | AgentEnded | Leave | NoneLeft | Expected | Notice

_encoder = msgspec.msgpack.Encoder()
_orders = msgspec.msgpack.Decoder(Order)
_reports = msgspec.msgpack.Decoder(Report)


def channel() -> tuple[socket.socket, socket.socket]:
    """Two ends; a packet arrives whole, and with its descriptor."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, packet: Order | Report, descriptor: int | None = None) -> None:
    """Raises OSError if the other side is gone."""
    data = _encoder.encode(packet)
    socket.send_fds(end, [data], [] if descriptor is None else [descriptor])


def receive_order(end: socket.socket) -> Order | None:
    """None: the supervisor is gone. Raises BlockingIOError."""
    data = end.recv(MAX_PACKET)
    return _orders.decode(data) if data else None


def receive_report(end: socket.socket) -> tuple[Report, int | None] | None:
    """A report and its descriptor, which is the caller's now. None: the driver is gone. Raises BlockingIOError."""
    try:
        data, descriptors, _, _ = socket.recv_fds(end, MAX_PACKET, 1)
    except ConnectionError:
        # Told once, and before what waits to be read, of a driver that has ended with orders unread.
        try:
            data, descriptors, _, _ = socket.recv_fds(end, MAX_PACKET, 1)
        except ConnectionError:
            return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return (_reports.decode(data), descriptors[0] if descriptors else None) if data else None


def tag_of_agent(tag: str, key: int, token: str) -> str:
    """Of all processes of this agent; `tag`: of the experiment."""
    return f"{tag}/{token}-{key}"


def in_one_line(text: str) -> str:
    """The last line of an error of Ray's, which may have hundreds."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_MAX_TEXT] if lines else ""
