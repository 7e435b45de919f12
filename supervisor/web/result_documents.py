"""Results as answers: columns with their values, points of one against another, and all rows as CSV."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from supervisor.commands.result_columns import Rows
from supervisor.commands.results import written
from supervisor.core.terms.errors import UsageError
from supervisor.page.typed_columns import Column, columns_of
from supervisor.reports.html_report import chosen_jobs
from supervisor.reports.report import Report, load
from supervisor.reports.result_reader import Results
from supervisor.storage.files.layout import Layout
from supervisor.web.experiment_watch import ExperimentWatch

MOST_POINTS = 5_000
MOST_READ = 50_000  # jobs whose values a plot is made of: reading a million results takes many seconds
BINS = 60  # of each axis, if there are more points than that


class ResultColumns:
    """Columns of an experiment's results, as they are asked for; read anew when the experiment has been."""

    def __init__(self, watch: ExperimentWatch) -> None:
        self._watch = watch
        self._lock = threading.Lock()
        self._shown: _Read | None = None
        self._plotted: _Read | None = None

    def document(self) -> dict[str, Any]:
        """rows: that `values` has. total: jobs of the experiment. complete: that are all of them; else `note` says
        which."""
        with self._lock:
            self._watch.freshen_results()
            if self._shown is None or self._shown.survey != self._watch.surveys:
                with self._watch.lock:
                    results = self._results()
                    self._shown = self._read(results, *chosen_jobs(results))
            found = self._shown
        return {
            "columns": found.columns,
            "rows": found.rows,
            "note": found.note,
            "total": found.total,
            "complete": found.rows == found.total,
        }

    def plot(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Columns `x`, `y` and `color` of the jobs that have both values: points, or beyond `MOST_POINTS` bins of two
        dimensions. rows: jobs that were read; beyond `MOST_READ` a sample, as `note` says. Raises UsageError for a
        column that is not there."""
        wanted = {axis: query.get(axis, "") for axis in ("x", "y", "color")}
        for axis in ("x", "y"):
            if not wanted[axis]:
                raise UsageError(f"the axis {axis} is missing: name a column of `columns`")
        found = self._for_plots()
        by_name = {column.name: column for column in found.columns}
        for name in wanted.values():
            if name and name not in by_name:
                raise UsageError(f"no column {name!r} in this experiment; `columns` lists them")
        columns = {axis: by_name[name] for axis, name in wanted.items() if name}
        across, up = columns["x"].values, columns["y"].values
        rows = [row for row in range(found.rows) if across[row] is not None and up[row] is not None]
        document = {
            **wanted,
            "total": found.total,
            "rows": found.rows,
            "note": found.note,
            "points_total": len(rows),
            "complete": found.rows == found.total,
        }
        if len(rows) > MOST_POINTS:
            return {
                **document,
                "bins": _two_dimensional(*(_values(columns[axis], rows) for axis in ("x", "y"))),
            }
        ids = by_name["job"]
        points = {axis: _picked(column, rows) for axis, column in columns.items()}
        return {**document, "points": {"job": [ids.texts[ids.values[row]] for row in rows], **points}}

    def _for_plots(self) -> _Read:
        with self._lock:
            self._watch.freshen_results()
            shown = self._shown
            if shown is not None and shown.survey == self._watch.surveys and shown.rows == shown.total:
                return shown
            if self._plotted is None or self._plotted.survey != self._watch.surveys:
                with self._watch.lock:
                    results = self._results()
                    jobs = results.jobs()
                    some, note = jobs, ""
                    if len(jobs) > MOST_READ:
                        some = sorted(random.Random(0).sample(jobs, MOST_READ))
                        note = (
                            f"{MOST_READ:,} of {len(jobs):,} jobs, drawn at random, each time the same ones."
                        )
                    self._plotted = self._read(results, some, note)
            return self._plotted

    def _results(self) -> Results:
        """Those that no other thread closes as long as the lock is held."""
        assert self._watch.results is not None
        return self._watch.results

    def _read(self, results: Results, jobs: Sequence[int], note: str) -> _Read:
        columns = columns_of(Report(results).rows_of(jobs))
        return _Read(self._watch.surveys, columns, len(jobs), len(results.jobs()), note)


class _Read(NamedTuple):
    """survey: of which it is. rows: that the columns have, of `total` jobs."""

    survey: int
    columns: list[Column]
    rows: int
    total: int
    note: str


# ------------------------------------------------------------------------------- plot


def _values(column: Column, rows: Iterable[int]) -> list[Any]:
    """As they are, with texts for codes."""
    if column.kind == "text":
        return [column.texts[column.values[row]] for row in rows]
    return [_NOT_FINITE.get(value, value) for value in map(column.values.__getitem__, rows)]


_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _picked(column: Column, rows: Sequence[int]) -> Column:
    """Of these rows alone."""
    values = [column.values[row] for row in rows]
    if column.kind == "text":
        places: dict[int, int] = {}
        values = [None if code is None else places.setdefault(code, len(places)) for code in values]
        texts = [column.texts[code] for code in places]
    else:
        texts = []
    return Column(column.name, column.kind, values, texts, any(one != values[0] for one in values))


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
