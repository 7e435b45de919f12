"""The supervisor's end of the control socket. Never blocks, and trusts no client.

Few connections at a time are served, each with one request of limited size and time. A client that hangs, floods,
dies or sends nonsense is disconnected. The kernel tells the client's user: only the owner of the run, and root, are
served.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Sequence

import msgspec

from supervisor.control.control_protocol import MAX_REQUEST, ControlAnswer, ControlRequest, encode_answer
from supervisor.control.control_socket import (
    NoControlSocket,
    find_directory,
    peer_uid,
    remove_stale_sockets,
    socket_name,
)
from supervisor.core.terms.events import ControlAsked, Event

MAX_CLIENTS = 4
MAX_PER_SECOND = 20  # connections; further ones have to wait
CLIENT_TIMEOUT = 10.0  # seconds for a client to send its request, and to read the answer
_PIECE = 16 << 10
_decode = msgspec.json.Decoder(ControlRequest).decode


class _Client:
    __slots__ = ("connection", "uid", "received", "unsent", "deadline", "ticket")

    def __init__(self, connection: socket.socket, uid: int, deadline: float) -> None:
        self.connection = connection
        self.uid = uid
        self.received = b""
        self.unsent = b""
        self.deadline: float | None = deadline  # None while the core decides
        self.ticket = 0  # 0 until its request is complete


class ControlServer:
    """Listens at `path`; `poll` turns requests into events, `answer` answers them."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self.path = path
        self._listener = listener
        self._clients: dict[int, _Client] = {}  # by descriptor
        self._next_ticket = 1
        self._now = 0.0
        self._accepted: list[float] = []  # times within the last second
        self._paused_until: float | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    @classmethod
    def open(cls, lock: str | os.PathLike[str]) -> ControlServer:
        """Listen for orders to the holder of this lock file. Raises NoControlSocket."""
        directory = find_directory()
        remove_stale_sockets(directory)
        path = os.path.join(directory, socket_name(lock))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            # Renamed once it listens: `remove_stale_sockets` would take it for stale before.
            first = f"{path}.{os.getpid()}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(first)
            listener.bind(first)
            os.chmod(first, 0o600)
            listener.listen(MAX_CLIENTS)
            os.rename(first, path)
        except OSError as error:
            listener.close()
            raise NoControlSocket(f"{path}: {error.strerror or error}") from None
        return cls(listener, path)

    def fileno(self) -> int:
        """Readable when `poll` has something to do."""
        return self._selector.fileno()

    def next_deadline(self) -> float | None:
        """When `poll` has to be called even if nothing happens (the loop's clock)."""
        if not self._clients and self._paused_until is None:
            return None
        times = [client.deadline for client in self._clients.values()] + [self._paused_until]
        return min((time for time in times if time is not None), default=None)

    def poll(self, now: float) -> list[Event]:
        """The requests since the last call, as events."""
        self._now = now
        events: list[Event] = []
        if self._paused_until is not None and now >= self._paused_until:
            self._paused_until = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        for key, mask in self._selector.select(0):
            if key.fileobj is self._listener:
                self._accept()
                continue
            client = self._clients.get(key.fd)
            if client is None:
                continue
            if mask & selectors.EVENT_WRITE:
                self._send(client)
            elif (event := self._receive(client)) is not None:
                events.append(event)
        for client in [c for c in self._clients.values() if c.deadline is not None and now >= c.deadline]:
            self._disconnect(client)
        return events

    def answer(self, ticket: int, done: bool, text: str, stacks: Sequence[str] = ()) -> None:
        """Answer one request; does nothing if its client has disconnected."""
        for client in self._clients.values():
            if client.ticket == ticket:
                self._reply(client, ControlAnswer(done, text, list(stacks)))
                return

    def close(self) -> None:
        """At the end of the run: disconnect all clients and remove the socket."""
        for client in list(self._clients.values()):
            self._disconnect(client)
        self._selector.close()
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    # ---------------------------------------------------------------------- clients

    def _accept(self) -> None:
        self._accepted = [at for at in self._accepted if self._now - at < 1.0]
        if len(self._accepted) >= MAX_PER_SECOND:
            self._selector.unregister(self._listener)
            self._paused_until = self._now + 1.0
            return
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has disconnected, or no descriptor is left
            self._accepted.append(self._now)
            return
        self._accepted.append(self._now)
        try:
            connection.setblocking(False)
            uid = peer_uid(connection)
        except OSError:
            connection.close()
            return
        client = _Client(connection, uid, self._now + CLIENT_TIMEOUT)
        if uid not in (os.geteuid(), 0):
            self._reject(client, f"this run belongs to uid {os.geteuid()}")
        elif len(self._clients) >= MAX_CLIENTS:
            self._reject(client, "too many clients at once; try again")
        else:
            self._clients[connection.fileno()] = client
            self._selector.register(connection, selectors.EVENT_READ)

    def _reject(self, client: _Client, text: str) -> None:
        with contextlib.suppress(OSError):
            client.connection.send(encode_answer(ControlAnswer(False, text)))
        client.connection.close()

    def _receive(self, client: _Client) -> Event | None:
        try:
            data = client.connection.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data or client.ticket:  # disconnected, or more than one request
            self._disconnect(client)
            return None
        client.received += data
        line, newline, _ = client.received.partition(b"\n")
        if len(line) > MAX_REQUEST:
            self._reply(client, ControlAnswer(False, f"a request has at most {MAX_REQUEST} bytes"))
        elif newline:
            return self._parse_request(client, line)
        return None

    def _parse_request(self, client: _Client, line: bytes) -> Event | None:
        # Its client has given up: the order must not be carried out.
        if _is_closed(client.connection):
            self._disconnect(client)
            return None
        client.ticket = self._next_ticket
        self._next_ticket += 1
        try:
            asked = _decode(line)
        except msgspec.DecodeError as error:
            self._reply(
                client, ControlAnswer(False, f"this supervisor does not understand the request: {error}")
            )
            return None
        client.deadline = None
        return ControlAsked(client.ticket, client.uid, asked.order, asked.number, asked.jobs, asked.by)

    def _reply(self, client: _Client, answer: ControlAnswer) -> None:
        client.ticket = client.ticket or -1
        client.unsent = encode_answer(answer)
        client.deadline = self._now + CLIENT_TIMEOUT
        self._send(client)

    def _send(self, client: _Client) -> None:
        try:
            client.unsent = client.unsent[client.connection.send(client.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            client.unsent = b""
        if client.unsent:
            self._selector.modify(client.connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        else:
            self._disconnect(client)

    def _disconnect(self, client: _Client) -> None:
        descriptor = client.connection.fileno()
        if self._clients.pop(descriptor, None) is not None:
            self._selector.unregister(client.connection)
        client.connection.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
