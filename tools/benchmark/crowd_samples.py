"""Samples and rows of many workers, and of what a kill leaves behind."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.records import Leased, RunStarted
from supervisor.storage.journal.journal_format import decode_record
from tools.benchmark.child_processes import Bench, Failed, Numbers, end, start
from tools.benchmark.row import Row, number, row
from tools.kill_and_count import finished_again

PROGRAM = "crowd_program.py"
TRIES = 5  # to kill it in time
LEAST_TO_KILL = 20_000  # jobs
WORTH_KILLING = 0.2  # share of the tiny jobs that have ended when the kill comes


def _workers(bench: Bench, contender: str) -> Numbers:
    workers, each = bench.sizes.crowd
    return bench.child(PROGRAM, "workers", json.dumps({**_with_lock(bench, workers), "each": each}))


def _start(bench: Bench, contender: str) -> Numbers:
    return bench.child(PROGRAM, "start", json.dumps(_with_lock(bench, bench.sizes.crowd_start)))


def _with_lock(bench: Bench, workers: int) -> dict[str, Any]:
    place = bench.place()
    return {"output": place, "workers": workers, "lock": str(Path(place, "lock"))}


def _tiny_killed(bench: Bench, contender: str) -> Numbers:
    """Kill the supervisor of no-op jobs, resume, and read from the journal how long the jobs that were open were
    handed out apart from the others."""
    for _ in range(TRIES):
        keywords = {"output": bench.place(), "jobs": max(LEAST_TO_KILL, bench.sizes.tiny), "resume": False}
        if _killed_in_time(keywords):
            bench.child(PROGRAM, "tiny", json.dumps({**keywords, "resume": True}))
            return suspects_in(_journal(str(keywords["output"]))[0])
    raise Failed(f"the jobs had ended before the kill, {TRIES} times")


def _killed_in_time(keywords: dict[str, Any]) -> bool:
    with open(os.devnull, "w") as nowhere:
        process = start(PROGRAM, "tiny", json.dumps(keywords), stderr=nowhere)
        try:
            while _ended(keywords["output"]) < WORTH_KILLING * keywords["jobs"]:
                if process.poll() is not None:
                    return False
                time.sleep(0.01)
            return True
        finally:
            end(process)


def _journal(place: str) -> list[Path]:
    return list(Path(place).glob("**/journal_*.jsonl"))


def _ended(place: str) -> int:
    return sum(path.read_bytes().count(b'"ended"') for path in _journal(place))


def suspects_in(journal: Path) -> Numbers:
    """Of the last run in a journal: jobs that the run before had left open, messages in which they were handed out
    again, and seconds from the first to the last of these."""
    table = JobTable()
    suspects: set[str] = set()
    times: list[str] = []
    for line in journal.read_bytes().splitlines()[1:]:
        record = decode_record(line)
        if isinstance(record, RunStarted):
            suspects = {table.ids[job] for held in table.open_leases.values() for job in held.values()}
            table.open_leases.clear()
            times.clear()
        elif isinstance(record, Leased) and not suspects.isdisjoint(record.jobs):
            times.append(record.at)
        if record is not None:
            table.apply(record)
    seconds = (_time(times[-1]) - _time(times[0])) if times else 0.0
    return {"seconds": seconds, "jobs": len(suspects), "messages": len(times)}


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _unread(bench: Bench, contender: str) -> Numbers:
    """`tools/kill_and_count.py`: how many of 300 finished jobs of 50 ms run again."""
    rounds = bench.sizes.kills
    again = [finished_again(300, 0.05, kill_after=0.2 + 0.6 * number / rounds) for number in range(rounds)]
    return {"mean": sum(again) / rounds, "most": max(again)}


CROWD: dict[str, Callable[[Bench, str], Numbers]] = {
    "workers": _workers,
    "workers_start": _start,
    "tiny_killed": _tiny_killed,
    "unread": _unread,
}

CROWD_ROWS: tuple[Row, ...] = (
    row(
        "workers",
        "many workers",
        "1,000 local workers, jobs that sleep for 1 s: the supervisor's CPU for each, without the start",
        (150, 50, "µs"),
        ("longhaul/workers",),
        number("longhaul/workers", "each_us", "{rate:,.0f} outcomes/s"),
    ),
    row(
        "workers:start",
        "start of many",
        "`workers=256`: from the order until all are ready",
        (1.0, 0.4, "s"),
        ("longhaul/workers_start",),
        number("longhaul/workers_start", "seconds", "{cpu:.2f} s of CPU in the supervisor"),
    ),
    row(
        "killed:tiny",
        "after a kill of tiny jobs",
        "200,000 no-op jobs, `kill -9` of the supervisor: how long the resume hands out by themselves what was open",
        (0.3, 0.1, "s"),
        ("longhaul/tiny_killed",),
        number("longhaul/tiny_killed", "seconds", "{jobs:,.0f} jobs in {messages:,.0f} messages"),
    ),
    row(
        "killed:unread",
        "unread outcomes",
        "300 jobs of 50 ms, two workers, `kill -9` of the supervisor: finished jobs that run again",
        (1.0, 0.2, "jobs"),
        ("longhaul/unread",),
        number("longhaul/unread", "mean", "{most:.0f} at most"),
    ),
)
