"""How it is going right now, for other programs to look at: one small JSON document.

Replaced whole (on a full disk written over), never synced: it is worth nothing after a power
cut. A failure to write it is no reason to end a run.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from supervisor.core.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, Counts
from supervisor.core.snapshot import FailureSnapshot, RunSnapshot
from supervisor.core.table import JobTable
from supervisor.records.disk import Disk
from supervisor.records.files import NO_SPACE, resolved, utc_now, write_atomically
from supervisor.records.layout import Layout

# What a reader is told of states that only the end of a run knows.
_STATES = {"stopped": "interrupted"}
_BLOCK = 8192
_BUDGET = 0.004  # seconds for counting domains, per write


class ProgressFile:
    """Writes `progress_<id>.json`; the caller sees to it that this is once a second at most."""

    def __init__(self, layout: Layout, table: JobTable, disk: Disk | None = None) -> None:
        self._path = layout.progress
        self._disk = disk or Disk()
        self._domains = _DomainCounts(table)
        self._table = table
        self._supervisor = {"pid": os.getpid(), "host": socket.gethostname()}

    def write(self, snapshot: RunSnapshot, failures: Sequence[FailureSnapshot]) -> bool:
        """False if the file could not be written."""
        document = {
            "experiment_id": snapshot.experiment_id,
            "name": snapshot.name,
            "state": _STATES.get(snapshot.state, snapshot.state),
            "saved_at": utc_now(),
            "counts": snapshot.counts,
            "gone": snapshot.gone,
            "domains": self._domains.counted(self._running(snapshot)),
            "rate": snapshot.rate,
            "eta_seconds": snapshot.eta_seconds,
            "elapsed_seconds": snapshot.elapsed,
            "waiting_for": snapshot.waiting_for,
            "supervisor": self._supervisor,
            "workers": [_worker(worker) for worker in msgspec.to_builtins(snapshot.workers)],
            "recent_failures": failures,
        }
        try:
            text = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
            self._replace(text)
        except (OSError, UnicodeEncodeError):
            return False
        return True

    def _replace(self, text: bytes) -> None:
        try:
            write_atomically(self._disk, self._path, [text], durable=False)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._write_over(text)

    def _write_over(self, text: bytes) -> None:
        """A full disk has no room for a second file, and that is just what is to be told: the
        old one is written over, within the blocks that it has. One call, so that a reader sees
        no half document; what is left of a longer one is blanked out."""
        fd = self._disk.open(resolved(self._path), os.O_WRONLY)
        try:
            if len(text) > os.fstat(fd).st_blocks * 512:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._disk.write(fd, text.rstrip(b"\n").ljust(self._disk.size(fd) - 1) + b"\n")
        finally:
            self._disk.close(fd)

    def _running(self, snapshot: RunSnapshot) -> set[int]:
        numbers = self._table.numbers
        return {numbers[worker.job] for worker in snapshot.workers if worker.job in numbers}


def _worker(worker: dict[str, object]) -> dict[str, object]:
    keys = ("worker", "pid", "incarnation", "status", "job", "attempt", "since", "rss_bytes", "cpu_percent")
    more = ("fraction", "metrics", "slow") if worker["job"] is not None else ()
    return {key: worker[key] for key in (*keys, *more)}


class _DomainCounts:
    """Counts by domain, a few milliseconds at a time.

    Some ten thousand jobs are counted at once; of a million, the counts are some seconds
    old, and the loop does not stand still for them.
    """

    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._last: dict[str, Counts] = {}
        self._sweep: Iterator[None] | None = None
        self._running: set[int] = set()

    def counted(self, running: set[int]) -> dict[str, Counts]:
        if self._sweep is None:
            self._running = running
            self._sweep = self._count()
        end = time.perf_counter() + _BUDGET
        for _ in self._sweep:
            if time.perf_counter() >= end:
                return self._last
        self._sweep = None
        return self._last

    def _count(self) -> Iterator[None]:
        table, running = self._table, self._running
        tally: Counter[tuple[int, int, int]] = Counter()
        for start in range(0, len(table), _BLOCK):
            block = slice(start, start + _BLOCK)
            tally.update(zip(table.domain_of[block], table.state[block], table.wanted[block], strict=True))
            yield
        counts = [Counts() for _ in table.domains]
        for (domain, state, wanted), number in tally.items():
            if wanted:
                _add(counts[domain], state, number)
        for job in running:
            if table.state[job] == LEASED and table.wanted[job]:
                _add(counts[table.domain_of[job]], INTERRUPTED, 1)
                _add(counts[table.domain_of[job]], LEASED, -1)
        named = zip(table.domains[1:], counts[1:], strict=True)
        self._last = {name: found for name, found in named if found.total}


def _add(counts: Counts, state: int, number: int) -> None:
    """A leased job that waits in a worker's queue is pending still."""
    counts.total += number
    if state == COMPLETED:
        counts.completed += number
    elif state == FAILED:
        counts.failed += number
    elif state == INTERRUPTED:
        counts.in_progress += number
    else:
        counts.pending += number
