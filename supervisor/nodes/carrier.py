"""`Carrier`: what brings agents to their nodes, and the supervisor in touch with them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from supervisor.core.terms.needs import Totals
from supervisor.nodes.link import Link


class Arrival(NamedTuple):
    """An agent that waits for its HelloAgent.

    key: of the carrier, for this agent alone. name: of its node, for people. seat: which share of what there is
    its node offers, None: all that it has, or as many `cpus` as the carrier has taken there, for as many workers as
    `slots`.
    tag: of all its processes: `<experiment's tag>/<of this run>-<number>`.
    """

    key: int
    name: str
    seat: int | None
    tag: str
    link: Link
    cpus: int | None = None
    slots: int | None = None


class Carrier(Protocol):
    """No method blocks, but for `close`."""

    def start(self) -> None:
        """Begin to bring agents. Raises LonghaulError or OSError."""

    def fileno(self) -> int | None:
        """A descriptor that is readable when `poll` wants to be called; None: `next_deadline` says when."""

    def poll(self, now: float) -> list[Arrival]:
        """The agents that have arrived since the last call. `now`: the loop's clock."""

    def next_deadline(self) -> float | None:
        """When `poll` wants to be called even if nothing happens (the loop's clock)."""

    def greeted(self, key: int) -> None:
        """This agent has said Hello."""

    def end(self, key: int) -> None:
        """This agent is over, or is given up: see that it is gone, if that is possible. Another one may come."""

    def expected(self) -> list[Totals]:
        """What the nodes offer whose agents may say Hello soon, as far as that is known."""

    def why_ended(self, key: int) -> str:
        """What is known of the end of an agent that has not said it itself; "" if nothing."""

    def notices(self) -> list[tuple[str, str]]:
        """What the user should know, each with a level (`events.Tell`); once."""

    def why_none(self) -> str:
        """Why no agent will ever arrive; "" if one may."""

    def close(self, deadline: float) -> None:
        """End what is left of all agents; `deadline` on the monotonic clock."""
