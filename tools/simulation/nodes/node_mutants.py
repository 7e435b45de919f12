"""Deliberate faults in what keeps a job from running in two places, each of which the simulation of hosts has to catch.

Each takes away one rule of `supervisor.nodes.fencing`, or what follows from it.
As of `tools.simulation.mutants`: a mutant replaces functions for as long as it lives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

from supervisor.core.dispatch.revocations import Revocations
from supervisor.core.scheduling.earlier_leases import EarlierLeases
from supervisor.nodes import fencing, node_agent, nodes_engine
from supervisor.nodes.fencing import Heartbeat, Watchdog, Withdrawals
from supervisor.nodes.node_agent import NodeAgent
from tools.simulation.mutants import report
from tools.simulation.nodes.hosts import AgentProcess
from tools.simulation.nodes.network import Network, SimulatedLink
from tools.simulation.nodes.node_history import SupervisorProcess, play_nodes
from tools.simulation.promises import Violation

Patch = tuple[Any, str, Any]
NodeMutant = Callable[[Network], list[Patch]]


def _plainly(*patches: Patch) -> NodeMutant:
    return lambda _: list(patches)


# ------------------------------------------------------------------------------ pings


def _from_its_coming(self: Watchdog, number: int, pong: int, now: float) -> None:
    self._heard = now


def _pinged_after_its_end(_: Network) -> list[Patch]:
    """A node that was given up is listened to, and pinged, until its jobs are free."""
    give_up, due, pong, close = Heartbeat.give_up, Heartbeat.due, Heartbeat.pong, SimulatedLink.close

    def give_up_and_note(self: Any, *_: Any) -> None:
        self.fixed = self.known
        give_up(self)

    def due_or_ping(self: Any, now: float) -> str:
        found = due(self, now)
        return "ping" if not found and self.given_up and now >= self.pinged + self.every else found

    def believed(self: Any, *arguments: Any) -> None:
        pong(self, *arguments)
        if self.given_up:
            self._last_known, self.known = self.known, self.fixed

    def left_open(self: SimulatedLink) -> None:
        if self.writer.receiver is not None and isinstance(self.writer.receiver, AgentProcess):
            return
        close(self)

    def next_time(self: Any) -> float:
        return min(self.free_at, self.pinged + self.every) if self.given_up else _NEXT_TIME(self)

    return [
        (Heartbeat, "give_up", give_up_and_note),
        (Heartbeat, "due", due_or_ping),
        (Heartbeat, "pong", believed),
        (Heartbeat, "next_time", next_time),
        (SimulatedLink, "close", left_open),
    ]


_NEXT_TIME = Heartbeat.next_time


def _free_at_once(self: Heartbeat) -> None:
    self.given_up = self.confirmed = True


def _from_before(self: Any, number: int, now: float) -> None:
    """It is not counted from the last Pong, but from the one before."""
    earlier = self.known
    _PONG(self, number, now)
    self.known, self.later = getattr(self, "later", earlier), self.known


_PONG = Heartbeat.pong


def _look_of_the_turn(network: Network) -> list[Patch]:
    """The time is what it was when the turn began."""

    def began() -> float:
        process = network.current
        return process.began_turn if isinstance(process, SupervisorProcess) else network.now

    return [(nodes_engine, "boot_time", began)]


# ------------------------------------------------------------------------------ agents


def _clock_that_sleeps(network: Network) -> list[Patch]:
    def monotonic() -> float:
        process = network.current
        return network.now - (process.host.suspended if isinstance(process, AgentProcess) else 0.0)

    return [(node_agent, "boot_time", monotonic)]


def _read_first(self: NodeAgent) -> None:
    if self._engine is not None:
        for order in self._orders():
            self._obey(order)
    _TURN(self)


_TURN = NodeAgent.turn


def _all_are_certain(self: Withdrawals, unstarted: Any, now: float) -> Any:
    return _CERTAIN(self, lambda _, leases: list(leases), now + 1.0)


_CERTAIN = Withdrawals.certain


def _at_once(self: Revocations, turn: Any, worker: Any) -> None:
    with mock.patch.object(self, "elsewhere", False):
        _REVOKE(self, turn, worker)


_REVOKE = Revocations.revoke_waiting


def _queued_at_once(self: EarlierLeases, turn: Any, leases: Any, mask: bytes, elsewhere: Any) -> None:
    _BEGIN(self, turn, leases, mask, {})


_BEGIN = EarlierLeases.begin

NODE_MUTANTS: dict[str, NodeMutant] = {
    "a node that was given up is pinged and believed": _pinged_after_its_end,
    "the jobs of a lost node are free without a margin": _plainly((fencing, "FENCE", 0.0)),
    "the jobs of a lost node are free at once": _plainly((Heartbeat, "give_up", _free_at_once)),
    "the time of a lost node begins before its last Pong": _plainly((Heartbeat, "pong", _from_before)),
    "the supervisor takes the time of its turn for that of a Pong": _look_of_the_turn,
    "an agent counts from the coming of a Ping": _plainly((Watchdog, "ping", _from_its_coming)),
    "an agent counts on a clock that stops in suspension": _clock_that_sleeps,
    "an agent reads before it looks at the time": _plainly((NodeAgent, "turn", _read_first)),
    "nobody guards an agent that is stopped": _plainly((fencing, "guard_is_due", lambda *_: False)),
    "an agent never ends by itself": _plainly(
        (Watchdog, "over", lambda *_: False), (fencing, "guard_is_due", lambda *_: False)
    ),
    "a new agent is believed without having looked": _plainly(
        (nodes_engine, "shows_end", lambda cleared, kernel, lost: kernel == lost)
    ),
    "a namesake on another kernel is believed": _plainly(
        (nodes_engine, "shows_end", lambda cleared, kernel, lost: cleared)
    ),
    "the supervisor's own standstill is the silence of nodes": _plainly(
        (nodes_engine, "stand_still", lambda *_: 0.0)
    ),
    "a silent node is never given up": _plainly((Heartbeat, "patience", 1e9)),
    "leases that were taken back are given to others at once": _plainly(
        (Revocations, "revoke_waiting", _at_once), (Revocations, "revoke_if_silent", _at_once)
    ),
    "an agent takes leases for withdrawn that have started": _plainly(
        (Withdrawals, "certain", _all_are_certain)
    ),
    "leases that were taken back elsewhere are never free": _plainly(
        (Withdrawals, "certain", lambda *_: []), (Revocations, "withdrawn", lambda *_: None)
    ),
    "what an earlier run left elsewhere runs again at once": _plainly(
        (EarlierLeases, "begin", _queued_at_once)
    ),
}


def caught_on_hosts(mutant: NodeMutant, seeds: int) -> str:
    """How the simulation noticed a fault, "" if it did not in so many histories. Only a broken promise counts: any
    other error is raised."""

    @contextlib.contextmanager
    def prepare(network: Network) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for target, name, replacement in mutant(network):
                stack.enter_context(mock.patch.object(target, name, replacement))
            yield

    for seed in range(seeds):
        try:
            play_nodes(seed, prepare=prepare)
        except Violation as fault:
            return f"seed {seed}: {fault}"
    return ""


def walk(seeds: int) -> int:
    """All mutants, one after the other; exit code 1 if one survives."""
    return report({name: partial(caught_on_hosts, mutant, seeds) for name, mutant in NODE_MUTANTS.items()})
