"""One call of the core: its time, and the effects that it collects. Pure."""

from __future__ import annotations

from supervisor.core.terms.events import Effects
from supervisor.core.terms.records import lines_in


class Turn:
    """One call of the core.

    now: seconds on the run's clock. at: the same instant as ISO 8601 UTC. first_n: the number of the first record
    that this turn adds. effects: the answer, which grows during the turn. draining: whether a drain had begun
    before it.
    """

    __slots__ = ("now", "at", "first_n", "effects", "draining")

    def __init__(self, now: float, at: str, first_n: int) -> None:
        self.now = now
        self.at = at
        self.first_n = first_n
        self.effects = Effects([], [])
        self.draining = False

    def last_n(self) -> int:
        """The number of the record that was added last."""
        return self.first_n + lines_in(self.effects.records) - 1
