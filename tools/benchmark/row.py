"""What a row of the benchmark's table is, and how its number is made of the samples of a round.

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


def against(ours: str, theirs: str, number: str) -> tuple[Value, Detail]:
    def value(taken: Round) -> float:
        return float(taken[ours][number] / taken[theirs][number])

    def detail(rounds: Sequence[Round]) -> str:
        mine, peer = median(rounds, ours, number), median(rounds, theirs, number)
        return f"{mine:,.0f} against {peer:,.0f} jobs/s"

    return value, detail


def share(ours: str, bare: str) -> tuple[Value, Detail]:
    def value(taken: Round) -> float:
        return float(100 * taken[ours]["share"])

    def detail(rounds: Sequence[Round]) -> str:
        return f"two bare processes, with no library: {100 * median(rounds, bare, 'share'):.1f} %"

    return value, detail


def number(sample: str, number: str, form: str, scale: float = 1.0) -> tuple[Value, Detail]:
    """A number as it is; `form` is filled with the medians of all numbers of the sample."""

    def value(taken: Round) -> float:
        return float(scale * taken[sample][number])

    def detail(rounds: Sequence[Round]) -> str:
        numbers = [name for name, found in rounds[0][sample].items() if isinstance(found, int | float)]
        return form.format_map({name: median(rounds, sample, name) for name in numbers})

    return value, detail


def row(
    key: str,
    what: str,
    measured: str,
    marks: tuple[float, float, str],
    samples: tuple[str, ...],
    functions: tuple[Value, Detail],
) -> Row:
    reach, aim, unit = marks
    return Row(key, what, measured, reach, aim, unit, aim > reach, samples, *functions)
