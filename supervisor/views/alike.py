"""Is everything failing in the same way? Then nobody should wait for the morning. Pure."""

from __future__ import annotations

from supervisor.core.snapshot import FailureSnapshot
from supervisor.views.grouping import kind
from supervisor.views.words import cut, one_line

ENOUGH = 20


class FirstAttempts:
    """Watches the first attempts of a run until one succeeds or fails differently."""

    def __init__(self) -> None:
        self._seen = 0
        self._kind: str | None = None
        self.undecided = True

    def completed(self) -> None:
        """One attempt ended well: they do not all fail."""
        self.undecided = False

    def failed(self, failure: FailureSnapshot) -> str | None:
        """What to say, once, when the first 20 attempts all failed alike."""
        if not self.undecided:
            return None
        name = kind(failure)
        if self._kind is None:
            self._kind = name
        if name != self._kind:
            self.undecided = False
            return None
        self._seen += 1
        if self._seen < ENOUGH:
            return None
        self.undecided = False
        message = cut(one_line(failure.message), 200)
        return (
            f"the first {ENOUGH} attempts all failed alike: {name}{': ' if message else ''}{message}. "
            "Ctrl+C stops the run."
        )
