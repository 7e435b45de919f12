"""The driver's passages, with actors that the test plays: everything in its order, the end last, memory bounded. Ray
is not needed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from supervisor.nodes.ray.agent_launch import _connect
from supervisor.nodes.ray.direct_wires import DirectWires
from supervisor.nodes.ray.driver_protocol import (
    AgentArrived,
    AgentEnded,
    Bring,
    EndAgent,
    Leave,
    NotConnected,
    Notice,
    Reserve,
    channel,
    receive_report,
    send,
)
from supervisor.nodes.ray.ray_cluster import CannotConnect, RayCluster, Share, _left_out, _why_not
from supervisor.nodes.ray.ray_driver import HEARS, MOST_UNSENT, TELLS, RayDriver

BRING = Bring("x:1", "token", 0, None, 1.0, None, False, "lib", "bootstrap.py", [], None)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "http://127.0.0.1:8265",
            "expected auto, local or HOST:PORT, such as 10.0.0.1:6379 (that of `ray start`",
        ),
        ("head", "expected auto, local or HOST:PORT, such as 10.0.0.1:6379, or --address"),
        ("127.0.0.1:1", "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1 (Connection refused)"),
    ],
)
def test_an_address_of_the_environment_is_named(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be there for `ray job submit`, which wants that of the dashboard."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(CannotConnect) as found:
        RayCluster.connect(None, "auto")
    assert said in str(found.value.text) and f"RAY_ADDRESS={address}" in found.value.text


@pytest.mark.parametrize(
    ("outputs", "left_out"),
    [
        ("/code/data/outputs/sweep", ["/data/outputs"]),
        ("/code/results", ["/results"]),
        ("/code/my [old] runs*", [r"/my\ \[old\]\ runs\*"]),
        ("/code", []),
        ("/elsewhere", []),
        ("/code..", []),
        ("/data/outputs/sweep", []),
        ("", []),
    ],
)
def test_experiments_are_not_shipped(outputs: str, left_out: list[str]) -> None:
    assert _left_out("/code", outputs) == left_out


class TooMuchToShip:
    """In place of the module."""

    def init(self, **_: Any) -> None:
        raise Exception(
            "Failed to upload working_dir /big to the Ray cluster: Package size (572.21MiB) exceeds the maximum "
            "size of 512.00MiB. To exclude large files, use the 'excludes' option in the runtime_env."
        )


def test_a_directory_that_is_too_large_to_ship_is_the_users_mistake() -> None:
    with pytest.raises(CannotConnect) as found:
        RayCluster.connect(TooMuchToShip(), "local", "/big")
    assert found.value.wrong and "--ship /big" in found.value.text
    assert (
        "(572.21MiB) exceeds the maximum size of 512.00MiB. Name large files in its .git" in found.value.text
    )
    assert "runtime_env" not in found.value.text


class Method:
    """Of the actor: the calls that are under way, with what they were given."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], Future[Any]]] = []

    def options(self, **_: object) -> Method:
        return self

    def remote(self, *arguments: Any) -> Any:
        future: Future[Any] = Future()
        self.calls.append((arguments, future))
        return type("Reference", (), {"future": lambda _: future})()

    def answer(self, value: Any, number: int = 0) -> None:
        _, future = self.calls.pop(number)
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)


class Actor:
    def __init__(self) -> None:
        self.begin, self.tell, self.hear, self.leave = Method(), Method(), Method(), Method()


class Cluster:
    """What `RayCluster` is asked to do."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []
        self.replaced: list[Share] = []
        self.wanted: list[Reserve | Bring] = []

    def want(self, wanted: Reserve | Bring, listener: object, *, direct: bool) -> bool:
        self.wanted.append(wanted)
        return len(self.wanted) > 1

    def watch(self, every: float) -> None: ...

    def began(self, share: Share) -> None: ...

    def through_calls(self, share: Share, actor: Any) -> None:
        self.replaced.append(share)

    def ended(self, share: Share, actor: Any, why: str, how: str, *, greeted: bool) -> None:
        self.ends.append((why, how))


class Stage:
    def __init__(self, wires: DirectWires | None = None) -> None:
        self.control, theirs = channel()
        self.driver = RayDriver(theirs)
        self.cluster = self.driver._cluster = Cluster()  # type: ignore[assignment]
        self.driver._bring = BRING
        self.driver._wires = wires
        self.actor = Actor()
        self.share = Share("id", "node", 1, 1, 0, 0.0, direct=wires is not None)
        self.driver.start(self.share, self.actor)
        self.turn()
        ((launch,), _) = self.actor.begin.calls[0]
        self.direct = None if wires is None else _connect(*launch["direct"])
        self.actor.begin.answer({"error": "", "notices": [], "direct": self.direct is not None})
        self.turn()
        report, descriptor = self.told()
        assert isinstance(report, AgentArrived) and descriptor is not None
        self.end = socket.socket(fileno=descriptor)  # the supervisor's
        self.end.setblocking(False)

    def turn(self) -> None:
        for key, events in self.driver._selector.select(0):
            if key.data is not None:
                self.driver._on_socket(key.data, events)
        self.driver._do_calls()

    def told(self) -> Any:
        return receive_report(self.control)

    def heard(self) -> bytes:
        """All that the supervisor gets; b"" at the end as well."""
        data = b""
        while True:
            self.turn()
            try:
                piece = self.end.recv(1 << 20)
            except BlockingIOError:
                return data
            if not piece:
                return data
            data += piece

    def is_over(self) -> bool:
        try:
            return self.end.recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def stage() -> Iterator[Stage]:
    yield from _set(None)


@pytest.fixture
def direct_stage() -> Iterator[Stage]:
    """With a connection past the calls."""
    wires = DirectWires("127.0.0.1")
    yield from _set(wires)
    wires.close()


def _set(wires: DirectWires | None) -> Iterator[Stage]:
    made = Stage(wires)
    yield made
    if made.direct is not None:
        made.direct.close()
    made.end.close()
    made.control.close()
    for passage in list(made.driver._passages.values()):
        if passage.end is not None:
            passage.end.close()
    made.driver._control.close()
    made.driver._selector.close()
    os.close(made.driver._woken)
    os.close(made.driver._waker)


def test_actors_that_were_made_ahead_start_no_agent_before_they_are_meant_to() -> None:
    control, theirs = channel()
    driver, actor = RayDriver(theirs), Actor()
    cluster = driver._cluster = Cluster()  # type: ignore[assignment]
    for order, begun in ((Reserve(None, 1.0, None), 0), (BRING, 1)):
        send(control, order)
        driver._on_order()
        if not begun:
            driver.start(Share("id", "node", 1, 1, 0, 0.0), actor)
        driver._do_calls()
        assert cluster.wanted[-1] == order and len(actor.begin.calls) == begun
    for end in (control, theirs):
        end.close()
    driver._selector.close()
    os.close(driver._woken)
    os.close(driver._waker)


def test_answers_are_put_in_order_and_the_end_comes_last(stage: Stage) -> None:
    hear = stage.actor.hear
    assert len(hear.calls) == HEARS
    hear.answer((1, b"second ", "", ""), 1)
    assert stage.heard() == b""
    hear.answer((3, b"", "it ended", "in order"), 1)
    assert stage.heard() == b"" and not stage.is_over()
    hear.answer((0, b"first ", "", ""))
    assert stage.heard() == b"first second "
    hear.answer((2, b"last words", "", ""))
    assert stage.heard() == b"last words"
    while hear.calls:
        hear.answer((4, b"", "it ended", "in order"))
        stage.turn()
    assert stage.is_over() and stage.cluster.ends == [("it ended", "in order")]
    assert stage.told()[0] == AgentEnded(0, "it ended")


def test_what_was_said_before_an_actor_died_is_heard_whatever_comes_first(stage: Stage) -> None:
    hear = stage.actor.hear
    hear.answer(OSError("the actor died"), 1)
    stage.turn()
    assert not stage.is_over()
    hear.answer((0, b"the last words", "", ""))
    assert stage.heard() == b"the last words"
    assert stage.is_over() and [how for _, how in stage.cluster.ends] == ["failed"]


def test_no_more_is_asked_for_than_the_supervisor_reads(stage: Stage) -> None:
    number = 0
    while stage.actor.hear.calls and number < 1000:
        stage.actor.hear.answer((number, b"x" * 80_000, "", ""))
        stage.turn()
        number += 1
    (passage,) = stage.driver._passages.values()
    assert MOST_UNSENT <= passage.size < MOST_UNSENT + HEARS * 80_000
    assert len(stage.heard()) == number * 80_000
    assert len(stage.actor.hear.calls) == HEARS


def test_bytes_go_down_numbered_and_few_calls_at_a_time(stage: Stage) -> None:
    sent = os.urandom(2_000_000)
    left, calls, most = sent, list[tuple[int, bytes]](), 0
    while left or stage.actor.tell.calls:
        if left:
            try:
                left = left[stage.end.send(left[:300_000]) :]
            except BlockingIOError:
                stage.turn()
        stage.turn()
        most = max(most, len(stage.actor.tell.calls))
        if len(stage.actor.tell.calls) == TELLS or not left:
            for arguments, _ in stage.actor.tell.calls[:1]:
                calls.append(arguments)
                stage.actor.tell.answer(None)
        stage.turn()
    assert most == TELLS
    assert [number for number, _ in calls] == list(range(len(calls)))
    assert b"".join(data for _, data in calls) == sent


def test_an_actor_that_cannot_start_its_agent_ends_and_says_why(stage: Stage) -> None:
    actor = Actor()
    stage.driver.start(Share("other", "node2", 1, 1, 0, 0.0), actor)
    stage.turn()
    actor.begin.answer({"error": "longhaul is not installed there", "notices": []})
    stage.turn()
    assert stage.told()[0] == AgentEnded(1, "longhaul is not installed there")
    assert stage.cluster.ends == [("longhaul is not installed there", "failed")]


@pytest.mark.parametrize("gone", ["link", "word"])
def test_an_agent_that_is_given_up_ends_with_its_actor(stage: Stage, gone: str) -> None:
    give_up: Callable[[], None] = {
        "link": stage.end.close,
        "word": lambda: stage.driver._finish(next(iter(stage.driver._passages.values())), "it was given up"),
    }[gone]
    give_up()
    stage.turn()
    assert len(stage.cluster.ends) == 1 and not stage.driver._passages


def test_an_agent_with_a_connection_of_its_own_needs_no_calls_until_its_end(direct_stage: Stage) -> None:
    stage = direct_stage
    assert stage.direct is not None
    stage.direct.sendall(b"hello")
    stage.end.setblocking(True)
    assert stage.end.recv(5) == b"hello"
    stage.end.sendall(b"orders")
    assert stage.direct.recv(6) == b"orders"
    stage.driver.overdue(stage.share)  # it has begun
    stage.turn()
    assert not stage.actor.tell.calls and len(stage.actor.hear.calls) == 1 and not stage.cluster.ends
    stage.actor.hear.answer((0, b"", "it ended", "in order"))
    stage.turn()
    assert stage.told()[0] == AgentEnded(0, "it ended")
    assert stage.cluster.ends == [("it ended", "in order")]
    stage.direct.close()
    assert stage.end.recv(1) == b""  # nothing in this process keeps it open


def test_an_agent_with_a_connection_of_its_own_is_told_by_it_to_leave(direct_stage: Stage) -> None:
    """Its actor waits for its end, and would not run a call."""
    stage = direct_stage
    stage.driver.leave(stage.share)
    stage.turn()
    assert stage.told()[0] == Leave(0) and not stage.actor.leave.calls
    coming = stage.share._replace(node="id2", name="node2")
    stage.driver.start(coming, Actor())
    stage.driver.leave(coming)
    stage.turn()
    assert stage.told()[0] == AgentEnded(1, "Ray takes its node away")


def test_an_agent_without_a_connection_of_its_own_is_told_by_its_actor_to_leave(stage: Stage) -> None:
    stage.driver.leave(stage.share)
    stage.turn()
    assert len(stage.actor.leave.calls) == 1


@pytest.mark.parametrize("arrived", [False, True])
def test_an_actor_that_cannot_connect_is_replaced_by_one_that_is_called(
    direct_stage: Stage, arrived: bool
) -> None:
    stage, actor = direct_stage, Actor()
    share = stage.share._replace(node="id2", name="node2")
    stage.driver.start(share, actor)
    stage.turn()
    ((launch,), _) = actor.begin.calls[0]
    there = _connect(*launch["direct"]) if arrived else None  # it does not hear the answer
    actor.begin.answer({"error": "", "notices": ["no connection"], "direct": False})
    stage.turn()
    assert stage.told()[0] == Notice("info", "no connection", "node2")
    assert stage.cluster.replaced == [share] and not stage.cluster.ends and not actor.hear.calls
    if there is not None:
        assert there.recv(1) == b""
        there.close()
    called = Actor()
    stage.driver.start(share._replace(direct=False), called)
    stage.turn()
    ((launch,), _) = called.begin.calls[0]
    assert launch["direct"] is None
    called.begin.answer({"error": "", "notices": [], "direct": False})
    stage.turn()
    report, descriptor = stage.told()
    assert isinstance(report, AgentArrived) and report.name == "node2" and len(called.hear.calls) == HEARS
    os.close(descriptor)


def test_what_a_driver_has_said_is_read_though_it_has_left_an_order_unread() -> None:
    """Else a run whose cluster is gone would say that the driver ended, and not why."""
    ours, theirs = channel()
    with ours:
        send(ours, EndAgent(1))
        for why in ("first", "second"):
            send(theirs, NotConnected(why, True))
        theirs.close()
        assert receive_report(ours) == (NotConnected("first", True), None)
        assert receive_report(ours) == (NotConnected("second", True), None)
        assert receive_report(ours) is None


class OutOfMemoryError(Exception):
    """Named as Ray's."""


@pytest.mark.parametrize("given_up", [False, True])
def test_what_the_memory_monitor_has_killed_is_told_also_after_the_agent_has_ended(
    stage: Stage, given_up: bool
) -> None:
    (passage,) = stage.driver._passages.values()
    if given_up:  # the agent has said its end, and the supervisor has let it go
        stage.driver._finish(passage, "it was given up")
        assert stage.told()[0] == AgentEnded(0, "it was given up")
    else:  # it has a connection of its own
        stage.driver._selector.unregister(passage.end)
        passage.end.close()  # type: ignore[union-attr]
        passage.end = None
    stage.actor.hear.answer(OutOfMemoryError("the node ran low on memory"))
    stage.turn()
    report, _ = stage.told()
    assert isinstance(report, Notice) and report.node == "node" and report.level == "warning"
    assert "Ray's memory monitor killed its agent" in report.text and "--memory-limit" in report.text


@pytest.mark.parametrize(("mode", "named"), [("", True), ("disabled", True), ("token", False)])
def test_a_cluster_that_cannot_be_joined_may_ask_for_a_token(
    monkeypatch: pytest.MonkeyPatch, mode: str, named: bool
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    why = _why_not(ConnectionError("Failed to connect to Ray cluster"), "10.0.0.1:6379")
    assert why.startswith("cannot join the Ray cluster at 10.0.0.1:6379: Failed to connect to Ray cluster")
    assert ("set RAY_AUTH_MODE=token" in why) is named
