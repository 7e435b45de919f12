"""How many jobs may start per second, minute or hour (`--rate`). Pure.

A bucket of tokens: one job start costs one. It fills evenly and holds a twentieth of a
second's worth, but at least one, so that starts keep their distance.
"""

from __future__ import annotations

_HELD = 0.05  # seconds


class Pace:
    """`rate`: job starts per second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * _HELD)
        self._tokens = 1.0
        self._at: float | None = None
        self.due: float | None = None  # when somebody who waits for it may go on

    def allowed(self, now: float) -> int:
        """How many jobs may start now."""
        if self._at is not None:
            self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        # A wait that was computed ends at its time, whatever floating point makes of it.
        due = self.due is not None and now >= self.due
        self.due = None
        return max(int(self._tokens), 1 if due else 0)

    def spend(self, starts: int) -> None:
        self._tokens -= starts

    def wait(self) -> None:
        """A job is ready, a worker is free, and it is too early: note when it is time."""
        assert self._at is not None, "allowed() comes first"
        self.due = self._at + max(0.0, 1.0 - self._tokens) / self._rate
