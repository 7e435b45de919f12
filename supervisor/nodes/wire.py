"""What the supervisor and a node agent say to each other: messages, and the frames that carry them.

A message is a msgpack array of orders (down) or of reports (up). It goes over the wire in frames of at most
`MAX_FRAME` bytes: carriers are slow with larger pieces. No descriptor and no process enters here.

The first message each way is a Hello. Its first field is `VERSION`: an agent and a supervisor of different versions
part before anything is run.
"""

from __future__ import annotations

import struct
from typing import Any, Literal

import msgspec

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Event
from supervisor.nodes.shipping.file_messages import FileOrder, FileReport, FilesMode
from supervisor.system.capacity.host_use import HostUse
from supervisor.system.resource_usage import Usage
from workers.process.surrogates import received, sendable
from workers.script.preparation import Preparation
from workers.transport.messages import Outcome, Run, WorkerSpec

VERSION = 1
MAX_FRAME = 90_000  # bytes, its head included
MAX_MESSAGE = 1 << 30  # bytes; the largest outcome of a worker fits, too
_HEAD = struct.Struct(">BI")  # whether the message ends with this frame, then the length of its part
_MORE, _LAST = 0x4C, 0x4D
_PART = MAX_FRAME - _HEAD.size


class WireError(Exception):
    """The other side cannot be understood."""


# ------------------------------------------------------------------------------ down


class HelloAgent(msgspec.Struct, tag=1, array_like=True):
    """The first message to an agent.

    spec: of any worker, packed. start_method, gpus, gpus_by_driver: as of `LocalEngine`.
    tag: of the processes of this node; no other node of any run has it.
    before: tags of nodes that were lost; the agent ends what carries them before its Hello.
    earlier: the tag of the experiment, if it had earlier runs: the agent ends what these have left as well. spared: how
    the tags of all nodes of this run begin.
    silence: seconds without a word of the supervisor after which the agent ends its workers.
    caps: work out the thread caps of the workers there; else those of the spec hold.
    files, token: whether the node shares the file system of the supervisor, auto: if it sees this file (`sendable`).
    ship: the supervisor's path of the directory that the carrier has copied to the node (`sendable`); "" if none was.
    cpus: how many cores of the node are for us, 0: all that the agent may use.
    code: files of the user's modules that the script has imported (`sendable`). libraries: that it has imported.
    """

    version: int
    spec: WorkerSpec
    preparation: Preparation
    tag: str
    start_method: str = "auto"
    gpus: bool = False
    gpus_by_driver: bool = False
    before: list[str] = []
    earlier: str = ""
    spared: str = ""
    silence: float = 30.0
    caps: bool = False
    files: FilesMode = "shared"
    token: str = ""
    cpus: int = 0
    code: list[str] = []
    ship: str = ""
    libraries: list[str] = []


class Start(msgspec.Struct, tag=2, array_like=True):
    slot: int
    incarnation: int
    devices: tuple[str, ...] | None
    local_slot: int


class Lease(msgspec.Struct, tag=3, array_like=True):
    incarnation: int
    run: Run


class TakeBack(msgspec.Struct, tag=4, array_like=True):
    incarnation: int
    leases: list[int]


class Stop(msgspec.Struct, tag=5, array_like=True):
    incarnation: int


class Kill(msgspec.Struct, tag=6, array_like=True):
    incarnation: int
    stack: bool


class SendSignal(msgspec.Struct, tag=7, array_like=True):
    incarnation: int
    signum: int


class Suspend(msgspec.Struct, tag=8, array_like=True):
    """Stop (True) or continue (False) all worker processes."""

    suspend: bool


class Close(msgspec.Struct, tag=9, array_like=True):
    """End all workers, then the agent. Answered by NodeEnds."""


class Ping(msgspec.Struct, tag=10, array_like=True):
    """Answered by Pong. `pong`: the number of the last Pong that has come, 0: HelloNode.

    So the agent knows that this Ping was sent after that Pong was, however long either was under way.
    """

    number: int
    pong: int


class Measure(msgspec.Struct, tag=11, array_like=True):
    """Answered by Used. `usage`: RSS and CPU. `memory`: against limits, as of `Engine.memory`."""

    usage: bool = False
    memory: bool = False
    limit: int | None = None
    limits: dict[int, int] | None = None
    available: bool = False


Order = (
    HelloAgent
    | Start
    | Lease
    | TakeBack
    | Stop
    | Kill
    | SendSignal
    | Suspend
    | Close
    | Ping
    | Measure
    | FileOrder
)

# -------------------------------------------------------------------------------- up


class HelloNode(msgspec.Struct, tag=20, array_like=True):
    """The first message of an agent, when it can start workers.

    cpus: usable cores. memory: bytes, None if unknown. gpus, gpus_by_driver: as of `Totals`; () if it was not
    told of GPUs. boot_id: of `processes.boot_id`. cleared: nothing is left of the nodes `before` and of earlier runs.
    ships: it does not share the file system of the supervisor, and sends the files of its workers.
    code: of each file of `HelloAgent.code` how its sha256 begins there, "" if it cannot be read.
    libraries: the version of each of `HelloAgent.libraries` there, "" if it is missing. release: of longhaul.
    """

    version: int
    python: str
    cpus: int
    memory: int | None
    gpus: tuple[str, ...]
    gpus_by_driver: bool
    host: str
    pid: int
    boot_id: str
    cleared: bool
    ships: bool = False
    code: list[str] = []
    libraries: list[str] = []
    release: str = ""


class Done(msgspec.Struct, tag=21, array_like=True):
    """JobsFinished."""

    incarnation: int
    outcomes: list[Outcome]


class Fact(msgspec.Struct, tag=22, array_like=True):
    """Any other event, by the name of its class. `sendable`: its texts are."""

    kind: str
    body: msgspec.Raw
    sendable: bool = False


class Used(msgspec.Struct, tag=23, array_like=True):
    """What was measured; None: not asked for. `memory`, `available`, `left`: as of `Engine.memory` and
    `Engine.left_behind`. host: comes with `usage`."""

    usage: dict[int, Usage] | None = None
    memory: dict[int, int] | None = None
    available: int | None = None
    left: dict[int, tuple[int, int]] = {}
    host: HostUse | None = None


class Pong(msgspec.Struct, tag=24, array_like=True):
    number: int


HowNodeEnds = Literal["asked", "silence", "failed"]


class NodeEnds(msgspec.Struct, tag=25, array_like=True):
    """The last message of an agent: all its workers are dead.

    how: `asked` by an order or a signal, after `silence` of the supervisor, or because something `failed`.
    """

    why: str
    how: HowNodeEnds = "failed"


Report = HelloNode | Done | Fact | Used | Pong | NodeEnds | FileReport

_FACTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        facts.WorkerLaunched,
        facts.WorkerStartFailed,
        facts.WorkerReady,
        facts.WorkerNotReady,
        facts.LeasesDropped,
        facts.OutcomesHeld,
        facts.LeasesWithdrawn,
        facts.JobReported,
        facts.CodeImported,
        facts.FilesShared,
        facts.WorkerDied,
        facts.WorkerGivenUp,
    )
}

_encoder = msgspec.msgpack.Encoder()
_orders = msgspec.msgpack.Decoder(list[Order])
_reports = msgspec.msgpack.Decoder(list[Report])
_facts = {name: msgspec.msgpack.Decoder(kind) for name, kind in _FACTS.items()}


def encode(messages: list[Any]) -> bytes:
    """Orders or reports as one message."""
    return _encoder.encode(messages)


def decode_orders(message: bytes) -> list[Order]:
    """Raises WireError."""
    try:
        return _orders.decode(message)
    except msgspec.MsgspecError as error:
        raise WireError(f"an order cannot be decoded: {error}") from error


def decode_reports(message: bytes) -> list[Report]:
    """Raises WireError."""
    try:
        return _reports.decode(message)
    except msgspec.MsgspecError as error:
        raise WireError(f"a report cannot be decoded: {error}") from error


# ----------------------------------------------------------------------------- events


def report_of(event: Event) -> Report:
    """An event of a local engine, for the way up."""
    if isinstance(event, facts.JobsFinished):
        return Done(event.incarnation, event.outcomes)
    name = type(event).__name__
    try:
        return Fact(name, msgspec.Raw(_encoder.encode(event)))
    except UnicodeEncodeError:  # a path that is not UTF-8
        return Fact(name, msgspec.Raw(_encoder.encode(_with_texts(event, sendable))), sendable=True)


def event_of(report: Done | Fact) -> Event:
    """The event that `report_of` was given. Raises WireError."""
    if isinstance(report, Done):
        return facts.JobsFinished(report.incarnation, report.outcomes)
    decoder = _facts.get(report.kind)
    if decoder is None:
        raise WireError(f"an agent told of {report.kind}, which is no event of an engine")
    try:
        event: Event = decoder.decode(report.body)
    except msgspec.MsgspecError as error:
        raise WireError(f"a {report.kind} cannot be decoded: {error}") from error
    return _with_texts(event, received) if report.sendable else event


def _with_texts(event: Event, form: Any) -> Any:
    """A copy in which `form` was applied to texts and lists of texts."""
    changed: dict[str, Any] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, str):
            changed[name] = form(value)
        elif isinstance(value, list) and value and all(isinstance(each, str) for each in value):
            changed[name] = [form(each) for each in value]
    return msgspec.structs.replace(event, **changed)


# ----------------------------------------------------------------------------- frames


def frames_of(message: bytes) -> list[bytes]:
    """The frames of a message: one, unless it is large."""
    if len(message) <= _PART:
        return [_HEAD.pack(_LAST, len(message)) + message]
    ends = range(0, len(message), _PART)
    parts = [message[start : start + _PART] for start in ends]
    heads = [_HEAD.pack(_MORE, len(part)) for part in parts[:-1]] + [_HEAD.pack(_LAST, len(parts[-1]))]
    return [head + part for head, part in zip(heads, parts, strict=True)]


class MessageJoiner:
    """Makes messages of a stream of bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def inside(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._rest or self._parts)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. Raises WireError."""
        rest = self._rest
        rest += data
        messages = []
        at = 0
        while len(rest) - at >= _HEAD.size:
            kind, length = _HEAD.unpack_from(rest, at)
            if kind not in (_MORE, _LAST) or length > _PART:
                raise WireError(f"a frame of the kind {kind:#04x} with {length} bytes, which none is")
            end = at + _HEAD.size + length
            if end > len(rest):
                break
            self._parts.append(bytes(rest[at + _HEAD.size : end]))
            self._size += length
            at = end
            if self._size > MAX_MESSAGE:
                raise WireError(f"a message of more than {MAX_MESSAGE} bytes")
            if kind == _LAST:
                messages.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
                self._parts, self._size = [], 0
        del rest[:at]
        return messages
