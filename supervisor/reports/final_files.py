"""The final files, logs_final.json and statistics.json: streamed, so that never all results are in memory."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections import Counter
from itertools import accumulate, compress
from operator import and_
from typing import Any

import msgspec

from supervisor.core.state.domain_counts import DomainCounts
from supervisor.core.terms.errors import StorageError
from supervisor.reports.final_text import IS_COMPLETED
from supervisor.reports.report import Report
from supervisor.reports.result_reader import Results
from supervisor.storage.files.atomic_files import write_atomically
from supervisor.storage.files.disk import Disk
from supervisor.storage.store import Store
from supervisor.system.clock import utc_now

_FEW = 10_000  # different durations


# -------------------------------------------------------------------------- final files


def write_reports(store: Store, *, state: str) -> Report:
    """Write logs_final.json and statistics.json; the report. `state`: how the run ended.

    The store must not be released yet; the report can be read when it is.
    Raises StorageError.
    """
    report = Report(Results.of_store(store.parts))
    layout = store.layout
    disk = Disk()
    path = layout.final
    try:
        disk.make_directory(os.fspath(layout.results_directory))
        disk.sync_directory(os.fspath(layout.directory))  # the log may have made the folder, unsynced
        write_atomically(disk, path, report.final_text())
        path = layout.statistics
        text = msgspec.json.encode(statistics_document(report, state) | store.checkpoint_costs())
        write_atomically(disk, path, [msgspec.json.format(text, indent=1), b"\n"])
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. All results are safe in the journal "
            f"{layout.journal}; make room, then resume: it writes the final files again."
        ) from None
    return report


def statistics_document(report: Report, state: str) -> dict[str, Any]:
    """The content of statistics.json; of a report whose final text was made."""
    results, statistics = report._results, report.statistics
    table = results.table
    durations = _durations(results)
    domains: dict[str, Any] = {
        name: {**msgspec.structs.asdict(counts), "seconds": durations.get(name, _spread(array("d")))}
        for name, counts in DomainCounts(table).counted((), to_the_end=True).items()
    }
    active = statistics.active_seconds
    cores = _cores(results)
    capacity = active * cores
    return {
        "experiment_id": report.experiment_id,
        "name": report.name,
        "state": state,
        "saved_at": utc_now(),
        "counts": report.counts,
        "gone": table.gone(),
        "domains": domains,
        "seconds": durations[""],
        "wall_seconds": round(statistics.wall_seconds, 3),
        "active_seconds": round(active, 3),
        "busy_seconds": round(statistics.busy_seconds, 6),
        "paused_seconds": round(statistics.paused_seconds, 3),
        "jobs_per_second": statistics.outcomes / active if active > 0 else None,
        "cores": cores or None,
        "utilisation": min(1.0, statistics.busy_seconds / capacity) if capacity > 0 else None,
        "attempts": statistics.attempts,
        "crashes": statistics.crashes,
        "timeouts": statistics.timeouts,
        "over_memory": statistics.over_memory,
        "interrupted": statistics.interrupted,
        "lost": statistics.lost,
        "cancelled": statistics.cancelled,
        "retries": statistics.retries,
        "reruns": statistics.reruns,
        "runs": statistics.runs,
        "code": {code: count for code, count in report._codes.items() if code},
    }


def _cores(results: Results) -> int:
    """How many cores the last run could use. Older records do not have it: then as many as workers."""
    started = results.history.run_started
    if started is not None and started.cores:
        return started.cores
    workers = results.history.settings.get("workers")
    return workers if isinstance(workers, int) else 0


def _durations(results: Results) -> dict[str, dict[str, float | None]]:
    """How long completed jobs took, in seconds, by domain; under "" of all jobs."""
    table = results.table
    chosen: bytes | bytearray = table.state.translate(IS_COMPLETED)
    if table.gone():
        chosen = bytes(map(and_, chosen, table.wanted))
    if len(table.domains) == 1:
        whole = chosen.count(1) == len(chosen)
        return {"": _spread(table.seconds if whole else array("d", compress(table.seconds, chosen)))}
    found: dict[int, array[float]] = {}
    for domain, seconds in compress(zip(table.domain_of, table.seconds, strict=True), chosen):
        found.setdefault(domain, array("d")).append(seconds)
    everything = array("d")
    for durations in found.values():
        everything.extend(durations)
    named = {table.domains[domain]: _spread(durations) for domain, durations in found.items() if domain}
    return {**named, "": _spread(everything)}


def _spread(durations: array[float]) -> dict[str, float | None]:
    if not durations:
        return {"mean": None, "median": None, "p95": None, "max": None, "total": 0.0}
    ordered = _Ordered(durations)
    size, middle = len(durations), len(durations) // 2
    median = ordered[middle] if size % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    total = sum(durations)
    return {
        "mean": total / size,
        "median": median,
        "p95": ordered[-(-95 * size // 100) - 1],  # nearest rank
        "max": ordered[size - 1],
        "total": total,
    }


class _Ordered:
    """Durations by rank. They are whole microseconds, so a million short ones have few values
    among them; to count those takes a third of the time that sorting takes."""

    def __init__(self, durations: array[float]) -> None:
        found = _counted(durations)
        self._values = sorted(durations if found is None else found)
        self._ends = None if found is None else list(accumulate(map(found.__getitem__, self._values)))

    def __getitem__(self, rank: int) -> float:
        return self._values[rank if self._ends is None else bisect_right(self._ends, rank)]


def _counted(durations: array[float]) -> Counter[float] | None:
    """How many there are of each; None if there are many different ones."""
    found: Counter[float] = Counter()
    for start in range(0, len(durations), _FEW):
        found.update(durations[start : start + _FEW])
        if len(found) > _FEW:
            return None
    return found
