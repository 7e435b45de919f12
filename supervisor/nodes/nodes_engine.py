"""The engine for several places: drives an agent in each (`supervisor.engines.engine.Engine`).

A place is a node with its agent. Orders go to the place of their worker, events are those that the agents tell. Only
`close` blocks.

The end of a place is not the fault of its jobs: each of its workers dies of `NODE_LOST`, or of `NODE_ENDED` if the
end was announced or if it was this process that was silent. When that is told, nothing of the place computes any
more: its agent has said so itself, or the next agent on the same node has confirmed it, or so much time has passed
since the last Ping to it that it has ended its workers by itself.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from supervisor.core.terms import events as facts
from supervisor.core.terms.errors import NodesRefused, WorkersError
from supervisor.core.terms.events import Event, PlaceEnd, PlaceFacts
from supervisor.core.terms.needs import THOUSAND, Totals
from supervisor.engines.engine import HostSeen
from supervisor.engines.launcher import preparation_for
from supervisor.engines.start_methods import resolve
from supervisor.nodes.carrier import Arrival, Carrier
from supervisor.nodes.fencing import FENCE, Heartbeat, shows_end, stand_still
from supervisor.nodes.node import Node
from supervisor.nodes.node_code import other_libraries, why_unfit
from supervisor.nodes.seats import Seat
from supervisor.nodes.shipping.file_messages import FILE_REPORTS
from supervisor.nodes.shipping.file_receipt import FileReceipt, NodeFiles
from supervisor.nodes.wire import (
    VERSION,
    Close,
    Done,
    Fact,
    HelloAgent,
    HelloNode,
    HowNodeEnds,
    Kill,
    Lease,
    Measure,
    NodeEnds,
    Order,
    Pong,
    Report,
    SendSignal,
    Start,
    Stop,
    Suspend,
    TakeBack,
    Used,
    WireError,
    decode_reports,
    event_of,
)
from supervisor.system.clock import boot_time
from supervisor.system.process_cleanup import sweep
from supervisor.system.processes import boot_id
from supervisor.system.resource_usage import Usage
from workers.isolation.output_files import leftovers
from workers.process.surrogates import sendable
from workers.transport.messages import Run, WorkerSpec

CLOSE_WITHIN = 5.0
SWEEP_WITHIN = 2.0

SpecFor = Callable[[int, int], WorkerSpec]


class NodesEngine:
    """Workers in several places.

    spec_for: as of `LocalEngine`; the tag is that of the experiment.
    seats: what the places of a seat offer, if the carrier has seats; the others offer all that they have.
    files: takes in what is written on nodes that share no file system; without it all are taken to share ours.
    timeout: seconds without a word after which a place is given up, and an agent ends its workers.
    keep_free: bytes of each place that jobs may not ask for.
    shipped: the directory that the carrier copies to each node; "" if none is.
    resumed: earlier runs of the experiment may have left processes on any host.
    code: files of the user's modules, with digests (`why_unfit`): nodes that have other ones are refused.
    libraries: with versions (`libraries_now`): of nodes that have other ones the user is told.
    """

    def __init__(
        self,
        spec_for: SpecFor,
        carrier: Carrier,
        *,
        seats: Sequence[Seat] = (),
        start_method: str = "auto",
        gpus: bool = False,
        gpus_by_driver: bool = False,
        timeout: float = 30.0,
        files: FileReceipt | None = None,
        resumed: bool = False,
        code: Mapping[str, str] | None = None,
        libraries: Mapping[str, str] | None = None,
        shipped: str = "",
        keep_free: int = 0,
    ) -> None:
        self._keep_free = keep_free
        self._shipped = shipped
        self._spec_for = spec_for
        self._carrier = carrier
        self._seats = seats
        self._start_method = start_method
        self._gpus, self._gpus_by_driver = gpus, gpus_by_driver
        self._timeout = timeout
        self._files = files
        self._resumed = resumed
        self._here = boot_id()
        self._selector = selectors.DefaultSelector()
        self._nodes: dict[int, Node] = {}  # by place, until nothing of them is left
        self._places: dict[int, Node] = {}  # by incarnation
        self._next_place = 0
        self._events: list[Event] = []
        self._code, self._libraries = code or {}, libraries or {}
        self._odd_libraries: set[str] = set()  # that were told
        self._refused: list[str] = []  # why agents could not be used
        self._fitting = False  # whether one could
        self._expected: list[Totals] = []  # as it was told last
        self._closing = False
        self._joined = False  # places that nobody was told of yet: many that join at once are told together
        self._now, self._boot = 0.0, boot_time()
        self._files_told: set[str] = set()

    def fileno(self) -> int:
        return self._selector.fileno()

    def start(self) -> None:
        resolve(self._start_method)
        spec = self._spec_for(0, 0)
        self._spec, self._preparation = spec.packed(), preparation_for(spec)
        try:
            self._carrier.start()
        except OSError as error:
            raise WorkersError(
                f"no agent of a node can be started: {error}. Fix this, then start again or resume."
            ) from error
        if (descriptor := self._carrier.fileno()) is not None:
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._boot = boot_time()
        for arrival in self._carrier.poll(0.0):
            self._welcome(arrival)

    # ----------------------------------------------------------------------- orders

    def start_worker(
        self,
        slot: int,
        incarnation: int,
        devices: tuple[str, ...] | None = None,
        *,
        place: int = 0,
        local_slot: int = -1,
    ) -> None:
        node = self._nodes.get(place)
        if node is None or not node.usable:  # it has ended since
            self._events.append(Node.death_of(incarnation))
            return
        node.members[incarnation] = slot
        self._places[incarnation] = node
        self._send(node, Start(slot, incarnation, devices, local_slot))

    def lease_jobs(self, incarnation: int, message: Run) -> None:
        node, order = self._places.get(incarnation), Lease(incarnation, message)
        if node is not None and not (node.files and node.files.lease(incarnation, message, order)):
            self._send(node, order)

    def revoke(self, incarnation: int, leases: Sequence[int]) -> None:
        self._order_in_turn(incarnation, TakeBack(incarnation, list(leases)))

    def stop_worker(self, incarnation: int) -> None:
        self._order_in_turn(incarnation, Stop(incarnation))

    def kill_worker(self, incarnation: int, *, stack: bool = False) -> None:
        self._order(incarnation, Kill(incarnation, stack))

    def signal_worker(self, incarnation: int, signum: int) -> None:
        self._order(incarnation, SendSignal(incarnation, int(signum)))

    def stop_workers(self, *, suspend: bool) -> None:
        for node in self._usable():
            self._send(node, Suspend(suspend))

    def _order(self, incarnation: int, order: Order) -> None:
        node = self._places.get(incarnation)
        if node is not None:
            self._send(node, order)

    def _order_in_turn(self, incarnation: int, order: Order) -> None:
        """Behind leases that wait for files."""
        node = self._places.get(incarnation)
        if node is not None and not (node.files and node.files.queue(incarnation, order)):
            self._send(node, order)

    def _send(self, node: Node, *orders: Order) -> None:
        if node.lost is None and orders:
            node.send(*orders)
            node.link.watch(self._selector, node)

    def _usable(self) -> list[Node]:
        return [node for node in self._nodes.values() if node.usable]

    # ------------------------------------------------------------------------ facts

    def poll(self, now: float) -> list[Event]:
        self._now = now
        self._look_at_clock()
        for arrival in self._carrier.poll(now):
            self._welcome(arrival)
        if self._usable() and self._carrier.expected() != self._expected:
            self._tell_places()
        self._events += [facts.CarrierNotice(level, text) for level, text in self._carrier.notices()]
        for key, _ in self._selector.select(0):
            if key.data is not None:
                self._read(key.data)
        for node in list(self._nodes.values()):
            self._check_time(node)
            if node.files is not None and node.lost is None:
                self._send(node, *node.files.messages(now, node.link.unsent), *node.files.orders())
        if not self._nodes and (why := self._carrier.why_none()):
            if self._refused and not self._fitting:
                raise NodesRefused("; ".join(self._refused))
            raise WorkersError(
                f"no node is left to run jobs: {why}. What was recorded is safe; resume when there are nodes again."
            )
        if self._joined:
            self._tell_places()
        events, self._events = self._events, []
        return events

    def _look_at_clock(self) -> None:
        before, self._boot = self._boot, boot_time()
        for node in self._nodes.values():
            node.heartbeat.stood_still(stand_still(before, self._boot, node.heartbeat.every))

    def _welcome(self, arrival: Arrival) -> None:
        place = self._next_place
        self._next_place += 1
        node = self._nodes[place] = Node(place, arrival, Heartbeat(self._timeout, self._boot))
        before = [other for other in self._nodes.values() if other.lost is not None]
        node.confirms = [other for other in before if other.name == node.name]
        hello = HelloAgent(
            VERSION,
            self._spec,
            self._preparation,
            tag=arrival.tag,
            start_method=self._start_method,
            gpus=self._gpus,
            gpus_by_driver=self._gpus_by_driver,
            before=[other.tag for other in node.confirms],
            earlier=self._spec.tag if self._resumed else "",
            spared=arrival.tag.rpartition("-")[0] + "-",
            silence=self._timeout,
            caps=arrival.seat is None,
            files="shared" if self._files is None else self._files.mode,
            code=list(self._code),
            libraries=list(self._libraries),
            token="" if self._files is None else sendable(self._files.token),
            cpus=arrival.cpus or 0,
            ship=sendable(self._shipped),
        )
        self._send(node, hello)

    def _read(self, node: Node) -> None:
        node.link.flush()
        try:
            messages = node.receive(self._boot)
            self._look_at_clock()  # what has come, has come before now: this process may have stood still meanwhile
            for message in messages:
                for report in decode_reports(message):
                    self._on_report(node, report)
        except WireError as error:
            self._lose(node, str(error))
        node.link.watch(self._selector, node)
        if node.link.ended and node.lost is None:
            self._lose(node, node.link.ended)

    def _on_report(self, node: Node, report: Report) -> None:
        match report:
            case Done() | Fact():
                self._on_event(node, event_of(report))
            case Used():
                node.measured(report)
            case HelloNode():
                self._on_hello(node, report)
            case NodeEnds(why, how):
                node.heartbeat.confirm()
                self._lose(node, why, how)
            case Pong(number):
                node.heartbeat.pong(number, self._boot)
            case _ if isinstance(report, FILE_REPORTS) and node.files is not None:
                node.files.take(report, node.members.get(getattr(report, "incarnation", 0)))

    def _on_event(self, node: Node, event: Event) -> None:
        if isinstance(event, facts.FilesShared):  # each agent says so; the user is told once
            files = [file for file in event.files if file not in self._files_told]
            self._files_told.update(files)
            if files:
                self._events.append(facts.FilesShared(files))
            return
        incarnation: int = event.incarnation  # type: ignore[union-attr]
        slot = node.members.get(incarnation)
        if slot is None and not (node.files and node.files.holds(event)):
            return
        if isinstance(event, facts.WorkerLaunched):
            event = self._with_host(node, event)
        told = [event] if node.files is None else node.files.on_event(event, slot)
        if isinstance(event, facts.JobsFinished):
            node.memory.pop(incarnation, None)  # what was measured was of an earlier job
        elif isinstance(event, facts.WorkerReady):
            self._send(node, Measure(usage=True))
        elif isinstance(event, facts.WorkerDied | facts.WorkerStartFailed):
            self._forget(node, incarnation)
        self._events += told

    def _with_host(self, node: Node, event: facts.WorkerLaunched) -> facts.WorkerLaunched:
        """Its pid means nothing here, and a later run has to know for how long it may go on by itself."""
        hello = node.hello
        if hello is None or hello.boot_id == self._here:
            return event
        return msgspec.structs.replace(event, boot_id=hello.boot_id, outlives=self._timeout + FENCE)

    def _forget(self, node: Node, incarnation: int) -> None:
        del node.members[incarnation]
        self._places.pop(incarnation, None)
        node.forget(incarnation)

    # ----------------------------------------------------------------------- places

    def _on_hello(self, node: Node, hello: HelloNode) -> None:
        if why := why_unfit(node.name, hello, self._code, self._preparation.main_path):
            if why not in self._refused:
                self._refused.append(why)
                self._events.append(facts.CarrierNotice("warning", why))
            self._lose(node, why)
            return
        if (odd := other_libraries(hello, self._libraries)) and odd not in self._odd_libraries:
            self._odd_libraries.add(odd)
            self._events.append(facts.CarrierNotice("warning", f"{node.name} ({hello.host}) has {odd}"))
        self._fitting = True
        node.hello = hello
        if hello.ships and self._files is not None:
            node.files = NodeFiles(self._files)
        node.heartbeat.greet(self._boot)
        self._carrier.greeted(node.key)
        for other in node.confirms:
            if other.hello is not None and shows_end(hello.cleared, hello.boot_id, other.hello.boot_id):
                other.heartbeat.confirm()
                self._check_time(other)
        self._joined = True

    def _tell_places(self, *ended: PlaceEnd) -> None:
        self._joined = False
        if not self._closing:
            there = [self._facts_of(node) for node in self._usable()]
            self._expected = self._carrier.expected()
            self._events.append(facts.PlacesChanged(there, list(ended), self._expected))

    def _facts_of(self, node: Node) -> PlaceFacts:
        hello = node.hello
        assert hello is not None
        name = f"{node.name} ({hello.host})"
        cleared = hello.boot_id if self._resumed and hello.cleared else ""
        if node.seat is not None:
            seat = self._seats[node.seat]
            return PlaceFacts(node.place, name, seat.slots, seat.totals, cleared, elsewhere=True)
        memory = None if hello.memory is None else max(0, hello.memory - self._keep_free)
        totals = Totals(hello.cpus * THOUSAND, memory, hello.gpus, by_driver=hello.gpus_by_driver)
        return PlaceFacts(node.place, name, node.slots or hello.cpus, totals, cleared, elsewhere=True)

    def _lose(self, node: Node, why: str, how: HowNodeEnds | None = None) -> None:
        """The place is no more. Its workers are told to be dead when that is certain. `how`: as its agent has said."""
        if node.lost is None:
            was_usable = node.usable
            if how is None:
                why = self._carrier.why_ended(node.key) or why
            node.lost = why
            node.blameless = how == "asked" or (how != "failed" and node.heartbeat.missed_us)
            node.heartbeat.give_up()
            node.link.close()
            if not self._closing:  # then the carrier ends all of them, and need not bring another one
                self._carrier.end(node.key)
            if was_usable:
                self._tell_places(PlaceEnd(node.place, why, node.blameless))
        if not node.members:
            node.heartbeat.confirm()
        self._check_time(node)
        node.fencing = True

    def _free(self, node: Node) -> None:
        """Nothing of this place computes any more."""
        if node.fencing:
            self._events.append(facts.PlaceFenced(node.place, confirmed=node.heartbeat.confirmed))
        for incarnation, slot in list(node.members.items()):
            self._forget(node, incarnation)
            if node.files is not None:
                self._events += node.files.worker_lost(incarnation, slot)
            self._events.append(Node.death_of(incarnation, node.cause))
        if node.files is not None:
            if node.files.held:
                self._events.append(facts.HeldOutcomesLost(list(node.files.held), node.cause))
            node.files.close()
        self._nodes.pop(node.place, None)

    def _check_time(self, node: Node) -> None:
        match node.heartbeat.due(self._boot):
            case "ended":
                self._free(node)
            case "silent":
                self._lose(node, f"nothing was heard of it for {node.heartbeat.patience:g}s")
            case "ping":
                node.ping(boot_time())
                node.link.watch(self._selector, node)

    def next_deadline(self) -> float | None:
        if self._events:
            return self._now
        beats = [node.heartbeat for node in self._nodes.values()]
        times = [self._now + beat.next_time() - self._boot for beat in beats]
        # Else nothing to do would look like standing still.
        times += [self._now + beat.every for beat in beats]
        if (due := self._carrier.next_deadline()) is not None:
            times.append(due)
        for node in self._nodes.values():
            if node.files is not None and (due := node.files.next_deadline(node.link.unsent)) is not None:
                times.append(due)
        return min(times, default=None)

    def pressing(self) -> bool:
        return any(node.pressing for node in self._nodes.values())

    # ----------------------------------------------------------------- measurements

    def usage(self) -> dict[int, Usage]:
        """What the agents reported last; the next report is asked for."""
        for node in self._usable():
            self._send(node, Measure(usage=True))
        return {key: used for node in self._usable() for key, used in node.usage.items()}

    def memory(
        self, limit: int | None, limits: Mapping[int, int] | None, *, available: bool
    ) -> tuple[dict[int, int], int | None]:
        """What the agents reported since the last call; the next report is asked for. `available`: of the node
        that has least."""
        used: dict[int, int] = {}
        free: list[int] = []
        for node in self._usable():
            used.update(node.memory)
            node.memory = {}
            if node.available is not None:
                free.append(node.available)
            if not node.asked_memory:
                node.asked_memory = True
                own = None if limits is None else {n: most for n, most in limits.items() if n in node.members}
                self._send(node, Measure(memory=True, limit=limit, limits=own, available=available))
        return used, min(free, default=None) if available else None

    def available_on_places(self) -> dict[int, int]:
        return {node.place: node.available for node in self._usable() if node.available is not None}

    def left_behind(self) -> dict[int, tuple[int, int]]:
        return {key: left for node in self._usable() for key, left in node.left.items()}

    def hosts(self) -> dict[int, HostSeen]:
        return {
            node.place: HostSeen(node.host, max(0.0, self._boot - node.heartbeat.heard))
            for node in self._usable()
        }

    # -------------------------------------------------------------------------- end

    def close(self) -> None:
        """Tell all agents to end, wait for them, and kill what is left."""
        self._closing = True
        deadline = time.monotonic() + CLOSE_WITHIN
        for node in list(self._nodes.values()):
            if node.hello is None and node.lost is None:  # it has no workers
                self._lose(node, "it was not ready")
            else:
                self._send(node, Close())
        while (left := _alive(self._nodes.values())) and (rest := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(min(rest, 0.1)):
                if key.data is not None:
                    self._read(key.data)
            self._boot = boot_time()
        for node in left:
            self._lose(node, "it did not end")
        self._carrier.close(deadline)
        self._selector.close()
        sweep(self._spec.tag, seconds=max(0.0, min(SWEEP_WITHIN, deadline - time.monotonic())))
        leftovers(self._spec.unpacked().output_directory)  # of lost nodes


def _alive(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if node.lost is None]
