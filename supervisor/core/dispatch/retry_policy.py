"""What a failure costs: retry, back-off, quarantine, running alone; back-off of worker starts. Pure."""

from __future__ import annotations

import zlib

from supervisor.core.state.job_table import Charges
from supervisor.core.terms.jobs import OwnSettings
from supervisor.core.terms.settings import Settings

Sort = tuple[int, tuple[int, ...]]  # of workers: the number of the place, the numbers of devices

# After so many workers in a row that never got ready, with no other at work, the run stops.
START_FAILURES = 3

# A job that was running so often when a supervisor was killed, or a place lost, runs last and alone in its place.
LOSS_LIMIT = 3

# A job that found the disk full is tried again after so many seconds, so many times.
NO_SPACE_WAIT = 10.0

NO_SPACE_LIMIT = 6

# A job that raises `workers.JobInterrupted` outside a drain runs again after so many seconds, so
# many times in a run.
INTERRUPTED_WAIT = 1.0

INTERRUPTED_LIMIT = 10

# The longest wait before another attempt, however often there was one.
LONGEST_BACKOFF = 3600.0

# If no job can run for so many seconds because all wait for another attempt, the user is told.
WAIT_WORTH_TELLING = 2.0

ENOSPC = 28

EDQUOT = (122, 69)  # Linux, macOS


def is_no_space(errno: int | None) -> bool:
    """Whether a disk or a quota is full: not the job's fault, and temporary."""
    return errno == ENOSPC or errno in EDQUOT


def start_delay(failures: int) -> float:
    """Seconds to wait before the next try to start a worker after so many failures."""
    return 0.0 if failures == 0 else min(30.0, 0.25 * 2.0 ** min(failures, 10))


class StartFailures:
    """Workers in a row that never got ready, by their sort: the place, and the devices that they see. A sort that
    cannot be started keeps no other from being started."""

    def __init__(self) -> None:
        self._number: dict[Sort, int] = {}
        self._not_before: dict[Sort, float] = {}
        self._refused_before: dict[Sort, int] = {}  # starts up to this incarnation were refused together

    def count(self, sort: Sort, now: float) -> None:
        """One more has failed: the next try is later."""
        self._number[sort] = self.number(sort) + 1
        self.wait(sort, now + start_delay(self._number[sort]))

    def is_new(self, sort: Sort, incarnation: int, next_incarnation: int) -> bool:
        """Whether a start that was refused is another failure than the last one. All starts that were asked for
        together are one: a short shortage must not end a run with many workers."""
        if incarnation < self._refused_before.get(sort, 0):
            return False
        self._refused_before[sort] = next_incarnation
        return True

    def wait(self, sort: Sort, until: float) -> None:
        self._not_before[sort] = until

    def forget(self, sort: Sort) -> None:
        """One has got ready."""
        self._number.pop(sort, None)

    def number(self, sort: Sort) -> int:
        return self._number.get(sort, 0)

    def any(self) -> bool:
        """Whether the last start of any sort has failed, or has to wait."""
        return bool(self._number or self._not_before)

    def waits(self, sort: Sort) -> bool:
        """Whether the next try has to wait, as of the last `end_delays`."""
        return sort in self._not_before

    def failing_devices(self, place: int) -> set[int]:
        """The devices with which the last start failed."""
        return {device for at, devices in self._number if at == place for device in devices}

    def end_delays(self, now: float) -> None:
        self._not_before = {sort: time for sort, time in self._not_before.items() if now < time}

    def forget_delays(self) -> None:
        """Nothing is to be started any more."""
        self._not_before.clear()

    def next_time(self) -> float | None:
        """When another try is due."""
        return min(self._not_before.values(), default=None)


def verdict(outcome: str, charges: Charges, settings: Settings, own: OwnSettings) -> str:
    """The state of a job after an attempt that was charged to it: failed, pending (after an error, with budget
    left) or in_progress (after a crash, with budget left). Each cause has its own budget."""
    if outcome == "crashed":
        return "failed" if charges.crashes >= settings.crash_limit else "in_progress"
    if outcome == "cancelled":
        return "failed"
    if outcome == "lost":
        return "in_progress"
    left = 0
    if outcome == "raised":
        left = (settings.retries if own.retries is None else own.retries) + 1 - charges.errors
    elif outcome == "timed_out":
        left = settings.retry_timeouts + 1 - charges.timeouts
    elif outcome == "over_memory":
        left = settings.retry_over_memory + 1 - charges.over_memory
    return "pending" if left > 0 else "failed"


def backoff(base: float, tries: int, job_id: str) -> float:
    """Seconds to wait before another attempt after `tries` failed ones: `base`, doubled each time, minus a jitter
    of up to half, so that jobs which failed together are not retried together.

    The jitter is a hash of job and try, so that a replay waits as long as the run did.
    """
    longest = max(base, LONGEST_BACKOFF)
    wait = min(longest, base * 2.0 ** min(tries - 1, 60))
    share = zlib.crc32(f"{job_id}/{tries}".encode(errors="surrogatepass")) / 2**32
    return wait * (1.0 - share / 2)


def needs_to_be_alone(charges: Charges | None, *, crash_limit: int | None = None) -> bool:
    """Whether a job may take down more than its worker; with `crash_limit` also if it has crashed so many
    workers."""
    if charges is None:
        return False
    crashed = crash_limit is not None and charges.crashes >= crash_limit
    return crashed or charges.losses >= LOSS_LIMIT or charges.over_memory > 0
