"""Connections of agents past Ray: who gets one, and what a stranger gets. Ray is not needed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from supervisor.nodes.ray import direct_wires as module
from supervisor.nodes.ray.agent_launch import _connect
from supervisor.nodes.ray.direct_wires import CALLS_ONLY, WORD, DirectWires, WireOffer, direct_wires
from tests.experiment_fixture import wait_for


@pytest.fixture
def wires() -> Iterator[DirectWires]:
    made = DirectWires("127.0.0.1")
    yield made
    made.close()


def said_to(offer: WireOffer, word: bytes) -> bytes:
    """The answer to whoever says this."""
    with socket.create_connection((offer.host, offer.port), timeout=10) as end:
        end.sendall(word)
        end.shutdown(socket.SHUT_WR)
        try:
            return end.recv(WORD)
        except ConnectionResetError:
            return b""


def test_an_actor_and_the_driver_find_each_other(wires: DirectWires) -> None:
    first, second = wires.offer(1), wires.offer(2)
    there = _connect(*second)
    assert there is not None
    here = wires.take(2)
    assert here is not None and wires.take(1) is None
    there.sendall(b"hello")
    assert here.recv(5) == b"hello"
    for end in (here, there):
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        end.close()
    assert said_to(first, first.word) == b""  # it was taken: the offer is over


@pytest.mark.parametrize("word", ["", "nothing of it", "its beginning", "all but the last byte"])
def test_a_stranger_gets_nothing_and_the_actor_still_comes(wires: DirectWires, word: str) -> None:
    offer = wires.offer(1)
    wrong = {
        "": b"",
        "nothing of it": bytes(WORD),
        "its beginning": offer.word[: WORD - 1],
        "all but the last byte": offer.word[:-1] + bytes([offer.word[-1] ^ 1]),
    }[word]
    assert said_to(offer, wrong) == b""
    assert wires.take(1) is None
    known = wires.offer(1)
    there = _connect(*known)
    here = wires.take(1)
    assert there is not None and here is not None
    there.close()
    here.close()


def test_one_that_says_nothing_holds_up_the_others_for_a_moment_only(
    wires: DirectWires, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAY_WITHIN", 0.05)
    offer = wires.offer(1)
    with socket.create_connection((offer.host, offer.port)):
        there = wait_for(lambda: _connect(*offer), "a connection")
    here = wires.take(1)
    assert here is not None
    there.close()
    here.close()


def test_an_actor_does_not_take_another_program_for_the_driver() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        offer = WireOffer(*other.getsockname(), b"w" * WORD, b"a" * WORD)
        other.settimeout(10)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            assert _connect(*closed.getsockname(), offer.word, offer.answer) is None
        assert _connect(*offer) is None  # it accepts, and says nothing
        end, _ = other.accept()
        end.close()


@pytest.mark.parametrize(("name", "value"), [(CALLS_ONLY, "1"), ("RAY_USE_TLS", "1")])
def test_there_are_none_where_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert direct_wires("127.0.0.1") is None
    monkeypatch.delenv(name)
    wires = direct_wires("127.0.0.1")
    assert wires is not None
    wires.close()
    assert direct_wires("192.0.2.1") is None  # no address of this machine
