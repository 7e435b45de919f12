"""How many leases a worker holds, how long outcomes gather, and the rate of job starts (`--rate`). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from supervisor.core.state.worker_state import READY, WorkerState

_SLOWLY = 1 / 8  # share of the difference by which `quick` rises with each batch


class Durations:
    """Durations of jobs in seconds; None until a job has ended.

    mean: moving average. quick: the duration of a job that nothing delays. A worker that gets no processor for
    a moment has one job that seems a thousand times as long. Predicting by the mean when a worker runs out of
    leases would then be too late.
    """

    def __init__(self) -> None:
        self.mean: float | None = None
        self.quick: float | None = None

    def learn(self, seconds: float, outcomes: int) -> None:
        """Learn that `outcomes` jobs of one worker took `seconds` together."""
        if not outcomes:
            return
        mean = seconds / outcomes
        if self.mean is None or self.quick is None:
            self.mean = self.quick = mean
            return
        self.mean += min(0.5, 0.1 * outcomes) * (mean - self.mean)
        self.quick = min(mean, self.quick + _SLOWLY * (mean - self.quick))


_HELD = 0.05  # seconds of starts that the bucket holds


class TokenBucket:
    """Limits job starts to `rate` per second. The bucket fills evenly and holds the starts of a twentieth of a
    second, at least one, so that starts are spread out."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * _HELD)
        self._tokens = 1.0
        self._at: float | None = None
        self.due: float | None = None  # when a job that waits for the rate may start

    def allowed(self, now: float) -> int:
        """How many jobs may start now."""
        if self._at is not None:
            self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        # At `due` one start is allowed, also if rounding left slightly less than one token.
        due = self.due is not None and now >= self.due
        self.due = None
        return max(int(self._tokens), 1 if due else 0)

    def spend(self, starts: int) -> None:
        self._tokens -= starts

    def wait(self) -> None:
        """A job must wait for the rate: set `due` to when it may start."""
        assert self._at is not None, "allowed() comes first"
        self.due = self._at + max(0.0, 1.0 - self._tokens) / self._rate


# Seconds of work that a worker should always hold, so that it never waits for the supervisor. A hand-out gives
# it up to twice as much.
WORK_AHEAD = 0.15

# What a worker spends on a job beside running it: decoding, encoding, writing.
JOB_OVERHEAD = 5e-6

# Jobs longer than this are handed out one by one: the hand-out costs them little.
LONG_JOB = 0.1

# Seconds of work that a hand-out has at least, however few jobs are left.
WORTH_HANDING = 0.001

# The most leases that one worker may hold.
MOST_AHEAD = 8192

# About the most bytes of parameters that one worker may hold: they are sent in one message.
BYTES_AHEAD = 16 << 20

# Seconds for which outcomes may gather before the loop processes them, while the workers hold enough leases
# (interrupt coalescing, as in network cards). A wake-up for each outcome would cost more than a tiny job, and
# each turn of the loop takes a core from a worker.
LONGEST_DELAY = 0.1

# Outcomes of jobs that take longer than this are recorded at once.
PROMPT_FROM = 0.02

# From so many workers on, outcomes of long jobs gather for so many seconds for each worker, but no longer than this
# part of a job: half of that is what a worker waits for its next one on average.
MANY_WORKERS = 64
PER_WORKER = 4e-5
PART_OF_A_JOB = 1 / 50

# Seconds for which the news of so many workers that start or end gather: each has two or three.
MANY_CHANGES_DELAY = 0.01

# About the most outcomes that gather: the objects made of more do not fit into the processor's cache.
GATHERED = 400

# A shorter delay is not worth a system call.
SHORTEST_DELAY = 0.0002

# Seconds after which leases that wait behind a running job are revoked and given to others (`Revocations.after`).
REVOKE_AFTER = 0.05

# But only if another worker is idle, has reported since, or has begun a job so many seconds later.
CLEARLY_LATER = 0.02

# Seconds without a word after which a worker that was asked for them is taken to be at a long job. A worker between
# two short jobs answers within a millisecond.
CONFIRM_AFTER = 0.01


def most_ahead(job_bytes: float) -> int:
    """The most leases that one worker may hold. `job_bytes`: average size of a job's line in the plan."""
    return max(1, min(MOST_AHEAD, int(BYTES_AHEAD / max(1.0, job_bytes))))


def time_of(seconds: float, jobs: int = 1) -> float:
    """Seconds that a worker spends on `jobs` jobs which run for `seconds` together."""
    return seconds + jobs * JOB_OVERHEAD


def leases_ahead(mean_seconds: float | None, most: int = MOST_AHEAD, gathering: float = 0.0) -> int:
    """How many leases a worker should hold. `gathering`: for how many seconds its outcomes may gather before they are
    told."""
    if mean_seconds is None or mean_seconds > LONG_JOB:
        return 1
    return min(most, 2 + int(2 * (WORK_AHEAD + gathering) / time_of(mean_seconds)))


def coalescing_delay(quick: float | None, least_held: int, workers: int, gathering: float = 0.0) -> float:
    """Seconds for which outcomes may gather when each of the workers holds at least so many leases:
    half of the work that the one with the fewest holds behind its running job. `quick`: what a job
    takes (`Durations`). `gathering`: for how many seconds outcomes may gather before they are told, but no longer
    than half of a worker's work takes: so much of it may be done already.

    Many workers with long jobs wait a little as well, since a turn looks at each of them."""
    if quick is None:
        return 0.0
    if quick > PROMPT_FROM:
        return min(PER_WORKER * workers, PART_OF_A_JOB * quick) if workers >= MANY_WORKERS else 0.0
    each = time_of(quick)
    work = (least_held - 1) * each
    seconds = min(max(LONGEST_DELAY, gathering), GATHERED * each, (work - min(gathering, work / 2)) / 2)
    return seconds if seconds >= SHORTEST_DELAY else 0.0


def share(ready: int, workers: int, mean_seconds: float | None) -> int:
    """The most that one worker may get when `ready` jobs are left for `workers` workers:
    half of its even share, so that no worker idles at the end, but no less than is
    worth a hand-out."""
    least = 1 if mean_seconds is None else max(1, int(WORTH_HANDING / time_of(mean_seconds)))
    return max(least, -(-ready // (2 * max(1, workers))))


def even_share(jobs: int, workers: int) -> int:
    """How many of the last jobs, waiting and leased, a worker may hold, so that all end at the same time."""
    return -(-jobs // max(1, workers))


def is_behind(worker: WorkerState, workers: Iterable[WorkerState]) -> bool:
    """Whether another of the workers is idle or makes better progress than this one.

    If none does, the machine is overloaded or all run long jobs, and moving leases would not help.
    """
    return any(
        not other.leases or other.since > worker.since or other.begun > worker.begun + CLEARLY_LATER
        for other in workers
        if other.status == READY and other is not worker
    )
