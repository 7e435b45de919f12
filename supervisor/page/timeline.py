"""What happened over time, from the lines of a journal as a follower gives them: runs, pauses, marks, samples of
memory, attempts, and bins of what each worker did. Pure: the times are those of the records.

All outcomes that came in one message share one `at`. Their ends are stacked backwards from there by their
durations, as the worker ran them one after the other.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from supervisor.core.terms.records import (
    AnyRecord,
    CarriedRun,
    Noted,
    Opened,
    Paused,
    RunEnded,
    RunStarted,
    Sampled,
    Unpaused,
    WorkerEnded,
)
from supervisor.core.terms.wording import signal_name
from supervisor.page.worker_bins import WorkerBins

MOST_ATTEMPTS = 20_000  # that are kept one by one; with more there are bins alone
MOST_MARKS = 2_000  # of one kind

# What became of an attempt, as a number that takes little room in a page.
COMPLETED, FAILED, AGAIN, INTERRUPTED, LOST, RUNNING = range(6)
OUTCOMES = ("completed", "failed", "failed, ran again", "interrupted", "lost with its run", "running")

_NOT_BY_ITSELF = ("interrupted", "lost")


class RecordedRun(msgspec.Struct):
    """One run. Times in seconds since the epoch. state: finished, unfinished, interrupted, stopped; rewritten
    if its lines are gone; "" if no end is recorded: it goes on, or died. start is None if that line is lost."""

    number: int
    start: float | None
    end: float
    state: str = ""
    host: str = ""
    pid: int = 0
    exit_code: int = 0


class Pause(msgspec.Struct):
    """Nothing was handed out. end is None if it did not end."""

    why: str
    start: float
    end: float | None = None
    detail: str = ""


class Mark(msgspec.Struct):
    """An event to be marked on the axis. kind: order, drain, worker, memory, stall, rewritten."""

    kind: str
    at: float
    text: str
    slot: int = -1


class MemorySample(msgspec.Struct):
    """rss: bytes by worker slot. free: bytes, 0 if it is not known."""

    at: float
    rss: dict[str, int]
    free: int = 0


class PlacedAttempt(msgspec.Struct, gc=False):
    """One attempt in its lane. Times in seconds since the epoch; `outcome` indexes `OUTCOMES`."""

    slot: int
    start: float
    end: float
    outcome: int
    job: str


class _Pending(msgspec.Struct, gc=False):
    """Ends of one worker that came together."""

    at: float
    jobs: list[str]
    seconds: list[float]
    outcomes: list[int]


class Timeline:
    """Feed it lines with `take`, then call `finish`.

    Attributes
    ----------
    runs, pauses, marks, samples: see there. attempts: None if there are more than `MOST_ATTEMPTS`.
    more_marks: how many marks of a kind are left out.
    ended, failed: attempts, of all runs together. first, last: of all times, None if there is none.
    rewritten: when the journal was written anew, with nothing of earlier runs but the last attempt of each
    finished job; None if it never was.
    unread: lines that this version cannot read.
    """

    def __init__(self, most_attempts: int = MOST_ATTEMPTS) -> None:
        self.bins = WorkerBins()
        self.runs: list[RecordedRun] = []
        self.pauses: list[Pause] = []
        self.marks: list[Mark] = []
        self.more_marks: dict[str, int] = {}
        self.samples: list[MemorySample] = []
        self.attempts: list[PlacedAttempt] | None = []
        self.ended = self.failed = 0
        self.first: float | None = None
        self.last: float | None = None
        self.rewritten: float | None = None
        self.unread = 0
        self.peaks: dict[int, int] = {}  # bytes, the largest of any worker in a slot
        self._most_attempts = most_attempts
        self._pending: dict[int, _Pending] = {}
        self._free_since: dict[int, float] = {}  # when a slot's last attempt ended
        self._leased = array("Q"), array("d")  # first lease of each hand-out, and when
        self._times: dict[str, float] = {}
        self._marked: dict[str, int] = {}

    # ------------------------------------------------------------------------- lines

    def take(
        self, heads: Sequence[Any], lines: Sequence[bytes], decode: Callable[[bytes], AnyRecord | None]
    ) -> None:
        """heads, lines: of a follower. decode: makes the record of a line, for kinds that are rare."""
        index, number = 0, len(heads)
        while index < number:
            head = heads[index]
            index += 1
            if head is None:
                self.unread += 1
            elif head.type == "ended":
                begun = index - 1
                worker, at = head.worker, head.at
                while index < number and (other := heads[index]) is not None:
                    if other.at != at or other.worker != worker or other.type != "ended":
                        break
                    index += 1
                self._ended(heads[begun:index])
            elif head.type == "leased":
                self._leased[0].append(head.lease)
                self._leased[1].append(self._seconds(head.at))
            elif (handler := _HANDLERS.get(head.type)) is not None:
                record = decode(lines[index - 1])
                if record is None:
                    self.unread += 1
                else:
                    handler(self, record)

    def _seconds(self, at: str) -> float:
        """Seconds since the epoch; times repeat, so the last ones are kept."""
        known = self._times.get(at)
        if known is None:
            try:
                known = datetime.fromisoformat(at).timestamp()
            except ValueError:
                known = self.last or 0.0
            if len(self._times) > 1000:
                self._times.clear()
            self._times[at] = known
            if known:
                self.first = known if self.first is None else min(self.first, known)
                self.last = known if self.last is None else max(self.last, known)
        return known

    def _ended(self, heads: Sequence[Any]) -> None:
        """Ends of one worker that came together."""
        at, slot = self._seconds(heads[0].at), heads[0].worker
        self.ended += len(heads)
        if self.runs and at > self.runs[-1].end:
            self.runs[-1].end = at
        outcomes = [
            COMPLETED if head.outcome == "completed" else self._bad_outcome(head, at) for head in heads
        ]
        self.failed += sum(1 for outcome in outcomes if outcome in (FAILED, AGAIN))
        if slot < 0 or (len(heads) == 1 and outcomes[0] == LOST):
            return
        pending = self._pending.get(slot)
        if pending is not None and pending.at != at:
            self._place(slot, pending)
            pending = None
        if pending is None:
            pending = self._pending[slot] = _Pending(at, [], [], [])
        pending.jobs += [head.job for head in heads]
        pending.seconds += [head.seconds for head in heads]
        pending.outcomes += outcomes

    def _bad_outcome(self, head: Any, at: float) -> int:
        if head.outcome == "lost":
            self._lost(head, at)
            return LOST
        if head.outcome in _NOT_BY_ITSELF or not head.state:
            return INTERRUPTED
        return FAILED if head.state == "failed" else AGAIN

    def _lost(self, head: Any, at: float) -> None:
        """An attempt that ran when its run died: from its hand-out to the last thing known of that run."""
        ended_runs = [run for run in self.runs[:-1] if run.start is not None] or self.runs[:1]
        if head.worker < 0 or not ended_runs:
            return
        end, handed_out = ended_runs[-1].end, self.handed_out(head.lease)
        if handed_out is not None and handed_out > end:  # of this very run: its node was lost
            end = at
        start = max(handed_out or end, self._free_since.get(head.worker, 0.0))
        if start <= end:
            self._add(head.worker, start, end, LOST, head.job)
            self.bins.busy(head.worker, start, end)
        self.bins.ended(head.worker, end, 1, 0)

    def handed_out(self, lease: int) -> float | None:
        """When a lease was given; None if that line is gone."""
        leases, times = self._leased
        index = bisect_right(leases, lease) - 1
        return times[index] if index >= 0 else None

    def running(self, slot: int, lease: int, job: str, now: float) -> None:
        """An attempt that has not ended: it lasts from its hand-out until `now`. Call it after `finish`."""
        start = max(self.handed_out(lease) or now, self._free_since.get(slot, 0.0))
        if start <= now:
            self._add(slot, start, now, RUNNING, job)
            self.bins.busy(slot, start, now)

    def _place(self, slot: int, pending: _Pending) -> None:
        """Stack the ends backwards from when they came."""
        end, total = pending.at, sum(pending.seconds)
        width = self.bins.width
        failed = sum(1 for outcome in pending.outcomes if outcome in (FAILED, AGAIN))
        if int((end - total) // width) == int(end // width) or total < width / 100:
            self.bins.ended(slot, end, len(pending.jobs), failed)
            self.bins.busy(slot, end - total, end)
        else:
            at = end
            rows = zip(reversed(pending.seconds), reversed(pending.outcomes), strict=True)
            for seconds, outcome in rows:
                self.bins.ended(slot, at, 1, outcome in (FAILED, AGAIN))
                self.bins.busy(slot, at - seconds, at)
                at -= seconds
        if self.attempts is not None:
            at = end - total
            for job, seconds, outcome in zip(pending.jobs, pending.seconds, pending.outcomes, strict=True):
                self._add(slot, at, at + seconds, outcome, job)
                at += seconds
        self._free_since[slot] = end

    def _add(self, slot: int, start: float, end: float, outcome: int, job: str) -> None:
        if self.attempts is None:
            return
        if len(self.attempts) >= self._most_attempts:
            self.attempts = None
            return
        self.attempts.append(PlacedAttempt(slot, start, end, outcome, job))

    def finish(self) -> None:
        """Place what is still held. More lines may follow later."""
        for slot, pending in self._pending.items():
            self._place(slot, pending)
        self._pending.clear()

    # ----------------------------------------------------------------------- records

    def _mark(self, kind: str, at: float, text: str, slot: int = -1) -> None:
        self._marked[kind] = self._marked.get(kind, 0) + 1
        if self._marked[kind] > MOST_MARKS:
            self.more_marks[kind] = self.more_marks.get(kind, 0) + 1
            return
        self.marks.append(Mark(kind, at, text, slot))

    def _apply_opened(self, record: Opened) -> None:
        self._seconds(record.at)

    def _apply_run_started(self, record: RunStarted) -> None:
        at = self._seconds(record.at)
        self.finish()
        for pause in self.pauses:  # of a run that died in it
            pause.end = pause.end if pause.end is not None else self.runs[-1].end if self.runs else at
        if self.runs and self.runs[-1].number == record.run:
            return
        self.runs.append(RecordedRun(record.run, at, at, host=record.host, pid=record.pid))

    def _apply_run_ended(self, record: RunEnded) -> None:
        at = self._seconds(record.at)
        if not self.runs:
            self.runs.append(RecordedRun(record.run, None, at))
        run = self.runs[-1]
        run.end, run.state, run.exit_code = max(run.end, at), record.state, record.exit_code
        for pause in self.pauses:
            pause.end = at if pause.end is None else pause.end

    def _apply_carried_run(self, record: CarriedRun) -> None:
        at = self._seconds(record.at)
        self.finish()
        self.rewritten = at
        if self.runs:
            self.runs[-1].state = self.runs[-1].state or "rewritten"
        words = "the journal was written anew after damage: of earlier attempts only the last of each "
        self._mark("rewritten", at, f"{words}finished job is left")

    def _apply_paused(self, record: Paused) -> None:
        self.pauses.append(Pause(record.why, self._seconds(record.at), None, record.detail))

    def _apply_unpaused(self, record: Unpaused) -> None:
        at = self._seconds(record.at)
        for pause in reversed(self.pauses):
            if pause.why == record.why and pause.end is None:
                pause.end = at
                return
        self.pauses.append(Pause(record.why, at - record.seconds, at))

    def _apply_sampled(self, record: Sampled) -> None:
        at = self._touch(record.at)
        self.samples.append(MemorySample(at, record.rss, record.free))
        for slot, rss in record.rss.items():
            self._peak(int(slot), rss)

    def _peak(self, slot: int, rss: int) -> None:
        self.peaks[slot] = max(self.peaks.get(slot, 0), rss)

    def _touch(self, at: str) -> float:
        seconds = self._seconds(at)
        if self.runs:
            self.runs[-1].end = max(self.runs[-1].end, seconds)
        return seconds

    def _apply_worker_ended(self, record: WorkerEnded) -> None:
        at = self._touch(record.at)
        if record.peak_rss:
            self._peak(record.worker, record.peak_rss)
        if record.why in ("finished", "replaced"):
            return
        how = f"exit code {record.exit_code}" if record.exit_code is not None else ""
        how = signal_name(record.signal) if record.signal is not None else how
        words = f"worker {record.worker} {record.why.replace('_', ' ')}"
        self._mark("worker", at, ": ".join(filter(None, [words, how])), record.worker)

    def _apply_noted(self, record: Noted) -> None:
        at = self._touch(record.at)
        detail = record.detail
        if record.what == "control":
            order, what = str(detail.get("order", "")), str(detail.get("what", ""))
            self._mark("order", at, f"longhaul ctl {order}: {what}".strip(": "))
        elif record.what == "drain":
            why = ", ".join(f"{key} {value}" for key, value in detail.items())
            self._mark("drain", at, f"no new jobs from here on: {why}" if why else "no new jobs from here on")
        elif record.what in _NOTED:
            kind, words = _NOTED[record.what]
            self._mark(kind, at, f"{words}: {detail.get('job', '')}".strip(": "))


_NOTED = {
    "stopped_for_memory": ("memory", "stopped because memory was short"),
    "memory_left_behind": ("memory", "run again in a fresh worker, for the memory that jobs before had left"),
    "stalled": ("stall", "used no CPU for long"),
}

_HANDLERS: dict[str, Callable[[Timeline, Any], None]] = {
    "opened": Timeline._apply_opened,
    "run_started": Timeline._apply_run_started,
    "run_ended": Timeline._apply_run_ended,
    "carried_run": Timeline._apply_carried_run,
    "paused": Timeline._apply_paused,
    "unpaused": Timeline._apply_unpaused,
    "sampled": Timeline._apply_sampled,
    "worker_ended": Timeline._apply_worker_ended,
    "noted": Timeline._apply_noted,
}
