"""How long jobs take, as far as their outcomes have told. Pure."""

from __future__ import annotations

_SLOWLY = 1 / 8  # of the way up, with each batch


class Durations:
    """In seconds; None until a job has ended.

    mean: moving average. quick: what a job takes when nothing holds it up. A worker that had no
    processor for a moment has a job that seems to last a thousand times as long; whoever
    reckons by the mean when the worker will need more work then comes too late.
    """

    def __init__(self) -> None:
        self.mean: float | None = None
        self.quick: float | None = None

    def learn(self, seconds: float, outcomes: int) -> None:
        """So many jobs of one worker took so long together."""
        if not outcomes:
            return
        mean = seconds / outcomes
        if self.mean is None or self.quick is None:
            self.mean = self.quick = mean
            return
        self.mean += min(0.5, 0.1 * outcomes) * (mean - self.mean)
        self.quick = min(mean, self.quick + _SLOWLY * (mean - self.quick))
