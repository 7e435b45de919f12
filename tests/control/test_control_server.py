"""The supervisor's end of the socket: what it takes, what it drops, and that it never waits."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.control import control_server as module
from supervisor.control.control_protocol import MAX_REQUEST, ControlAnswer, encode_answer
from supervisor.control.control_server import CLIENT_TIMEOUT, MAX_CLIENTS, MAX_PER_SECOND, ControlServer
from supervisor.core.terms.events import ControlAsked


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlServer]:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    opened = ControlServer.open(tmp_path / "lock")
    yield opened
    opened.close()


def client(server: ControlServer) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(server.path)
    return connection


def asked(server: ControlServer, line: bytes, *, now: float = 0.0) -> tuple[socket.socket, list[object]]:
    connection = client(server)
    connection.sendall(line)
    return connection, [*server.poll(now), *server.poll(now)]


def test_a_request_is_an_event_with_the_uid_that_the_kernel_tells(server: ControlServer) -> None:
    connection, events = asked(server, b'{"order":"cancel","jobs":["a","b*"],"uid":12345}\n')
    assert events == [ControlAsked(1, os.geteuid(), "cancel", 0, ["a", "b*"])]
    server.answer(1, True, "done", ["stack"])
    assert connection.recv(999) == b'{"done":true,"text":"done","stacks":["stack"]}\n'
    assert connection.recv(999) == b""
    server.answer(1, True, "a second time nobody is there")
    connection.close()


def test_who_has_gone_before_he_was_heard_is_not_obeyed(server: ControlServer) -> None:
    """The run stood still (Ctrl+Z), the client was told so and went: it must not be done later."""
    connection = client(server)
    connection.sendall(b'{"order":"stop"}\n')
    connection.close()
    assert [*server.poll(0.0), *server.poll(0.0), *server.poll(0.0)] == []
    assert server.next_deadline() is None  # and he is forgotten


def test_a_request_may_come_in_pieces(server: ControlServer) -> None:
    connection, events = asked(server, b'{"order":')
    assert events == []
    connection.sendall(b'"pause"}\n')
    assert [event.order for event in server.poll(1.0) if isinstance(event, ControlAsked)] == ["pause"]
    connection.close()


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"[]\n", b'{"order":"explode"}\n', b'{"order":"workers","number":"x"}\n', b"\xff\n"],
)
def test_nonsense_is_answered_and_is_no_event(server: ControlServer, line: bytes) -> None:
    connection, events = asked(server, line)
    assert events == []
    assert connection.recv(9999).startswith(b'{"done":false')
    connection.close()


def test_who_sends_too_much_is_told_and_dropped(server: ControlServer) -> None:
    connection = client(server)
    connection.setblocking(False)
    sent = 0
    for _ in range(100):
        try:
            sent += connection.send(b"x" * 8192)
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            break
        assert server.poll(0.0) == []
    assert sent > MAX_REQUEST
    assert not server._clients
    connection.close()


def test_silent_ones_are_dropped_after_a_while(server: ControlServer) -> None:
    connection, _ = asked(server, b"")
    assert server.next_deadline() == CLIENT_TIMEOUT
    server.poll(CLIENT_TIMEOUT)
    assert connection.recv(99) == b""
    assert server.next_deadline() is None
    connection.close()


def test_one_that_dies_before_its_answer_harms_nobody(server: ControlServer) -> None:
    connection, (event,) = asked(server, b'{"order":"stacks"}\n')
    connection.close()
    server.poll(0.0)
    server.answer(event.ticket, True, "nobody hears this")  # type: ignore[attr-defined]


def test_an_answer_that_nobody_takes_waits_without_holding_anybody_up(server: ControlServer) -> None:
    connection, (event,) = asked(server, b'{"order":"stacks"}\n')
    server.answer(event.ticket, True, "here", ["x" * 1_000_000])  # type: ignore[attr-defined]
    assert server.next_deadline() == CLIENT_TIMEOUT
    received = b""
    while not received.endswith(b"\n"):
        server.poll(1.0)
        received += connection.recv(1 << 16)
    assert len(received) > 1_000_000
    connection.close()


def test_a_few_at_a_time_and_a_few_per_second(server: ControlServer) -> None:
    connections = []
    for _ in range(MAX_CLIENTS + 1):
        connections.append(client(server))
        server.poll(0.0)
    assert b"too many clients at once" in connections[-1].recv(999)
    for connection in connections:
        connection.close()
    server.poll(0.0)
    for _ in range(MAX_PER_SECOND):
        with socket.socket(socket.AF_UNIX) as hasty:
            hasty.setblocking(False)
            hasty.connect_ex(server.path)
        server.poll(0.5)
    assert server.next_deadline() == 1.5
    assert server.poll(0.6) == []
    for _ in range(MAX_PER_SECOND):
        server.poll(1.6)
    connection, events = asked(server, b'{"order":"pause"}\n', now=3.0)
    events += [event for _ in range(MAX_PER_SECOND) for event in server.poll(3.0)]
    assert len(events) == 1
    connection.close()


def test_somebody_else_is_turned_away(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "peer_uid", lambda connection: 65534)
    connection = client(server)
    server.poll(0.0)
    assert b"belongs to uid" in connection.recv(999)
    assert not server._clients
    connection.close()


def test_stacks_beyond_all_bounds_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    line = encode_answer(ControlAnswer(True, "here", ["x" * 1_000_000] * 6))
    assert 3_000_000 < len(line) < 4_200_000
