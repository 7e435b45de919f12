"""The run's clock: monotonic time less all the time in which the run stood still.

Deadlines (timeouts, grace) count on this clock. It does not run while the supervisor is
stopped (SIGSTOP, Ctrl+Z, a debugger): the workers' jobs must not pay for a time in which
nobody could have looked at them. While the machine sleeps CLOCK_MONOTONIC stands still by
itself on Linux; that is only noticed, for the record. Steps of the wall clock change
nothing.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

# A turn of the loop takes milliseconds. If the time between two looks at the clock exceeds
# what the loop asked to wait by this much, the process was stopped, not busy.
STOPPED_AFTER = 1.0


class RunClock:
    def __init__(self) -> None:
        self._last = time.monotonic()
        self._stood_still = 0.0
        self._slept = _sleep_offset()

    def now(self) -> float:
        """Seconds on the run's clock."""
        return self._last - self._stood_still

    def tick(self, waited_for: float = 0.0) -> float:
        """Read the time after a wait that should have lasted `waited_for` at the most.

        Returns how many seconds the run stood still meanwhile (0.0 nearly always).
        """
        before, self._last = self._last, time.monotonic()
        surplus = self._last - before - waited_for
        still = surplus if surplus > STOPPED_AFTER else 0.0
        self._stood_still += still
        offset = _sleep_offset()
        slept, self._slept = offset - self._slept, offset
        return still + (slept if slept > STOPPED_AFTER else 0.0)

    def resync(self) -> None:
        """Read the time after other work: however long it took, the run did not stand still."""
        self.tick(math.inf)


def _sleep_offset() -> float:
    """How far the clock that runs during a sleep of the machine is ahead of the other."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return 0.0


def utc_now() -> str:
    """Now, as ISO 8601 UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
