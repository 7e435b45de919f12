"""A carrier that reaches hosts over TCP: on each waits a daemon that starts agents (`host_daemon`)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket

from supervisor.core.terms.needs import Totals
from supervisor.nodes.carrier import Arrival
from supervisor.nodes.carriers import CarrierSurroundings, add_carrier
from supervisor.nodes.link import Link
from supervisor.system.interpreter import interpreter
from supervisor.system.script_start import child_environment, start_directory
from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION, NOBODY

NAME = "tcp"
PORT = 7000
AGAIN_AFTER = 0.2  # seconds
CONNECT_WITHIN = 0.3
_LOOK_EVERY = 0.02


class _Attempt:
    def __init__(self, seat: int, connection: socket.socket, until: float) -> None:
        self.seat, self.connection, self.until = seat, connection, until


class TcpCarrier:
    """addresses: of the hosts. No end of anything makes it give up: a host may always come back."""

    def __init__(self, addresses: list[str], around: CarrierSurroundings) -> None:
        self._addresses = addresses[: around.seats]
        self._tag, self._directory = around.tag, around.directory
        self._token = os.urandom(4).hex()
        self._next_key = 0
        self._due = dict.fromkeys(range(len(self._addresses)), 0.0)
        self._attempts: list[_Attempt] = []
        self._seats: dict[int, int] = {}  # of agents, by key
        self._now = 0.0

    def start(self) -> None:
        os.makedirs(self._directory, exist_ok=True)

    def poll(self, now: float) -> list[Arrival]:
        self._now = now
        for seat in [seat for seat, due in self._due.items() if due <= now]:
            del self._due[seat]
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            connection.setblocking(False)
            connection.connect_ex((self._addresses[seat], PORT))
            self._attempts.append(_Attempt(seat, connection, now + CONNECT_WITHIN))
        arrivals, waiting = [], []
        for attempt in self._attempts:
            code = attempt.connection.connect_ex((self._addresses[attempt.seat], PORT))
            if code in (0, errno.EISCONN):
                arrivals.append(self._arrival(attempt))
            elif code in (errno.EALREADY, errno.EINPROGRESS) and now < attempt.until:
                waiting.append(attempt)
            else:
                attempt.connection.close()
                self._due[attempt.seat] = now + AGAIN_AFTER
        self._attempts = waiting
        return arrivals

    def _arrival(self, attempt: _Attempt) -> Arrival:
        key = self._next_key
        self._next_key += 1
        self._seats[key] = attempt.seat
        tag = f"{self._tag}/{self._token}-{key}"
        environment = child_environment({INCARNATION: NOBODY, EXPERIMENT_TAG: tag})
        wanted = {
            "command": interpreter("supervisor.nodes.node_agent:run"),
            "environment": {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()},
            "directory": start_directory(),
            "output": os.path.join(self._directory, "%agents.log"),
        }
        connection = attempt.connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(True)  # a few kilobytes, which the kernel has room for
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps(wanted).encode() + b"\n")
        descriptor = connection.detach()
        return Arrival(key, f"host{attempt.seat}", attempt.seat, tag, Link(descriptor, descriptor))

    def next_deadline(self) -> float | None:
        looks = [self._now + _LOOK_EVERY] if self._attempts else []
        return min([*self._due.values(), *looks], default=None)

    def fileno(self) -> None:
        return None

    def greeted(self, key: int) -> None:
        pass

    def end(self, key: int) -> None:
        self._due[self._seats.pop(key)] = self._now + AGAIN_AFTER

    def expected(self) -> list[Totals]:
        return []

    def why_ended(self, key: int) -> str:
        return ""

    def notices(self) -> list[tuple[str, str]]:
        return []

    def why_none(self) -> str:
        return ""

    def close(self, deadline: float) -> None:
        for attempt in self._attempts:
            attempt.connection.close()


def add(addresses: list[str]) -> None:
    """Let `--engine tcp` run jobs on these hosts."""
    add_carrier(NAME, lambda around: TcpCarrier(addresses, around))
