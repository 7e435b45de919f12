"""Which columns of a table of results a terminal has room for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import NamedTuple

from supervisor.core.terms.wording import cut, one_line

_GAP = 2  # between two columns
# The columns of a job that are most worth their room come first; what is in no group comes between.
_FIRST = ("experiment", "job")
_LAST = ("state", "seconds", "domain", "outcome", "error.type", "error.message", "code")
_VALUES_NAMED = 12
_WIDTH = 400  # characters of a line below the table


class FittedTable(NamedTuple):
    """heads, rows: what there is room for. notes: what is not shown, in words."""

    heads: list[str]
    rows: list[list[str]]
    notes: list[str]


def terminal_width() -> int:
    return shutil.get_terminal_size().columns


def fitted(
    heads: Sequence[str], rows: Sequence[Sequence[str]], width: int, length: Callable[[str], int] = len
) -> FittedTable:
    """The columns that fit into `width` cells, in their order. Of the parameters, only those that differ. `length`:
    cells of a text."""
    same = _same_for_all(heads, rows)
    varying = [column for column in range(len(heads)) if column not in same]
    shown: list[int] = []
    room = width + _GAP
    for column in sorted(varying, key=lambda column: _rank(heads[column])):
        needed = (
            max(length(one_line(text)) for text in [heads[column], *(row[column] for row in rows)]) + _GAP
        )
        if needed <= room or not shown:
            shown.append(column)
            room -= needed
    shown.sort()
    notes = []
    if same:
        known = [f"{heads[column].removeprefix('params.')}={rows[0][column]}" for column in same]
        notes.append(cut(f"the same for all: {_some(known)}", _WIDTH))
    if hidden := [heads[column] for column in varying if column not in shown]:
        notes.append(cut(f"no room for {_some(hidden)}", _WIDTH) + "; --columns NAMES, or --all-columns")
    return FittedTable(
        [heads[column] for column in shown], [[row[column] for column in shown] for row in rows], notes
    )


def _same_for_all(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    if len(rows) < 2:
        return []
    params = [column for column, head in enumerate(heads) if head.startswith("params.")]
    return [column for column in params if len({row[column] for row in rows}) == 1]


def _rank(head: str) -> int:
    if head in _FIRST:
        return _FIRST.index(head)
    return len(_FIRST) + (1 + _LAST.index(head) if head in _LAST else 0)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _VALUES_NAMED} more" if len(names) > _VALUES_NAMED else ""
    return ", ".join(map(one_line, names[:_VALUES_NAMED])) + more
