"""The numbers and the small decisions: how many jobs a worker holds, what an error costs. Pure."""

from __future__ import annotations

from supervisor.core.table import Charges

# A worker should always hold a few milliseconds of work, so that it never waits for us.
WORK_AHEAD = 0.005
# What a worker spends on a job beside running it: decoding, encoding, writing.
JOB_OVERHEAD = 5e-6
# Jobs longer than this are handed out one by one: the hand-out costs them nothing.
LONG_JOB = 0.02
# The most leases that one worker may hold.
MOST_AHEAD = 4096
# While the workers have enough to do, outcomes gather for so long at most before they are
# looked at, as network cards gather packets: a wake-up for each costs both sides more than the job.
PATIENCE = 0.004
# Less than this is not worth a system call.
LEAST_PATIENCE = 0.0002
# Leases that wait behind a job for so long are given to others.
TAKE_BACK_AFTER = 0.05
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

ENOSPC = 28
EDQUOT = (122, 69)  # Linux, macOS


def leases_ahead(mean_seconds: float | None) -> int:
    """How many leases a worker should hold when jobs take so long on average."""
    if mean_seconds is None or mean_seconds > LONG_JOB:
        return 1
    return min(MOST_AHEAD, 2 + int(2 * WORK_AHEAD / (mean_seconds + JOB_OVERHEAD)))


def patience(mean_seconds: float | None, least_held: int) -> float:
    """Seconds for which outcomes may gather when every worker holds at least so many leases:
    half of what the one with the fewest has to do behind the job it is at."""
    if mean_seconds is None or mean_seconds > LONG_JOB:
        return 0.0
    waiting = (least_held - 1) * (mean_seconds + JOB_OVERHEAD)
    return min(PATIENCE, waiting / 2) if waiting > 2 * LEAST_PATIENCE else 0.0


def share(ready: int, workers: int) -> int:
    """The most that one worker may get when `ready` jobs are left for `workers` workers:
    half of its even share, so that nobody is without work at the end."""
    return max(1, -(-ready // (2 * max(1, workers))))


def start_delay(failures: int) -> float:
    """Seconds to wait before the next try to start a worker after so many failures."""
    return 0.0 if failures == 0 else min(30.0, 0.25 * 2.0 ** min(failures, 10))


def verdict(outcome: str, charges: Charges, *, retries: int, crash_limit: int) -> str:
    """What becomes of a job after an attempt that is charged to it: failed, pending (an
    error, with budget left) or in_progress (crashed, with budget left)."""
    if outcome == "crashed":
        return "failed" if charges.crashes >= crash_limit else "in_progress"
    if outcome == "cancelled":
        return "failed"
    if outcome == "lost":
        return "in_progress"
    if outcome == "raised":
        return "failed" if charges.errors > retries else "pending"
    return "failed"
