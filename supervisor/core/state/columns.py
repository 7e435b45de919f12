"""Columns: arrays with one value for each job, indexed by job number. Pure.

Consecutive job numbers are kept as a `range` where possible: operations on them are then operations on a
slice, without a loop over the jobs.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import compress
from typing import Any


def is_contiguous(jobs: Sequence[int]) -> bool:
    """Whether the numbers are consecutive, which is nearly always so."""
    if type(jobs) is range:
        return jobs.step == 1 and len(jobs) > 0
    return (
        len(jobs) > 0
        and jobs[-1] - jobs[0] + 1 == len(jobs)
        and list(jobs) == list(range(jobs[0], jobs[-1] + 1))
    )


def compact(jobs: list[int]) -> Sequence[int]:
    """The same numbers, as a range if they are consecutive."""
    return range(jobs[0], jobs[-1] + 1) if is_contiguous(jobs) else jobs


def get(column: Any, jobs: Sequence[int]) -> Sequence[Any]:
    """`column[job]` for many jobs; one slice if they are consecutive."""
    if len(jobs) == 1:  # of many workers with long jobs each asks for one
        return [column[jobs[0]]]
    if is_contiguous(jobs):
        piece: Sequence[Any] = column[jobs[0] : jobs[-1] + 1]
        return piece
    return [column[job] for job in jobs]


def put(column: Any, jobs: Sequence[int], values: Any) -> None:
    """`column[job] = value` for many jobs; one slice if they are consecutive."""
    if len(jobs) == 1:
        column[jobs[0]] = values[0]
        return
    if is_contiguous(jobs):
        column[jobs[0] : jobs[-1] + 1] = values
        return
    for job, value in zip(jobs, values, strict=True):
        column[job] = value


def indices_of(state: bytearray, value: int) -> array[int]:
    """Indices at which `state` has this value."""
    # Of a million jobs nearly all have ended on a resume, and stand before the others: those are not looked at.
    first, end = state.find(value), state.rfind(value) + 1
    if first < 0:
        return array("I")
    marks = bytearray(256)
    marks[value] = 1
    return array("I", compress(range(first, end), state[first:end].translate(marks)))


def any_in_both(rare: bytearray, mask: bytes) -> bool:
    """Whether any job has a 1 in both."""
    first = rare.find(1)
    return first >= 0 and any(compress(mask[first:], rare[first:]))
