"""The records of the journal: one fact each. Pure; the bytes are made in `storage.journal`.

A line of the journal is a JSON object: `n` first, then `type`, the fields below, and
`crc` last. `at` is ISO 8601 UTC with milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from supervisor.core.terms.code_spans import CodeSpan
from workers.transport.messages import CompletedWith

LOW_MEMORY = "low_memory"  # why nothing is handed out

BY_HAND = "user"  # why nothing is handed out, in Paused and Unpaused

NOTHING_MORE = CompletedWith(0, 0.0, b"")  # a completion with nothing but a result

NO_RESULT = msgspec.Raw()  # empty: false, and left out of the line


class Record(msgspec.Struct, tag_field="type", omit_defaults=True):
    """Base of all records."""


class Opened(Record, tag="opened"):
    """First line of a journal file."""

    format: str
    experiment_id: str
    name: str
    uuid: str
    generation: int
    at: str


class RunStarted(Record, tag="run_started"):
    """A supervisor took the experiment over. Leases left open by earlier runs are void."""

    run: int
    at: str
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    argv: list[str] = []
    host: str = ""
    pid: int = 0
    boot_id: str = ""
    process_start: float = 0.0
    versions: dict[str, str] = {}
    code: dict[str, Any] = {}  # see provenance.code_of
    codes: list[CodeSpan] = []  # which code the results so far are of, and those from here on
    accepted: list[str] = []  # versions whose results the user says are as good as those of this one
    entry: dict[str, Any] = {}  # where a replay finds function and setup: see provenance.entry_of
    jobs: int = 0
    offered: int = 0  # that the script has; more than `jobs` with one per domain
    told: list[str] = []  # kinds of converted result values that were reported so far in the experiment
    chosen: int = 0  # that this run may hand out (--only), finished ones included
    cores: int = 0  # usable ones; these two are 0 in the records of older versions
    nodes: bool = False  # whether this run or an earlier one was on several nodes: `Leased` may name them


class WorkerStarted(Record, tag="worker_started"):
    """boot_id: where its pid is valid, "" if that is where the supervisor runs. outlives: seconds for which it may live
    on there after the supervisor is gone, or cannot be heard."""

    worker: int
    incarnation: int
    pid: int
    at: str
    process_start: float = 0.0  # seconds since the epoch, as psutil gives it
    boot_id: str = ""
    outlives: float = 0.0


class WorkerEnded(Record, tag="worker_ended"):
    """`why`: finished, crashed, killed, replaced, never_ready; lost: an earlier run had left it on another host. Its
    open leases are void."""

    worker: int
    incarnation: int
    why: str
    at: str
    pid: int = 0
    exit_code: int | None = None
    signal: int | None = None
    peak_rss: int | None = None  # bytes
    error: str = ""
    peak_lease: int | None = None  # of the job that had so much, if it was one before the last


class Leased(Record, tag="leased"):
    """Jobs handed to a worker; lease i has number `lease + i`. Written before it is sent.

    given: what each of them may use (`terms.needs.given`); absent for jobs that said nothing.
    place: the name of the node where it runs; absent on the machine of the supervisor alone.
    """

    worker: int
    incarnation: int
    lease: int
    jobs: list[str]
    at: str
    given: dict[str, Any] = {}
    place: str = ""


class Returned(Record, tag="returned"):
    """These leases were revoked or given back before they started."""

    incarnation: int
    leases: list[int]
    at: str


class Ended(Record, tag="ended"):
    """An attempt ended.

    `state` is what became of the job: completed, failed, in_progress (to run again after
    an interruption), pending (to run again after an error), or "" if the lease had been
    superseded, in which case the record is evidence only and charges nothing.
    """

    job: str
    attempt: int
    lease: int
    outcome: str
    state: str
    seconds: float
    worker: int
    at: str
    result: msgspec.Raw = NO_RESULT  # JSON; only when completed
    error: dict[str, Any] | None = None  # outcome, type, message, traceback, ...
    nonfinite: list[tuple[str, str]] = []
    output: int = 0  # bytes printed
    charged: str = ""  # whose budget, if not that of the outcome: "asked" (workers.Retry)


class Completions(msgspec.Struct, gc=False):
    """Many `Ended` records of completed jobs, in columns. Each becomes a line of its own in the journal, but is
    never an object of its own.

    jobs: numbers. results: JSON. more: by index, of the few completions with more than a result. workers: by index;
    empty if all are of `worker`.
    """

    worker: int
    at: str
    jobs: Sequence[int]
    ids: list[str]
    attempts: list[int]
    seconds: list[float]
    results: list[bytes]
    leases: list[int]
    more: dict[int, CompletedWith] = {}
    workers: list[int] = []

    def __len__(self) -> int:
        return len(self.jobs)

    def each(self) -> Iterator[Ended]:
        """The `Ended` records that these columns stand for."""
        rows = zip(self.ids, self.attempts, self.seconds, self.leases, self.results, strict=True)
        for place, (job_id, attempt, seconds, lease, result) in enumerate(rows):
            more = self.more.get(place, NOTHING_MORE)
            yield Ended(
                job=job_id,
                attempt=attempt,
                lease=lease,
                outcome="completed",
                state="completed",
                seconds=seconds,
                worker=self.workers[place] if self.workers else self.worker,
                at=self.at,
                result=msgspec.Raw(result),
                nonfinite=more.nonfinite,
                output=more.output,
            )


class Reset(Record, tag="reset"):
    """Jobs made pending again: "retry" (failed ones, on resume), "rerun" (by name),
    "changed" (parameters changed, --changed rerun), "gap" (its record was lost)."""

    jobs: list[str]
    why: Literal["retry", "rerun", "changed", "gap"]
    at: str


class Carried(Record, tag="carried"):
    """Budget and history of a job, carried into a new generation of the journal."""

    job: str
    attempts: int
    state: str
    crashes: int = 0
    losses: int = 0
    errors: int = 0
    timeouts: int = 0
    over_memory: int = 0
    asked: int = 0


class CarriedRun(Record, tag="carried_run"):
    """Counters and sums of the whole experiment, carried into a new generation."""

    run: int
    next_lease: int
    next_incarnation: int
    statistics: dict[str, Any]
    at: str


class Paused(Record, tag="paused"):
    """Nothing is handed out: no_space, disk_stalled, low_memory, suspended, stopped, user."""

    why: str
    at: str
    detail: str = ""


class Unpaused(Record, tag="unpaused"):
    why: str
    at: str
    seconds: float = 0.0


class Sampled(Record, tag="sampled"):
    """A sample of resource use: RSS in bytes and CPU in percent, by worker slot; bytes that the machine has left (0 if
    unknown, and in the records of older versions)."""

    at: str
    rss: dict[str, int]
    cpu: dict[str, float]
    free: int = 0


class Noted(Record, tag="noted"):
    """Any other incident that a reader of the journal should know; `what` says which kind."""

    what: str
    at: str
    detail: dict[str, Any] = {}


class RunEnded(Record, tag="run_ended"):
    """`state`: finished, unfinished (what --only chose and can run is done, other jobs are left), interrupted,
    stopped."""

    run: int
    state: str
    at: str
    exit_code: int = 0
    signal: int | None = None
    wall_seconds: float = 0.0


AnyRecord = (
    Opened
    | RunStarted
    | WorkerStarted
    | WorkerEnded
    | Leased
    | Returned
    | Ended
    | Reset
    | Carried
    | CarriedRun
    | Paused
    | Unpaused
    | Sampled
    | Noted
    | RunEnded
)

Records = Sequence[AnyRecord | Completions]


def lines_in(records: Records) -> int:
    """How many lines of the journal these are."""
    return sum([len(record) if isinstance(record, Completions) else 1 for record in records])
