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
MOST_MARKS = 2_000  # of one kind, and pauses

# What became of an attempt, as a number that takes little room in a page.
COMPLETED, FAILED, AGAIN, INTERRUPTED, LOST, RUNNING = range(6)
OUTCOMES = ("completed", "failed", "failed, ran again", "interrupted", "lost with its run", "running")

_FAILURES = frozenset((FAILED, AGAIN))

_NOT_BY_ITSELF = ("interrupted", "lost")

_MOST_HELD = 5_000  # ends of one worker that wait to be placed


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


class _Held:
    """Ends of one worker that are not placed yet, in columns. `ats` are as recorded."""

    __slots__ = ("ats", "jobs", "outcomes", "seconds")

    def __init__(self) -> None:
        self.ats: list[str] = []
        self.jobs: list[str] = []
        self.seconds: list[float] = []
        self.outcomes: list[int] = []


class Timeline:
    """Feed it lines with `take`, then call `finish`.

    Attributes
    ----------
    runs, pauses, marks, samples: see there. attempts: None if there are more than `MOST_ATTEMPTS`.
    more_marks: how many marks of a kind are left out.
    ended, failed: attempts, of all runs together. first, last: of all times, None if there is none.
    rewritten: when the journal was written anew, with nothing of earlier runs but the last attempt of each
    finished job; None if it never was.
    unread: lines that this version cannot read. nodes: by slot, of a run on several nodes.
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
        self.nodes: dict[int, str] = {}
        self._most_attempts = most_attempts
        self._held: dict[int, _Held] = {}
        self._free_since: dict[int, float] = {}  # when a slot's last attempt ended
        self._leased = array("Q"), array("d"), array("i")  # of each hand-out: first lease, when, slot
        self._minutes: dict[str, float] = {}
        self._last_at = "", 0.0
        self._marked: dict[str, int] = {}

    # ------------------------------------------------------------------------- lines

    def take(
        self,
        heads: Sequence[Any],
        lines: Sequence[bytes],
        decode: Callable[[bytes], AnyRecord | None],
        bad_end: Callable[[Any, bytes], None] | None = None,
    ) -> None:
        """heads, lines: of a follower. decode: makes the record of a line, for kinds that are rare. bad_end: is called
        with head and line of each attempt that did not complete."""
        held_of = self._held
        for head, line in zip(heads, lines, strict=True):
            if head is None:
                self.unread += 1
            elif head.type == "ended":
                outcome, slot = COMPLETED, head.worker
                if head.outcome != "completed":
                    outcome = self._bad_outcome(head)
                    if bad_end is not None:
                        bad_end(head, line)
                    if outcome == LOST or slot < 0:
                        self.ended += 1
                        self.failed += outcome in _FAILURES
                        continue
                held = held_of.get(slot)
                if held is None:
                    held = held_of[slot] = _Held()
                held.ats.append(head.at)
                held.jobs.append(head.job)
                held.seconds.append(head.seconds)
                held.outcomes.append(outcome)
            elif head.type == "leased":
                self._note_hand_out(head)
            elif (handler := _HANDLERS.get(head.type)) is not None:
                record = decode(line)
                if record is None:
                    self.unread += 1
                else:
                    handler(self, record)
        for slot, held in held_of.items():
            if len(held.ats) > _MOST_HELD:
                self._place(slot, held, whole=False)

    def _seconds(self, at: str) -> float:
        """Seconds since the epoch of a record's time; the last known time if it cannot be read."""
        if at == self._last_at[0]:  # what follows from one message has one time
            return self._last_at[1]
        minute = self._minutes.get(at[:16])
        if minute is None:
            try:
                minute = datetime.fromisoformat(f"{at[:16]}+00:00").timestamp()
            except ValueError:
                return self.last or 0.0
            self._minutes[at[:16]] = minute
        try:
            known = minute + float(at[17:].rstrip("Z"))
        except ValueError:
            return self.last or 0.0
        if self.last is None or known > self.last:
            self.last = known
        if self.first is None or known < self.first:
            self.first = known
        self._last_at = at, known
        return known

    def _note_hand_out(self, head: Any) -> None:
        leases, times, slots = self._leased
        if head.place:
            self.nodes[head.worker] = head.place
        if (
            not leases or head.lease > leases[-1]
        ):  # else of a journal that was written anew: they are searched in order
            leases.append(head.lease)
            times.append(self._touch(head.at))
            slots.append(head.worker)

    def _bad_outcome(self, head: Any) -> int:
        if head.outcome == "lost":
            self._lost(head)
            return LOST
        if head.outcome in _NOT_BY_ITSELF or not head.state:
            return INTERRUPTED
        return FAILED if head.state == "failed" else AGAIN

    def _lost(self, head: Any) -> None:
        """An attempt that ran when its run died: from its hand-out to the last thing known of that run."""
        ended_runs = [run for run in self.runs[:-1] if run.start is not None] or self.runs[:1]
        given = self._hand_out(head.lease)
        if given is None or not ended_runs:
            return
        handed_out, slot = given
        end = ended_runs[-1].end
        if handed_out > end:  # of this very run: its node was lost
            end = self._seconds(head.at)
        start = max(handed_out, self._free_since.get(slot, 0.0))
        if slot >= 0 and start <= end:
            self._add(slot, start, end, LOST, head.job)
            self.bins.busy(slot, start, end)

    def _hand_out(self, lease: int) -> tuple[float, int] | None:
        """When a lease was given, and to which slot; None if that line is gone."""
        leases, times, slots = self._leased
        index = bisect_right(leases, lease) - 1
        return (times[index], slots[index]) if index >= 0 else None

    def running(self, slot: int, lease: int, job: str, now: float) -> None:
        """An attempt that has not ended: it lasts from its hand-out until `now`. Call it after `finish`."""
        given = self._hand_out(lease)
        start = max(now if given is None else given[0], self._free_since.get(slot, 0.0))
        if start <= now:
            self._add(slot, start, now, RUNNING, job)
            self.bins.busy(slot, start, now)

    def _place(self, slot: int, held: _Held, *, whole: bool = True) -> None:
        """Stack the ends backwards from when they came. Those that came last may have more to come with them: they
        stay if it is not the `whole`."""
        ats, number = held.ats, len(held.ats)
        if not whole:
            while number and ats[number - 1] == ats[-1]:
                number -= 1
        if not number:
            return
        seconds, outcomes = held.seconds[:number], held.outcomes[:number]
        ends = self._ends(ats[:number], seconds)
        self.ended += number
        bad = [0] * number
        if any(outcomes):
            bad = [outcome in _FAILURES for outcome in outcomes]
            self.failed += sum(bad)
        self.bins.add_batch(slot, ends, seconds, bad)
        self._free_since[slot] = ends[-1]
        if self.runs:
            self.runs[-1].end = max(self.runs[-1].end, ends[-1])
        if self.attempts is not None:
            for job, end, took, outcome in zip(held.jobs, ends, seconds, outcomes, strict=False):
                self._add(slot, end - took, end, outcome, job)
        for column in (held.ats, held.jobs, held.seconds, held.outcomes):
            del column[:number]

    def _ends(self, ats: Sequence[str], seconds: Sequence[float]) -> list[float]:
        """When each of these attempts of one worker ended."""
        ends: list[float] = []
        before, end, took = "", 0.0, 0.0
        for at, each in zip(reversed(ats), reversed(seconds), strict=True):
            end = end - took if at == before else self._seconds(at)
            before, took = at, each
            ends.append(end)
        ends.reverse()
        return ends

    def _add(self, slot: int, start: float, end: float, outcome: int, job: str) -> None:
        if self.attempts is None:
            return
        if len(self.attempts) >= self._most_attempts:
            self.attempts = None
            return
        self.attempts.append(PlacedAttempt(slot, start, end, outcome, job))

    def finish(self) -> None:
        """Place what is still held. More lines may follow later."""
        for slot, held in self._held.items():
            self._place(slot, held)

    # ----------------------------------------------------------------------- records

    def _mark(self, kind: str, at: float, text: str, slot: int = -1) -> None:
        self._marked[kind] = self._marked.get(kind, 0) + 1
        if self._marked[kind] > MOST_MARKS:
            self.more_marks[kind] = self.more_marks.get(kind, 0) + 1
            return
        self.marks.append(Mark(kind, at, text, slot))

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
        at = self._touch(record.at)
        if len(self.pauses) < MOST_MARKS:
            self.pauses.append(Pause(record.why, at, None, record.detail))
        else:
            self.more_marks["pause"] = self.more_marks.get("pause", 0) + 1

    def _apply_unpaused(self, record: Unpaused) -> None:
        at = self._touch(record.at)
        for pause in reversed(self.pauses):
            if pause.why == record.why and pause.end is None:
                pause.end = at
                return
        if len(self.pauses) < MOST_MARKS:
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
            by = f"by the {detail['by']}: " if detail.get("by") else "longhaul ctl "
            self._mark("order", at, f"{by}{order}: {what}".strip(": "))
        elif record.what == "drain":
            why = ", ".join(_reasons(detail))
            self._mark("drain", at, f"no new jobs from here on: {why}" if why else "no new jobs from here on")
        elif record.what in _NOTED:
            kind, words = _NOTED[record.what]
            self._mark(kind, at, f"{words}: {detail.get('job', '')}".strip(": "))


def _reasons(detail: dict[str, Any]) -> list[str]:
    if "control" not in detail:
        return [_reason(key, value) for key, value in detail.items()]
    order = (
        f"{detail['control']} by the {detail['by']}"
        if detail.get("by")
        else f"longhaul ctl {detail['control']}"
    )
    return [order, *(_reason(key, value) for key, value in detail.items() if key not in ("control", "by"))]


def _reason(key: str, value: Any) -> str:
    if key == "signal" and isinstance(value, int):
        return signal_name(value)
    return key.replace("_", " ") if value is True else f"{key.replace('_', ' ')} {value}"


_NOTED = {
    "stopped_for_memory": ("memory", "stopped because memory was short"),
    "memory_left_behind": ("memory", "run again in a fresh worker, for the memory that jobs before had left"),
    "stalled": ("stall", "used no CPU for long"),
}

_HANDLERS: dict[str, Callable[[Timeline, Any], None]] = {
    "run_started": Timeline._apply_run_started,
    "run_ended": Timeline._apply_run_ended,
    "carried_run": Timeline._apply_carried_run,
    "paused": Timeline._apply_paused,
    "unpaused": Timeline._apply_unpaused,
    "sampled": Timeline._apply_sampled,
    "worker_ended": Timeline._apply_worker_ended,
    "noted": Timeline._apply_noted,
}
