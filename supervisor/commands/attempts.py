"""All attempts of all jobs, with worker, times and peak memory, from the records of a journal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from supervisor.core.state.open_leases import OpenLeases
from supervisor.core.terms.code_spans import CodeSpans
from supervisor.core.terms.records import (
    AnyRecord,
    Ended,
    Leased,
    Noted,
    Returned,
    RunStarted,
    Sampled,
    WorkerEnded,
    WorkerStarted,
)

SAMPLE, MARK, DEATH = "sample", "mark", "death"


class Attempt(msgspec.Struct, kw_only=True):
    """One start of a job. Times are ISO 8601 UTC, "" if unknown.

    outcome: as recorded; `running` if it has not ended; `superseded` if the result of
    another lease had come before. state: what became of the job by it. peak_rss: bytes.
    peak_from: SAMPLE, the most that was measured while it ran; MARK, the high-water mark of its
    worker, which rose by this job; DEATH, what was known of its worker when that died with it.
    peak_at: when the largest sample was taken, or when the worker died.
    """

    job: str
    attempt: int
    outcome: str
    run: int
    worker: int | None = None
    pid: int | None = None
    lease: int = 0
    handed_out: str = ""
    started: str = ""
    ended: str = ""
    seconds: float | None = None
    state: str = ""
    peak_rss: int | None = None
    peak_at: str = ""
    peak_from: str = ""
    printed: int = 0  # bytes
    error: dict[str, Any] | None = None
    code: str | None = None  # the version of the code that it ran
    result: msgspec.Raw | None = None  # JSON, if it completed
    nonfinite: list[tuple[str, str]] = []  # where that has null for NaN or an infinity
    given: dict[str, Any] | msgspec.UnsetType = (
        msgspec.UNSET
    )  # what it might use (`terms.needs.given`), if it said
    place: str | msgspec.UnsetType = msgspec.UNSET  # the node that it ran on, if there were any


class _AttemptLease(msgspec.Struct):
    job: str
    worker: int
    pid: int
    at: str
    run: int
    given: dict[str, Any]
    place: str
    peak_rss: int = 0
    peak_at: str = ""


class Attempts:
    """Feed it all records with `apply`; it calls `ended(attempt)` for each attempt.

    Afterwards `running` has the attempts that have not ended.
    """

    def __init__(self, ended: Callable[[Attempt], None]) -> None:
        self._ended = ended
        self._run = 0
        self._open: OpenLeases[_AttemptLease] = OpenLeases()
        self._stale: dict[int, _AttemptLease] = {}  # of killed runs; the journal may still have their ends
        self._pids: dict[int, int] = {}
        self._slots: dict[int, int] = {}  # the incarnation that a slot has now
        self._codes = CodeSpans()

    def apply(self, record: AnyRecord) -> None:
        kind = type(record)
        if kind is Ended:
            self._end(record)  # type: ignore[arg-type]
        elif isinstance(record, Leased):
            pid = self._pids.get(record.incarnation, 0)
            known = (record.worker, pid, record.at, self._run, record.given, record.place)
            self._open.hand_out(record, (_AttemptLease(job, *known) for job in record.jobs))
        elif isinstance(record, Returned):
            self._open.give_back(record)
        elif isinstance(record, Sampled):
            self._measure(record)
        elif isinstance(record, WorkerStarted):
            self._pids[record.incarnation] = record.pid
            self._slots[record.worker] = record.incarnation
        elif isinstance(record, WorkerEnded):
            self._open.pop(record.incarnation, None)
        elif isinstance(record, RunStarted):
            self._run, self._codes = record.run, CodeSpans(record.codes)
            for leases in self._open.values():
                self._stale.update(leases)
            self._open.clear()
            self._slots.clear()
        elif isinstance(record, Noted) and record.what == "superseded":
            self._supersede(record)

    def _measure(self, record: Sampled) -> None:
        for slot, rss in record.rss.items():
            leases = self._open.get(self._slots.get(int(slot), -1))
            lease = next(iter(leases.values())) if leases else None
            if lease is not None and rss > lease.peak_rss:
                lease.peak_rss, lease.peak_at = rss, record.at

    def _take(self, number: int) -> _AttemptLease | None:
        return self._open.close(number) or self._stale.pop(number, None)

    def _end(self, record: Ended) -> None:
        lease = self._take(record.lease)
        error = record.error
        attempt = Attempt(
            job=record.job,
            attempt=record.attempt,
            outcome=record.outcome,
            run=self._run if lease is None else lease.run,
            lease=record.lease,
            worker=None if record.worker < 0 else record.worker,
            started=_before(record.at, record.seconds),
            ended=record.at,
            seconds=record.seconds,
            state=record.state,
            printed=record.output,
            error=error,
            code=self._codes.version(record.lease),
            result=record.result or None,
            nonfinite=record.nonfinite,
        )
        if lease is not None:
            attempt.worker, attempt.pid, attempt.handed_out = lease.worker, lease.pid or None, lease.at
            attempt.given, attempt.place = lease.given or msgspec.UNSET, lease.place or msgspec.UNSET
            _sampled(attempt, lease)
        if record.outcome == "lost":  # its duration and end are unknown
            attempt.started, attempt.ended, attempt.seconds = attempt.handed_out, "", None
        at_death = (error or {}).get("peak_rss")
        if isinstance(at_death, int) and at_death > (attempt.peak_rss or 0):
            attempt.peak_rss, attempt.peak_at, attempt.peak_from = at_death, record.at, DEATH
        self._ended(attempt)

    def _supersede(self, record: Noted) -> None:
        detail = record.detail
        number = detail.get("lease", 0)
        lease = self._take(number)
        self._ended(
            Attempt(
                job=detail.get("job", ""),
                attempt=0,
                outcome=f"{detail.get('outcome', '')} (superseded)".strip(),
                run=self._run,
                lease=number,
                worker=detail.get("worker"),
                pid=lease.pid or None if lease else None,
                handed_out=lease.at if lease else "",
                given=(lease.given if lease else {}) or msgspec.UNSET,
                place=(lease.place if lease else "") or msgspec.UNSET,
                ended=record.at,
                error=detail.get("error"),
                code=self._codes.version(number),
            )
        )

    def running(self) -> list[Attempt]:
        """The first open lease of each worker of the last run: what ran when it was written."""
        attempts = []
        for number, lease in self._open.running():
            attempt = Attempt(
                job=lease.job,
                attempt=0,
                outcome="running",
                run=lease.run,
                worker=lease.worker,
                pid=lease.pid or None,
                lease=number,
                handed_out=lease.at,
                given=lease.given or msgspec.UNSET,
                place=lease.place or msgspec.UNSET,
                code=self._codes.version(number),
            )
            _sampled(attempt, lease)
            attempts.append(attempt)
        return attempts


def _sampled(attempt: Attempt, lease: _AttemptLease) -> None:
    if lease.peak_rss:
        attempt.peak_rss, attempt.peak_at, attempt.peak_from = lease.peak_rss, lease.peak_at, SAMPLE


def take_mark(attempt: Attempt, marks: Mapping[int, int]) -> None:
    """`marks`: high-water marks in bytes, by the lease of the job by which the worker had it."""
    mark = marks.get(attempt.lease, 0)
    if mark > (attempt.peak_rss or 0):
        attempt.peak_rss, attempt.peak_from = mark, MARK


def _before(at: str, seconds: float) -> str:
    try:
        then = datetime.fromisoformat(at) - timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        return ""
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")
