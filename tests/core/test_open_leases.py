"""Leases without an end, as records tell of them."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.state.open_leases import OpenLeases
from supervisor.core.terms.records import Leased, Returned


def leased(incarnation: int, first: int, number: int) -> tuple[Leased, list[str]]:
    held = [f"job {lease}" for lease in range(first, first + number)]
    return Leased(0, incarnation, first, held, "at"), held


def opened(*hand_outs: tuple[int, int, int]) -> OpenLeases[str]:
    leases: OpenLeases[str] = OpenLeases()
    for incarnation, first, number in hand_outs:
        leases.hand_out(*leased(incarnation, first, number))
    return leases


def test_the_first_lease_of_each_worker_is_the_one_that_runs() -> None:
    leases = opened((1, 1, 3), (2, 4, 1), (1, 5, 2))
    assert leases.close(1) == "job 1" and leases.close(1) is None
    leases.give_back(Returned(1, [3, 9], "at"))
    leases.give_back(Returned(7, [2], "at"))
    assert leases == {1: {2: "job 2", 5: "job 5", 6: "job 6"}, 2: {4: "job 4"}}
    assert leases.running() == [(2, "job 2"), (4, "job 4")]
    assert leases.close(4) == "job 4"
    assert leases.running() == [(2, "job 2")]


@given(st.lists(st.integers(0, 13), min_size=1, max_size=12, unique=True))
def test_leases_are_closed_together_as_one_by_one(ended: list[int]) -> None:
    """Whoever holds them, and some that nobody holds."""
    together = opened((1, 1, 4), (2, 5, 3), (1, 8, 2), (3, 10, 2))
    alone = copy.deepcopy(together)
    together.close_batch(ended)
    for lease in ended:
        alone.close(lease)
    assert together == alone
