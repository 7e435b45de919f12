"""An agent or a supervisor that says too much, half of it, or nonsense: the other side goes on with the others."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor.core.terms import events as facts
from supervisor.nodes import wire
from supervisor.nodes.link import Link
from supervisor.nodes.wire import MAX_FRAME, Done, MessageJoiner, Pong, WireError, encode, frames_of
from tests.conftest import some
from tests.experiment_fixture import PATIENCE
from tests.nodes.test_node_agent import Held, hold  # noqa: F401 (a fixture)
from tests.nodes.test_nodes_engine import HELLO, TIMEOUT, Played, Stage, died, places, stage  # noqa: F401
from workers.transport.frames import READ_SIZE
from workers.transport.messages import Completed

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def storm(agent: Played, message: bytes) -> Iterator[None]:
    """While it lasts, the agent says this again and again, as fast as it can."""
    over = threading.Event()
    frames = b"".join(frames_of(message))

    def blow() -> None:
        os.set_blocking(agent.link.writer, True)
        with contextlib.suppress(OSError):
            while not over.is_set():
                os.write(agent.link.writer, frames)

    thread = threading.Thread(target=blow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        while thread.is_alive():
            with contextlib.suppress(OSError):
                os.read(stage_end(agent), 1 << 20)
            thread.join(0.01)


_ENDS: dict[int, int] = {}


def stage_end(agent: Played) -> int:
    """The engine's end of what this agent says."""
    return _ENDS[id(agent)]


def arrived(stage: Stage, name: str) -> Played:  # noqa: F811
    agent = stage.arrive(name)
    _ENDS[id(agent)] = list(stage.engine._nodes.values())[-1].link.reader
    return agent


def test_an_agent_that_talks_without_end_does_not_drown_the_others(stage: Stage) -> None:  # noqa: F811
    loud, quiet = arrived(stage, "loud"), arrived(stage, "quiet")
    stage.turn()
    for number, agent in enumerate((loud, quiet)):
        stage.with_worker(agent, number, number)
    stage.turn()
    said = encode([Done(99, [Completed(1, 0.0, b"1" * 1000)])] * 50)  # of no worker of its
    with storm(loud, said):
        deadline = time.monotonic() + PATIENCE
        while stage.engine._nodes[0].heartbeat.heard < stage.time and time.monotonic() < deadline:
            stage.turn(0.001)
        quiet.say(Done(1, [Completed(5, 0.1, b"2")]))
        began = time.monotonic()
        events = stage.turn()
        assert time.monotonic() - began < 5.0
    assert [event.outcomes[0].lease for event in events if isinstance(event, facts.JobsFinished)] == [5]
    assert stage.ended == []


def test_many_words_that_nobody_asked_for_change_nothing(stage: Stage) -> None:  # noqa: F811
    agent = arrived(stage, "a")
    stage.turn()
    stage.with_worker(agent, 1, 0)
    stage.turn()
    known = stage.engine._nodes[0].heartbeat.known
    stage.time += 1.0
    agent.say(*[Pong(number) for number in range(1000)])
    assert died(stage.turn()) == [] and stage.ended == []
    assert stage.engine._nodes[0].heartbeat.known == known


def test_a_message_that_never_ends_is_silence(stage: Stage) -> None:  # noqa: F811
    """Bytes come all the time, and no message."""
    agent, other = arrived(stage, "a"), arrived(stage, "b")
    stage.turn()
    whole = frames_of(encode([Pong(0)] * 1000))[0]
    lost: list[list[int]] = []
    for byte in whole[:100]:
        with contextlib.suppress(BrokenPipeError):
            os.write(agent.link.writer, bytes([byte]))
        other.say(Pong(0))
        lost += places(stage.turn(1.0))
    assert lost == [[1]] and stage.ended == [0]


def test_what_came_before_nonsense_counts(stage: Stage) -> None:  # noqa: F811
    agent, _ = arrived(stage, "a"), arrived(stage, "b")
    stage.turn()
    stage.with_worker(agent, 1, 0)
    stage.turn()
    agent.say(Done(1, [Completed(5, 0.1, b"2")]))
    agent.link.send(b"\xc1")
    events = stage.turn()
    assert [event.outcomes[0].lease for event in events if isinstance(event, facts.JobsFinished)] == [5]
    assert places(events) == [[1]] and died(events) == []


@pytest.mark.parametrize("length", [0, 1, MAX_FRAME - 5, MAX_FRAME, 5 * MAX_FRAME + 1])
def test_no_frame_is_larger_than_a_carrier_likes(length: int) -> None:
    frames = frames_of(b"x" * length)
    assert max(map(len, frames)) <= MAX_FRAME
    joiner = MessageJoiner()
    assert [message for frame in frames for message in joiner.feed(frame)] == [b"x" * length]


def test_a_frame_that_claims_to_be_larger_is_not_waited_for() -> None:
    with pytest.raises(WireError, match="which none is"):
        MessageJoiner().feed(wire._HEAD.pack(wire._LAST, MAX_FRAME))


def test_a_message_is_bounded_however_many_frames_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE", 10 * MAX_FRAME)
    joiner, frame = MessageJoiner(), wire._HEAD.pack(wire._MORE, 80_000) + b"x" * 80_000
    with pytest.raises(WireError, match="a message of more than"):
        joiner.feed(frame * 20)
    assert joiner._size <= 11 * MAX_FRAME


def test_one_look_at_a_link_takes_a_bounded_time() -> None:
    """However much there is to read."""
    down = os.pipe()
    link, frame = Link(down[0], os.dup(down[0])), frames_of(b"x" * 50_000)[0]
    os.set_blocking(down[1], False)

    def fill() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(down[1], frame)

    read = os.read
    try:
        sizes: list[int] = []

        def and_fill(descriptor: int, size: int) -> bytes:
            data = read(descriptor, size)
            sizes.append(len(data))
            fill()
            return data

        fill()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "read", and_fill)
            link.receive()
        assert link.pressing and sum(sizes) <= 8 * READ_SIZE
    finally:
        link.close()
        os.close(down[1])


def half(message: bytes) -> bytes:
    return frames_of(message)[0][:-1]


@pytest.mark.parametrize(
    "words", some([b"HTTP/1.1 400 Bad Request", frames_of(encode([[99]]))[0], frames_of(b"\xc1")[0]], 2)
)
def test_an_agent_ends_its_workers_when_its_supervisor_talks_nonsense(
    hold: Callable[..., Held],  # noqa: F811
    words: bytes,
) -> None:
    node = hold()
    node.worker()
    node.lease(5, what="sleep")
    os.write(node.link.writer, words)
    node.until(node.is_over)


def test_half_an_order_is_silence_for_an_agent(hold: Callable[..., Held]) -> None:  # noqa: F811
    node = hold(silence=1.0)
    node.worker()
    node.lease(5, what="sleep")
    os.write(node.link.writer, half(encode([wire.Ping(1, 0)] * 10)))
    end: Any = node.until(node.first(wire.NodeEnds))
    assert "heard nothing" in end.why and end.how == "silence"
    node.until(node.is_over)


def test_workers_that_were_suspended_end_with_the_silence_of_their_supervisor(
    hold: Callable[..., Held],  # noqa: F811
) -> None:
    """Ctrl+Z, and nobody comes back in time."""
    node = hold(silence=1.5)
    node.worker()
    node.lease(5, what="sleep")
    node.tell(wire.Suspend(True))
    assert node.until(node.first(wire.NodeEnds)).how == "silence"
    node.until(node.is_over)


def test_workers_that_were_suspended_go_on(hold: Callable[..., Held]) -> None:  # noqa: F811
    node = hold()
    node.worker()
    node.tell(wire.Suspend(True))
    node.lease(5, what="pid")
    node.tell(wire.Ping(1, 0))
    node.until(node.first(Pong))
    assert node.first(Done)() is None
    node.tell(wire.Suspend(False))
    assert len(node.event(facts.JobsFinished).outcomes) == 1
