"""Connections of agents to the supervisor past Ray: one TCP connection each, made by the agent's actor.

A call of an actor takes 3 ms of CPU for a message there and back, a socket a twentieth of that. Where no connection
comes to be (a firewall, TLS), the same bytes go through calls (`AgentActor.tell`, `hear`), and nothing else changes.

Both sides prove that they are who they say by words that Ray has brought to the actor: whoever finds the port gets
nothing, and learns nothing.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket
import threading
from typing import NamedTuple

from supervisor.nodes.ray.agent_launch import read_exactly

WORD = 32  # bytes
SAY_WITHIN = 1.0  # seconds for whoever connects; all others wait meanwhile
CALLS_ONLY = "LONGHAUL_RAY_CALLS"  # the name of a variable: 1 makes no such connections


class WireOffer(NamedTuple):
    """How an actor connects. word: what it says, answer: what it then hears, if it has found us."""

    host: str
    port: int
    word: bytes
    answer: bytes


class DirectWires:
    """Listens for the life of the driver. host: the address of this machine in the cluster. Raises OSError."""

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._host, self._port = host, self._listener.getsockname()[1]
        # By the first half of the word: key, word, answer.
        self._offers: dict[bytes, tuple[int, bytes, bytes]] = {}
        self._arrived: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def offer(self, key: int) -> WireOffer:
        """For the agent with this key; good for one connection."""
        word, answer = secrets.token_bytes(WORD), secrets.token_bytes(WORD)
        with self._lock:
            self._offers[word[: WORD // 2]] = key, word, answer
        return WireOffer(self._host, self._port, word, answer)

    def take(self, key: int) -> socket.socket | None:
        """The connection of this agent, which is the caller's now; the offer ends."""
        with self._lock:
            self._offers = {begin: offer for begin, offer in self._offers.items() if offer[0] != key}
            return self._arrived.pop(key, None)

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            if not self._welcome(end):
                end.close()

    def _welcome(self, end: socket.socket) -> bool:
        with contextlib.suppress(OSError):
            end.settimeout(SAY_WITHIN)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            said = read_exactly(end, WORD)
            with self._lock:
                key, word, answer = self._offers.pop(said[: WORD // 2], (-1, b"", b""))
                if key < 0 or not hmac.compare_digest(said, word):
                    return False
                self._arrived[key] = end  # before the actor knows it
            end.sendall(answer)
            return True
        return False

    def close(self) -> None:
        self._listener.close()


def direct_wires(host: str) -> DirectWires | None:
    """None: bytes go through calls. With TLS between the nodes they stay encrypted that way."""
    if os.environ.get(CALLS_ONLY) == "1" or os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return None
    try:
        return DirectWires(host)
    except OSError:
        return None
