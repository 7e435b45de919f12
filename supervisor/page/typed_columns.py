"""The columns of a results table, from one flat dict per job: which there are, numbers or texts, which vary. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from supervisor.page.markup import clean

MOST_TEXT = 200  # characters of a cell
DIGITS = 7  # of a number with a fraction

# A number as programs write it: no leading zeros, which are part of a name, and not too long for a cell.
_WRITTEN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")

_SAFE = 2**53  # larger whole numbers are no longer exact in a browser: they become texts

_FIRST = ("job", "domain", "state", "seconds")
_LAST = ("outcome", "error.type", "error.message", "code")


class Column(msgspec.Struct):
    """One column.

    kind: number; or text, whose values index `texts`. Absent values are None; a number that is not finite is the
    text `nan`, `inf` or `-inf`. varies: there are at least two different values.
    """

    name: str
    kind: str
    values: list[Any]
    texts: list[str] = []
    varies: bool = False


def columns_of(rows: Iterable[dict[str, Any]]) -> list[Column]:
    """What always comes first, then params, then results in the order in which they appear, then errors. Of the rows
    none is kept."""
    seen: dict[str, list[Any]] = {}
    length = 0
    for length, row in enumerate(rows, 1):
        for name, value in row.items():
            column = seen.setdefault(name, [])
            if len(column) < length - 1:
                column.extend([None] * (length - 1 - len(column)))
            column.append(value)
    for column in seen.values():
        column.extend([None] * (length - len(column)))
    first = [name for name in _FIRST if name in seen]
    last = [name for name in _LAST if name in seen]
    params = [name for name in seen if is_param(name)]
    rest = [name for name in seen if name not in {*first, *last, *params}]
    for name in params:
        seen[name] = numbers_of_texts(seen[name])
    return [_column(name, seen.pop(name)) for name in (*first, *params, *rest, *last)]


def is_param(name: str) -> bool:
    return name == "params" or name.startswith("params.")


def numbers_of_texts(values: list[Any]) -> list[Any]:
    """The numbers that all these texts are: programs get theirs as texts, and a plot needs numbers. The same values
    if one of them is no number, or would lose a digit."""
    numbers: dict[str, int | float] = {}
    for value in values:
        if value is None:
            continue
        if not isinstance(value, str) or (value not in numbers and not _WRITTEN.fullmatch(value)):
            return values
        number = int(value) if value.lstrip("-").isdecimal() else float(value)
        if not _is_number(number) or not math.isfinite(number) or _rounded(number) != number:
            return values
        numbers[value] = number
    return [None if value is None else numbers[value] for value in values]


def _column(name: str, values: list[Any]) -> Column:
    numbers = all(value is None or _is_number(value) for value in values)
    if numbers and any(value is not None for value in values):
        shown = [None if value is None else _rounded(value) for value in values]
        return Column(_shown(name), "number", shown, varies=_several(shown))
    places: dict[str, int] = {}
    codes = [None if value is None else places.setdefault(_text(value), len(places)) for value in values]
    return Column(_shown(name), "text", codes, list(places), varies=_several(codes))


def _shown(name: str) -> str:
    return " ".join(clean(name).split()) or "(no name)"


def _several(values: list[Any]) -> bool:
    first = values[0] if values else None
    return any(value != first for value in values)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < _SAFE


def _rounded(value: float) -> Any:
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        return str(value)
    return float(f"{value:.{DIGITS}g}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        value = msgspec.json.encode(value).decode(errors="replace")
    text = clean(value)
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"
