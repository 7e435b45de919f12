"""The supervisor's end of the control socket: never blocks, holds little, believes nothing.

A few connections at a time, one request each, bounded in size and time. A client that
hangs, floods, dies or talks nonsense loses its connection and harms nobody. Who it is, the
kernel says: only the user whose run it is, and root (who could do all of it anyway), are
listened to.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Sequence

import msgspec

from supervisor.control.control_protocol import MOST_ASKED, Answered, Asked, encode_answer
from supervisor.control.control_socket import NoPlace, find_directory, peer_uid, socket_name, sweep
from supervisor.core.terms.events import ControlAsked, Event

MOST_CLIENTS = 4
MOST_PER_SECOND = 20  # connections; more have to wait
PATIENCE = 10.0  # seconds for a client to ask, and to take its answer
_PIECE = 16 << 10
_decode = msgspec.json.Decoder(Asked).decode


class _Client:
    __slots__ = ("connection", "uid", "heard", "unsent", "deadline", "ticket")

    def __init__(self, connection: socket.socket, uid: int, deadline: float) -> None:
        self.connection = connection
        self.uid = uid
        self.heard = b""
        self.unsent = b""
        self.deadline: float | None = deadline  # None while the answer is being made
        self.ticket = 0  # once it has asked


class ControlServer:
    """Listens at `path`; `poll` turns requests into events, `answer` answers them."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self.path = path
        self._listener = listener
        self._clients: dict[int, _Client] = {}  # by descriptor
        self._next_ticket = 1
        self._now = 0.0
        self._accepted: list[float] = []  # when, within the last second
        self._deaf_until: float | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    @classmethod
    def open(cls, lock: str | os.PathLike[str]) -> ControlServer:
        """Listen for orders to the holder of this lock file. Raises NoPlace."""
        directory = find_directory()
        sweep(directory)
        path = os.path.join(directory, socket_name(lock))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            # Under its name only when somebody listens: a sweep takes it for stale otherwise.
            first = f"{path}.{os.getpid()}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(first)
            listener.bind(first)
            os.chmod(first, 0o600)
            listener.listen(MOST_CLIENTS)
            os.rename(first, path)
        except OSError as error:
            listener.close()
            raise NoPlace(f"{path}: {error.strerror or error}") from None
        return cls(listener, path)

    def fileno(self) -> int:
        """Readable when `poll` has something to do."""
        return self._selector.fileno()

    def next_deadline(self) -> float | None:
        """When `poll` wants to be called although nothing happens (the loop's clock)."""
        if not self._clients and self._deaf_until is None:
            return None
        times = [client.deadline for client in self._clients.values()] + [self._deaf_until]
        return min((time for time in times if time is not None), default=None)

    def poll(self, now: float) -> list[Event]:
        """What has been asked for since the last call."""
        self._now = now
        events: list[Event] = []
        if self._deaf_until is not None and now >= self._deaf_until:
            self._deaf_until = None
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
            elif (event := self._hear(client)) is not None:
                events.append(event)
        for client in [c for c in self._clients.values() if c.deadline is not None and now >= c.deadline]:
            self._drop(client)
        return events

    def answer(self, ticket: int, done: bool, text: str, stacks: Sequence[str] = ()) -> None:
        """Answer one request; nothing happens if its client has gone."""
        for client in self._clients.values():
            if client.ticket == ticket:
                self._reply(client, Answered(done, text, list(stacks)))
                return

    def close(self) -> None:
        """The run is over: nobody is answered any more, the socket is removed."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    # ---------------------------------------------------------------------- clients

    def _accept(self) -> None:
        self._accepted = [at for at in self._accepted if self._now - at < 1.0]
        if len(self._accepted) >= MOST_PER_SECOND:
            self._selector.unregister(self._listener)
            self._deaf_until = self._now + 1.0
            return
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again, or there is no descriptor left for it
            self._accepted.append(self._now)
            return
        self._accepted.append(self._now)
        try:
            connection.setblocking(False)
            uid = peer_uid(connection)
        except OSError:
            connection.close()
            return
        client = _Client(connection, uid, self._now + PATIENCE)
        if uid not in (os.geteuid(), 0):
            self._turn_away(client, f"this run belongs to uid {os.geteuid()}")
        elif len(self._clients) >= MOST_CLIENTS:
            self._turn_away(client, "too many at once are asking something of this run; try again")
        else:
            self._clients[connection.fileno()] = client
            self._selector.register(connection, selectors.EVENT_READ)

    def _turn_away(self, client: _Client, text: str) -> None:
        with contextlib.suppress(OSError):
            client.connection.send(encode_answer(Answered(False, text)))
        client.connection.close()

    def _hear(self, client: _Client) -> Event | None:
        try:
            data = client.connection.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data or client.ticket:  # gone, or more than one request
            self._drop(client)
            return None
        client.heard += data
        line, newline, _ = client.heard.partition(b"\n")
        if len(line) > MOST_ASKED:
            self._reply(client, Answered(False, f"a request has at most {MOST_ASKED} bytes"))
        elif newline:
            return self._understand(client, line)
        return None

    def _understand(self, client: _Client, line: bytes) -> Event | None:
        if _has_gone(client.connection):  # told that nobody answers: it must not be done later
            self._drop(client)
            return None
        client.ticket = self._next_ticket
        self._next_ticket += 1
        try:
            asked = _decode(line)
        except msgspec.DecodeError as error:
            self._reply(client, Answered(False, f"this supervisor does not understand the request: {error}"))
            return None
        client.deadline = None
        return ControlAsked(client.ticket, client.uid, asked.order, asked.number, asked.jobs)

    def _reply(self, client: _Client, answer: Answered) -> None:
        client.ticket = client.ticket or -1
        client.unsent = encode_answer(answer)
        client.deadline = self._now + PATIENCE
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
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        descriptor = client.connection.fileno()
        if self._clients.pop(descriptor, None) is not None:
            self._selector.unregister(client.connection)
        client.connection.close()


def _has_gone(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
