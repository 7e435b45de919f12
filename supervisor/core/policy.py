"""The numbers and the small decisions: how many jobs a worker holds, what an error costs. Pure."""

from __future__ import annotations

import zlib

from supervisor.core.jobs import OwnSettings
from supervisor.core.settings import Settings
from supervisor.core.table import Charges

# A worker should always hold so many seconds of work, so that it never waits for us; a hand-out
# gives it up to twice as much.
WORK_AHEAD = 0.15
# What a worker spends on a job beside running it: decoding, encoding, writing.
JOB_OVERHEAD = 5e-6
# Jobs longer than this are handed out one by one: the hand-out costs them little.
LONG_JOB = 0.1
# Seconds of work below which a hand-out is not halved any more.
WORTH_HANDING = 0.001
# The most leases that one worker may hold.
MOST_AHEAD = 8192
# And the most bytes of parameters, about: they go in one message, and wait in the worker.
BYTES_AHEAD = 16 << 20
# While the workers have enough to do, outcomes gather for so many seconds at most before they are
# looked at, as network cards gather packets: a wake-up for each costs both sides more than a tiny
# job, and any turn of the loop takes a core away from a worker.
PATIENCE = 0.1
# Outcomes of jobs that take longer than this are written down at once.
PROMPT_FROM = 0.02
# And about so many at most: what is made of more does not fit into the processor's cache.
GATHERED = 400
# Less than this is not worth a system call.
LEAST_PATIENCE = 0.0002
# Leases that wait behind a job for so long are given to others.
TAKE_BACK_AFTER = 0.05
# But only if another worker is idle, has said something since, or has begun a job so much later.
CLEARLY_LATER = 0.02
# After so many workers in a row that were never ready, and none that is, the run stops.
START_FAILURES = 3
# A job that was running so often when the supervisor ended uncleanly runs last and alone.
LOSS_LIMIT = 3
# A job that found no space on a disk tries again after this; so often before it fails.
NO_SPACE_WAIT = 10.0
NO_SPACE_LIMIT = 6
# A job that raises `workers.Interrupted` while nothing is being stopped runs again after
# this, so often in a run before it fails.
INTERRUPTED_WAIT = 1.0
INTERRUPTED_LIMIT = 10

# The longest wait before another attempt, however often there was one.
LONGEST_BACKOFF = 3600.0
# When a run stands still for so long, because its jobs wait for another attempt, it says so.
WAIT_WORTH_TELLING = 2.0

ENOSPC = 28
EDQUOT = (122, 69)  # Linux, macOS


def is_no_space(errno: int | None) -> bool:
    """Whether a disk or a quota is full: that is nobody's fault, and passes."""
    return errno == ENOSPC or errno in EDQUOT


def most_ahead(job_bytes: float) -> int:
    """The most leases that one worker may hold when the line of a job in the plan has so many bytes
    on average."""
    return max(1, min(MOST_AHEAD, int(BYTES_AHEAD / max(1.0, job_bytes))))


def time_of(seconds: float, jobs: int = 1) -> float:
    """Seconds that a worker spends on so many jobs that ran for `seconds` together."""
    return seconds + jobs * JOB_OVERHEAD


def leases_ahead(mean_seconds: float | None, most: int = MOST_AHEAD) -> int:
    """How many leases a worker should hold when jobs take so long on average."""
    if mean_seconds is None or mean_seconds > LONG_JOB:
        return 1
    return min(most, 2 + int(2 * WORK_AHEAD / time_of(mean_seconds)))


def patience(quick: float | None, least_held: int) -> float:
    """Seconds for which outcomes may gather when every worker holds at least so many leases:
    half of what the one with the fewest has to do behind the job it is at. `quick`: what a job
    takes (`Durations`)."""
    if quick is None or quick > PROMPT_FROM:
        return 0.0
    each = time_of(quick)
    seconds = min(PATIENCE, GATHERED * each, (least_held - 1) * each / 2)
    return seconds if seconds >= LEAST_PATIENCE else 0.0


def share(ready: int, workers: int, mean_seconds: float | None) -> int:
    """The most that one worker may get when `ready` jobs are left for `workers` workers:
    half of its even share, so that nobody is without work at the end, but no less than is
    worth a hand-out."""
    least = 1 if mean_seconds is None else max(1, int(WORTH_HANDING / time_of(mean_seconds)))
    return max(least, -(-ready // (2 * max(1, workers))))


def start_delay(failures: int) -> float:
    """Seconds to wait before the next try to start a worker after so many failures."""
    return 0.0 if failures == 0 else min(30.0, 0.25 * 2.0 ** min(failures, 10))


def verdict(outcome: str, charges: Charges, settings: Settings, own: OwnSettings) -> str:
    """What becomes of a job after an attempt that is charged to it: failed, pending (an
    error, with budget left) or in_progress (crashed, with budget left). Each cause has a
    budget of its own."""
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
    """Seconds to wait before another attempt after `tries` that failed: `base`, doubled each
    time, less up to half of it, so that jobs that failed together do not come back together.

    The jitter follows from job and try alone: a replay waits as long as the run did.
    """
    longest = max(base, LONGEST_BACKOFF)
    wait = min(longest, base * 2.0 ** min(tries - 1, 60))
    share = zlib.crc32(f"{job_id}/{tries}".encode(errors="surrogatepass")) / 2**32
    return wait * (1.0 - share / 2)


def needs_to_be_alone(charges: Charges | None, *, crash_limit: int | None = None) -> bool:
    """Whether a job is suspected of taking more than its worker with it; with `crash_limit`
    also if it has crashed so many workers."""
    if charges is None:
        return False
    crashed = crash_limit is not None and charges.crashes >= crash_limit
    return crashed or charges.losses >= LOSS_LIMIT or charges.over_memory > 0
