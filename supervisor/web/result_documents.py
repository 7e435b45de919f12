"""Results as answers: columns with their values, points of one against another, and all rows as CSV."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec

from supervisor.commands.result_columns import Rows
from supervisor.commands.results import written
from supervisor.core.terms.errors import UsageError
from supervisor.page.typed_columns import Column, columns_of, is_param, numbers_of_texts
from supervisor.reports.html_report import chosen_jobs
from supervisor.reports.report import Report, load
from supervisor.reports.result_reader import Results
from supervisor.storage.files.layout import Layout
from supervisor.storage.recovery.survey import survey

MOST_POINTS = 5_000
BINS = 60  # of each axis, if there are more points than that
_SHARE = 10  # read anew at most a tenth of the time
_LEAST = 2.0  # seconds


class ResultColumns:
    """The columns of an experiment's results; read anew when its journal has grown, but not too often."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._stamp: object = None
        self._read_at, self._took = 0.0, 0.0
        self._columns: list[Column] = []
        self._rows = self._total = 0
        self._note = ""

    def document(self) -> dict[str, Any]:
        """rows: that `values` has. total: jobs of the experiment. complete: that are all of them; else `note` says
        which."""
        with self._lock:
            self._refresh()
            return {
                "columns": self._columns,
                "rows": self._rows,
                "note": self._note,
                "total": self._total,
                "complete": self._rows == self._total,
            }

    def _refresh(self) -> None:
        stamp = _stamp(self._layout)
        age = time.monotonic() - self._read_at
        if stamp == self._stamp or (self._stamp is not None and age < max(_LEAST, _SHARE * self._took)):
            return
        began = time.monotonic()
        results = Results.of(survey(self._layout))
        try:
            jobs, self._note = chosen_jobs(results)
            rows = list(Report(results).rows_of(jobs))
            self._columns, self._rows, self._total = columns_of(rows), len(rows), len(results.jobs())
        finally:
            results.close()
        self._stamp, self._read_at = stamp, time.monotonic()
        self._took = self._read_at - began


def _stamp(layout: Layout) -> tuple[int, int] | None:
    try:
        status = layout.journal.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size


# ------------------------------------------------------------------------------- plot


def plot_document(layout: Layout, query: Mapping[str, str]) -> dict[str, Any]:
    """Columns `x`, `y` and `color` of all jobs that have both values: points, or beyond `MOST_POINTS` bins of two
    dimensions. Raises UsageError for a column that is not there."""
    names = {axis: query.get(axis, "") for axis in ("x", "y", "color")}
    for axis in ("x", "y"):
        if not names[axis]:
            raise UsageError(f"the axis {axis} is missing: name a column of `columns`")
    wanted = {axis: name for axis, name in names.items() if name}
    values: dict[str, list[Any]] = {axis: [] for axis in wanted}
    jobs: list[str] = []
    seen: set[str] = set()
    total = 0
    with load(layout.directory, layout.experiment_id) as report:
        for row in report.each_row():
            total += 1
            seen.update(row)
            if row.get(wanted["x"]) is not None and row.get(wanted["y"]) is not None:
                jobs.append(row["job"])
                for axis, name in wanted.items():
                    values[axis].append(row.get(name))
    for name in wanted.values():
        if name not in seen:
            raise UsageError(f"no column {name!r} in this experiment; `columns` lists them")
    head = {
        "x": names["x"],
        "y": names["y"],
        "color": names["color"],
        "total": total,
        "points_total": len(jobs),
    }
    if len(jobs) > MOST_POINTS:
        values = {
            axis: numbers_of_texts(found) if is_param(wanted[axis]) else found
            for axis, found in values.items()
        }
        return {**head, "bins": _two_dimensional(values["x"], values["y"]), "complete": True}
    found = columns_of([dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)])
    by_axis = {column.name: column for column in found}
    points = {
        axis: msgspec.structs.replace(by_axis[axis], name=name)
        for axis, name in wanted.items()
        if axis in by_axis
    }
    return {**head, "points": {"job": jobs, **points}, "complete": True}


def _two_dimensional(across: Sequence[Any], up: Sequence[Any]) -> dict[str, Any]:
    """How many points each cell has. Numbers in even steps, anything else by its text; cells are [x, y, points]."""
    x, y = _Scale(across), _Scale(up)
    counts: dict[tuple[int, int], int] = {}
    left_out = 0
    for one, other in zip(across, up, strict=True):
        place, height = x.bin(one), y.bin(other)
        if place is None or height is None:
            left_out += 1
            continue
        counts[place, height] = counts.get((place, height), 0) + 1
    cells = [[place, height, number] for (place, height), number in sorted(counts.items())]
    return {"x": x.words(), "y": y.words(), "cells": cells, "not_finite": left_out}


class _Scale:
    def __init__(self, values: Sequence[Any]) -> None:
        self._numbers = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        self._texts: dict[str, int] = {}
        self._least: float = 0.0
        self._most: float = 0.0
        if self._numbers:
            finite = [value for value in values if math.isfinite(value)]
            if finite:
                self._least, self._most = min(finite), max(finite)

    def bin(self, value: Any) -> int | None:
        if not self._numbers:
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode(errors="replace")
            return self._texts.setdefault(text[:200], len(self._texts))
        if not math.isfinite(value):
            return None
        span = self._most - self._least
        return min(BINS - 1, int((value - self._least) / span * BINS)) if span else 0

    def words(self) -> dict[str, Any]:
        if self._numbers:
            return {"least": self._least, "most": self._most, "bins": BINS}
        return {"texts": list(self._texts)}


# -------------------------------------------------------------------------------- CSV


class _Chosen:
    """Of a report the rows of some jobs."""

    def __init__(self, report: Report, jobs: Sequence[int]) -> None:
        self.experiment_id = report.experiment_id
        self._report = report
        self._jobs = jobs

    def each_row(self) -> Iterator[dict[str, Any]]:
        return self._report.rows_of(self._jobs)


def csv_rows(layout: Layout, jobs: Sequence[int]) -> Iterator[bytes]:
    """The text that `longhaul results --format csv` prints, of these jobs in this order."""
    report = load(layout.directory, layout.experiment_id)
    try:
        rows = Rows([cast(Report, _Chosen(report, jobs))])
        for text in written(rows, "csv"):
            yield text.encode("utf-8", "replace")
    finally:
        report.close()
