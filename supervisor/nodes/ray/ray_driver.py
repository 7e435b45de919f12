"""The process that is Ray's client: the only one of ours that imports Ray, and one that may be lost.

Ray ends its clients when the cluster's head is gone for a minute; so this is not the process that writes the
journal. It ends with the supervisor, and everything on the cluster with it: Ray sees to that.

One thread passes bytes. Another one speaks to the head (`ray_cluster`), and may have to wait for it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from supervisor.nodes.moved_program import SHIPPED
from supervisor.nodes.ray import agent_launch
from supervisor.nodes.ray.direct_wires import DirectWires, WireOffer, direct_wires
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
    Quit,
    Report,
    Reserve,
    receive_order,
    send,
    tag_of_agent,
)
from supervisor.nodes.ray.ray_cluster import (
    CannotConnect,
    RayCluster,
    Share,
    imported_ray,
    is_memory_monitor,
    words_of,
)
from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION, NOBODY

TELLS = 4  # calls under way to an actor; more bytes wait in their socket
HEARS = 2
MOST_UNSENT = 1 << 20  # bytes for the supervisor, before no more are asked for
LOOK_EVERY = 3.0  # seconds between looks at the cluster
QUIT_WITHIN = 3.0


def run(control: int) -> None:
    """The driver's process. `control`: the descriptor of its end of a `channel`."""
    os.set_inheritable(control, False)
    RayDriver(socket.socket(fileno=control)).run()


class _Passage:
    """What goes between the supervisor and one actor."""

    def __init__(self, key: int, share: Share, actor: Any) -> None:
        self.key, self.share, self.actor = key, share, actor
        self.end: socket.socket | None = None  # None: the agent is not ready, or over, or has a direct wire
        self.begun = False
        self.tell, self.hear = actor.tell.remote, actor.hear.remote
        if not share.direct:
            self.tell = actor.tell.options(concurrency_group="down").remote
            self.hear = actor.hear.options(concurrency_group="up").remote
        self.told = 0  # numbers of calls
        self.telling = 0  # calls under way
        self.hearing = 0
        self.next = 0  # the number of the next answer
        self.early: dict[int, tuple[bytes, str, str]] = {}
        self.unsent: deque[memoryview] = deque()
        self.size = 0  # of `unsent`
        self.why = ""  # it is over
        self.how = "failed"
        self.over = False
        self.greeted = False


class RayDriver:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._passages: dict[int, _Passage] = {}
        self._calls: deque[Callable[[], None]] = deque()  # for the thread of `run`
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)
        self._environment = dict(os.environb)  # before Ray adds to it
        self._bring: Bring | None = None
        self._next_key = 0
        self._wires: DirectWires | None = None

    def run(self) -> None:
        try:
            ray = imported_ray()  # before it is known where to connect
            connect = receive_order(self._control)
            if not isinstance(connect, Connect):
                return
            self._cluster = RayCluster.connect(ray, connect.address, connect.ship, connect.outputs)
        except CannotConnect as problem:
            send(self._control, NotConnected(problem.text, problem.wrong))
            return
        send(self._control, Connected(self._cluster.address, self._cluster.nodes()))
        self._wires = direct_wires(self._cluster.here)
        self._control.setblocking(False)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._control:
                    self._on_order()
                elif key.fd == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                else:
                    self._on_socket(key.data, events)
            self._do_calls()

    def _do_calls(self) -> None:
        while self._calls and self._bring is not None:
            self._calls.popleft()()

    def _call(self, function: Callable[[], None]) -> None:
        """Let the thread of `run` call this. From any thread."""
        self._calls.append(function)
        with contextlib.suppress(BlockingIOError):
            os.write(self._waker, b"!")

    def _say(self, report: Report, descriptor: int | None = None) -> None:
        try:
            self._control.setblocking(True)
            send(self._control, report, descriptor)
            self._control.setblocking(False)
        except OSError:
            os._exit(1)  # the supervisor is gone: Ray ends our actors, and these their agents

    def _on_order(self) -> None:
        try:
            order = receive_order(self._control)
        except BlockingIOError:
            return
        except OSError:
            order = None
        match order:
            case None:
                os._exit(1)
            case Quit():
                threading.Timer(QUIT_WITHIN, os._exit, (1,)).start()
                self._cluster.leave()
                os._exit(0)
            case EndAgent(key):
                if passage := self._passages.get(key):
                    self._finish(passage, "it was given up")
            case Greeted(key):
                if passage := self._passages.get(key):
                    passage.greeted = True
                    self._cluster.greeted(passage.share)
            case Reserve():
                self._look_for(order)
            case Bring():
                self._bring, self._next_key = order, order.first_key
                self._look_for(order)

    def _look_for(self, wanted: Reserve | Bring) -> None:
        """Let the cluster's thread look for what is wanted now. What it tells waits for `Bring`."""
        began = self._cluster.want(wanted, self, direct=self._wires is not None)
        if not began:
            threading.Thread(target=self._cluster.watch, args=(LOOK_EVERY,), daemon=True).start()

    # --------------------------------------------------- what the cluster's thread tells

    def notice(self, level: str, text: str) -> None:
        self._call(lambda: self._say(Notice(level, text)))

    def none_left(self, why: str) -> None:
        self._call(lambda: self._say(NoneLeft(why)))

    def expected(self, nodes: list[ClusterNode]) -> None:
        self._call(lambda: self._say(Expected(nodes)))

    def start(self, share: Share, actor: Any) -> None:
        """An actor was made for this share."""
        self._call(lambda: self._start(share, actor))

    def leave(self, share: Share) -> None:
        """Its node is about to be taken away."""
        self._call(lambda: self._leave(share))

    def overdue(self, share: Share) -> None:
        """Its actor should have been there by now."""
        self._call(lambda: self._give_up(share))

    # ---------------------------------------------------------------------- agents

    def _leave(self, share: Share) -> None:
        for passage in list(self._passages.values()):
            if passage.share != share:
                continue
            if not share.direct:
                passage.actor.leave.remote()
            elif passage.begun:
                self._say(Leave(passage.key))  # its actor runs no other call before its end
            else:
                self._finish(passage, "Ray takes its node away")

    def _give_up(self, share: Share) -> None:
        for passage in list(self._passages.values()):
            if passage.share == share and not passage.begun:
                self._finish(passage, "its CPUs were not free, or its actor did not start")

    def _start(self, share: Share, actor: Any) -> None:
        """Let the actor start the agent."""
        assert self._bring is not None
        passage = _Passage(self._next_key, share, actor)
        self._next_key += 1
        self._passages[passage.key] = passage
        offer = self._wires.offer(passage.key) if self._wires is not None and share.direct else None
        launch = launch_of(self._bring, self._environment, passage.key, offer)
        _when_done(actor.begin.remote(launch), lambda got: self._call(lambda: self._on_begun(passage, got)))

    def _on_begun(self, passage: _Passage, got: dict[str, Any] | Exception) -> None:
        direct = None if self._wires is None else self._wires.take(passage.key)
        if passage.over:
            if direct is not None:
                direct.close()
            return
        if isinstance(got, Exception) or got["error"]:
            self._finish(passage, words_of(got) if isinstance(got, Exception) else got["error"])
            return
        for text in got["notices"]:
            self._say(Notice("info", text, passage.share.name))
        share = passage.share
        if share.direct and (direct is None or not got["direct"]):
            if direct is not None:
                direct.close()
            del self._passages[passage.key]
            self._cluster.through_calls(share, passage.actor)
            return
        passage.begun = True
        arrived = AgentArrived(passage.key, share.name, share.cpus, share.slots)
        self._cluster.began(share)
        if direct is not None:
            with direct:
                self._say(arrived, direct.fileno())
            self._hear(passage)  # nothing but its end
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._say(arrived, theirs.fileno())
        ours.setblocking(False)
        passage.end = ours
        for _ in range(HEARS):
            self._hear(passage)
        self._watch(passage)

    def _on_socket(self, passage: _Passage, events: int) -> None:
        if passage.end is not None and events & selectors.EVENT_READ and passage.telling < TELLS:
            self._tell(passage)
        if passage.end is not None and events & selectors.EVENT_WRITE:
            self._flush(passage)
        self._watch(passage)

    def _tell(self, passage: _Passage) -> None:
        assert passage.end is not None
        try:
            data = passage.end.recv(agent_launch.MOST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._finish(passage, "the supervisor has closed the connection")
            return
        passage.telling += 1
        call = passage.tell(passage.told, data)
        passage.told += 1
        _when_done(call, lambda got: self._call(lambda: self._on_told(passage, got)))

    def _on_told(self, passage: _Passage, got: Exception | None) -> None:
        passage.telling -= 1
        if isinstance(got, Exception):
            passage.why = passage.why or words_of(got)
        self._watch(passage)

    def _hear(self, passage: _Passage) -> None:
        passage.hearing += 1
        _when_done(passage.hear(), lambda got: self._call(lambda: self._on_heard(passage, got)))

    def _on_heard(self, passage: _Passage, got: tuple[int, bytes, str, str] | Exception) -> None:
        """What was said before the end is heard before it, whatever comes first here."""
        passage.hearing -= 1
        if isinstance(got, Exception) and passage.end is None and is_memory_monitor(got):
            # An agent with a connection of its own has told its end before, and does not know why.
            self._say(Notice("warning", words_of(got), passage.share.name))
        if passage.over:
            return
        if isinstance(got, Exception):
            passage.why = passage.why or words_of(got)
        else:
            passage.early[got[0]] = got[1:]
            while (ready := passage.early.pop(passage.next, None)) is not None:
                passage.next += 1
                if ready[0]:
                    passage.unsent.append(memoryview(ready[0]))
                    passage.size += len(ready[0])
                elif not passage.why:
                    _, passage.why, passage.how = ready
            self._flush(passage)
        if passage.why and not passage.hearing:
            self._finish(passage, passage.why)
        elif not passage.why:
            self._hear_on(passage)
        self._watch(passage)

    def _hear_on(self, passage: _Passage) -> None:
        while not passage.why and passage.hearing < HEARS and passage.size < MOST_UNSENT:
            self._hear(passage)

    def _flush(self, passage: _Passage) -> None:
        while passage.unsent and passage.end is not None:
            try:
                sent = passage.end.send(passage.unsent[0])
            except BlockingIOError:
                return
            except OSError:
                self._finish(passage, "the supervisor has closed the connection")
                return
            passage.size -= sent
            if sent == len(passage.unsent[0]):
                passage.unsent.popleft()
            else:
                passage.unsent[0] = passage.unsent[0][sent:]
        if passage.end is not None:
            self._hear_on(passage)

    def _watch(self, passage: _Passage) -> None:
        """Let the selector wait for what can be done for it."""
        end = passage.end
        if end is None:
            return
        wanted = selectors.EVENT_READ if passage.telling < TELLS else 0
        wanted |= selectors.EVENT_WRITE if passage.unsent else 0
        known = self._selector.get_map().get(end)
        if known is None and wanted:
            self._selector.register(end, wanted, passage)
        elif known is not None and not wanted:
            self._selector.unregister(end)
        elif known is not None and known.events != wanted:
            self._selector.modify(end, wanted, passage)

    def _finish(self, passage: _Passage, why: str) -> None:
        """This agent is over, or given up: its actor ends, and with it what is left of the agent."""
        if passage.over:
            return
        passage.over = True
        del self._passages[passage.key]
        self._say(AgentEnded(passage.key, why))  # the reason comes before the end
        end, passage.end = passage.end, None
        if end is not None:
            if end in self._selector.get_map():
                self._selector.unregister(end)
            end.setblocking(True)
            end.settimeout(1.0)
            with contextlib.suppress(OSError):
                for data in passage.unsent:
                    end.sendall(data)
            end.close()
        self._cluster.ended(passage.share, passage.actor, why, passage.how, greeted=passage.greeted)


def launch_of(
    bring: Bring, environment: dict[bytes, bytes], key: int, direct: WireOffer | None = None
) -> dict[str, Any]:
    """What `AgentActor.begin` needs. The agent has the environment of the supervisor, as its workers do."""
    tag = tag_of_agent(bring.tag, key, bring.token)
    own = {EXPERIMENT_TAG.encode(): os.fsencode(tag), INCARNATION.encode(): NOBODY.encode()}
    return {
        "bootstrap": bring.bootstrap,
        "library": bring.library,
        "options": bring.options,
        "entry": "supervisor.nodes.ray.ray_node_agent:run",
        "directory": bring.directory,
        "environment": {**environment, **own},
        "gpus": bring.gpus,
        "shipped": SHIPPED.encode(),
        "direct": None if direct is None else tuple(direct),
    }


def _when_done(call: Any, then: Callable[[Any], None]) -> None:
    """Call `then`, in a thread of Ray's, with the answer of a call or the exception."""

    def done(future: Any) -> None:
        error = future.exception()
        then(future.result() if error is None else error)

    call.future().add_done_callback(done)
