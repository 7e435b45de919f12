"""The run's clock: monotonic time without the time in which the supervisor was stopped.

Timeouts and grace time are measured on this clock. It stands still while the supervisor is stopped (SIGSTOP,
Ctrl+Z, a debugger), because a stopped supervisor cannot process results. On Linux CLOCK_MONOTONIC itself
stands still while the machine is suspended; this is detected for the record only. Changes of the wall clock
have no effect.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

# Seconds. A turn of the loop takes milliseconds. If the time between two readings of the clock is so much
# longer than the wait that the loop asked for, the process was stopped, not busy.
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
        """Read the time after a wait of at most `waited_for` seconds.

        Returns for how many seconds the supervisor was stopped or the machine suspended; nearly always 0.0.
        """
        before, self._last = self._last, time.monotonic()
        surplus = self._last - before - waited_for
        still = surplus if surplus > STOPPED_AFTER else 0.0
        self._stood_still += still
        offset = _sleep_offset()
        slept, self._slept = offset - self._slept, offset
        return still + (slept if slept > STOPPED_AFTER else 0.0)

    def resync(self) -> None:
        """Read the time after work outside of the loop: however long it took, none of it counts as
        stopped."""
        self.tick(math.inf)


def boot_time() -> float:
    """Seconds since boot, with those in which the machine was suspended, where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _sleep_offset() -> float:
    """Seconds for which the machine has been suspended since boot; 0.0 if the system does not tell."""
    return boot_time() - time.monotonic() if hasattr(time, "CLOCK_BOOTTIME") else 0.0


def utc_now() -> str:
    """Now, as ISO 8601 UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
