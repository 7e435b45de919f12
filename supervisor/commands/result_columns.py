"""Selection of columns, and order of rows, for `longhaul results`."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from supervisor.core.terms.errors import UsageError
from supervisor.reports.report import Report

# Columns that every job has; others appear as jobs have them.
_FIRST = ("experiment", "job", "domain", "state", "seconds", "outcome")
_LAST = ("error.type", "error.message", "code")
_SHOWN = 12
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?\Z")
_DIGITS = re.compile(r"([0-9]+)")

Row = dict[str, Any]


class Rows:
    """The selected and ordered rows of some experiments.

    columns: names, patterns, or the last part of a name that only one column has; empty for all.
    sort: columns by which to sort, the first one before the others; then all rows are held in memory.
    Raises UsageError for a column that is not there.
    """

    def __init__(
        self,
        reports: Sequence[Report],
        columns: Sequence[str] = (),
        sort: Sequence[str] = (),
        *,
        reverse: bool = False,
    ) -> None:
        self._reports = reports
        self._reverse = reverse
        self._names: list[str] | None = None
        self.chosen = list(dict.fromkeys(name for word in columns for name in self._meant(word)))
        self._sort = [self._one(word) for word in sort]

    def names(self) -> list[str]:
        """The columns that are shown."""
        return self.chosen or self._all()

    def __iter__(self) -> Iterator[Row]:
        """One dict per job; only what was chosen, if anything was."""
        rows = self._sorted() if self._sort else self._each()
        if not self.chosen:
            return rows
        return ({name: row.get(name) for name in self.chosen} for row in rows)

    def _each(self) -> Iterator[Row]:
        """With the experiment's id in front if there are several."""
        for report in self._reports:
            for row in report.each_row():
                yield {"experiment": report.experiment_id, **row} if len(self._reports) > 1 else row

    def _all(self) -> list[str]:
        """What always comes first, then params, then results, each as it first appears."""
        if self._names is None:
            seen = dict.fromkeys(name for row in self._each() for name in row)
            first = [name for name in _FIRST if name in seen]
            params = [name for name in seen if name.split(".")[0] == "params"]
            last = [name for name in _LAST if name in seen]
            rest = [name for name in seen if name not in {*first, *params, *last}]
            self._names = [*first, *params, *rest, *last]
        return self._names

    # ----------------------------------------------------------------- what is meant

    def _meant(self, word: str) -> list[str]:
        known = self._all()
        if word in known:
            return [word]
        found = (
            fnmatch.filter(known, word)
            or [name for name in known if name.endswith(f".{word}")]
            or fnmatch.filter(known, f"*.{word}")
            or [name for name in known if f".{word}." in name]
        )
        if not found:
            folded = {name.casefold(): name for name in known}
            near = difflib.get_close_matches(word.casefold(), folded, 1)
            more = ", ..." if len(known) > _SHOWN else ""
            hint = f"did you mean {folded[near[0]]!r}? " if near else ""
            raise UsageError(f"no column {word!r}; {hint}there are: {', '.join(known[:_SHOWN])}{more}")
        return found

    def _one(self, word: str) -> str:
        found = self._meant(word)
        if len(found) > 1:
            raise UsageError(
                f"{word!r} could be {', '.join(found[:_SHOWN])}: give the whole name to sort by it"
            )
        return found[0]

    # -------------------------------------------------------------------- the order

    def _sorted(self) -> Iterator[Row]:
        rows = list(self._each())
        for name in reversed(self._sort):  # the sort is stable: the most important one comes last
            there = [row for row in rows if not _is_missing(row.get(name))]
            missing = [row for row in rows if _is_missing(row.get(name))]
            there.sort(key=lambda row, name=name: _rank(row[name]), reverse=self._reverse)  # type: ignore[misc]
            rows = there + missing
        return iter(rows)


def _is_missing(value: Any) -> bool:
    """Whether a value is missing: such rows are last in any order."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _rank(value: Any) -> tuple[int, Any]:
    """Numbers before texts before lists; in texts `run/9` before `run/10`."""
    if isinstance(value, int | float):
        return 0, value
    if isinstance(value, str) and _NUMBER.match(value):  # of `longhaul exec`, where all values are text
        return 0, float(value)
    if isinstance(value, str):
        parts = _DIGITS.split(value)
        numbers = ((len(digits.lstrip("0")), digits.lstrip("0")) for digits in parts[1::2])
        return 1, (*chain.from_iterable(zip(parts[::2], numbers, strict=False)), parts[-1])
    return 2, msgspec.json.encode(value)


def finite(value: Any) -> Any:
    """The same with NaN and infinity as the texts `nan`, `inf` and `-inf`, as CSV has them: JSON has no such
    numbers, and null would say that there is no value. `float` in Python reads them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return value
