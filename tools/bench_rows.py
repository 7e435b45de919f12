"""The rows of the benchmark's table: what is measured, how it is judged.

A round holds one value of each sample; a row makes one number of it. Medians and spreads are
over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Round = dict[str, dict[str, Any]]  # sample -> its numbers
Value = Callable[[Round], float]
Detail = Callable[[Sequence[Round]], str]


class Row(NamedTuple):
    """`reach`: what must be reached; `aim`: what is aimed at; both in `unit`.

    `value` is of one round, `detail` a few words about all of them.
    """

    key: str
    what: str
    measured: str
    reach: float
    aim: float
    unit: str
    more_is_better: bool
    samples: tuple[str, ...]
    value: Value
    detail: Detail

    def judge(self, value: float) -> str:
        """How far `value` comes: "aim", "reach" or "missed"."""
        sign = 1.0 if self.more_is_better else -1.0
        if sign * value >= sign * self.aim:
            return "aim"
        return "reach" if sign * value >= sign * self.reach else "missed"


def median(rounds: Sequence[Round], sample: str, number: str) -> float:
    return float(statistics.median(taken[sample][number] for taken in rounds))


def _against(ours: str, theirs: str, number: str) -> tuple[Value, Detail]:
    def value(taken: Round) -> float:
        return float(taken[ours][number] / taken[theirs][number])

    def detail(rounds: Sequence[Round]) -> str:
        mine, peer = median(rounds, ours, number), median(rounds, theirs, number)
        return f"{mine:,.0f} against {peer:,.0f} jobs/s"

    return value, detail


def _share(sample: str) -> tuple[Value, Detail]:
    def value(taken: Round) -> float:
        return float(100 * taken[sample]["share"])

    def detail(rounds: Sequence[Round]) -> str:
        lost = (1 / median(rounds, sample, "share") - 1) * (1000 if "1ms" in sample else 10_000)
        return f"{lost:.0f} µs of a core per job beside the job itself"

    return value, detail


def _row(
    key: str,
    what: str,
    measured: str,
    marks: tuple[float, float, str],
    samples: tuple[str, ...],
    functions: tuple[Value, Detail],
) -> Row:
    reach, aim, unit = marks
    return Row(key, what, measured, reach, aim, unit, aim > reach, samples, *functions)


_TINY = ("longhaul/tiny", "executor/tiny")
_JOBLIB = ("longhaul/tiny", "joblib/tiny")

ROWS: tuple[Row, ...] = (
    _row(
        "sustained",
        "tiny jobs, sustained",
        "200,000 no-op jobs, against `ProcessPoolExecutor.map` (chunksize 1, 20,000 jobs)",
        (25, 45, "×"),
        _TINY,
        _against(*_TINY, "sustained"),
    ),
    _row(
        "end-to-end",
        "tiny jobs, end to end",
        "the same, from the call of `run()` to its return",
        (12, 20, "×"),
        _TINY,
        _against(*_TINY, "whole"),
    ),
    _row(
        "joblib",
        "against the fastest convenient peer",
        'sustained, against joblib `Parallel(return_as="generator_unordered")`',
        (1.0, 2.0, "×"),
        _JOBLIB,
        _against(*_JOBLIB, "sustained"),
    ),
    _row(
        "cpu-1ms",
        "1 ms CPU jobs",
        "share of the two cores spent in jobs, first job start to last job end, 10,000 jobs",
        (96, 98.5, "%"),
        ("longhaul/cpu_1ms",),
        _share("longhaul/cpu_1ms"),
    ),
    _row(
        "cpu-10ms",
        "10 ms CPU jobs",
        "likewise, 1,000 jobs",
        (98.5, 99.5, "%"),
        ("longhaul/cpu_10ms",),
        _share("longhaul/cpu_10ms"),
    ),
)
