"""The list of what a worker holds: batches inside, single leases for whoever looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.state.worker_state import Leases

HAND_OUTS = st.lists(
    st.lists(st.integers(0, 50), max_size=5) | st.builds(range, st.integers(1, 5)), max_size=4
)


def made(hand_outs: list[list[int] | range], gap: int) -> tuple[Leases, list[tuple[int, int]]]:
    """The same as `Leases` and as a plain list; `gap`: between the numbers of two hand-outs."""
    leases, plain, first = Leases(), [], 10
    for jobs in hand_outs:
        leases.add(first, jobs)
        plain += list(enumerate(jobs, first))
        first += len(jobs) + gap
    return leases, plain


@given(
    hand_outs=HAND_OUTS, gap=st.integers(0, 2), size=st.integers(0, 12), wrong=st.none() | st.integers(0, 11)
)
def test_the_first_ones_are_taken_off_in_order_or_none(
    hand_outs: list[list[int] | range], gap: int, size: int, wrong: int | None
) -> None:
    leases, plain = made(hand_outs, gap)
    asked = [lease for lease, _ in plain[:size]]
    if wrong is not None and wrong < len(asked):
        asked[wrong] += 1
    taken = leases.take(asked)
    if asked == [lease for lease, _ in plain[: len(asked)]]:
        assert list(taken or []) == [job for _, job in plain[: len(asked)]]
        plain = plain[len(asked) :]
    else:
        assert taken is None
    assert list(leases) == plain and len(leases) == len(plain) and bool(leases) == bool(plain)


@given(hand_outs=HAND_OUTS, gap=st.integers(0, 2), chosen=st.lists(st.integers(8, 40), max_size=8))
def test_any_one_is_taken_off_wherever_it_is(
    hand_outs: list[list[int] | range], gap: int, chosen: list[int]
) -> None:
    leases, plain = made(hand_outs, gap)
    for lease in chosen:
        known = dict(plain)
        assert leases.remove(lease) == known.get(lease)
        plain = [entry for entry in plain if entry[0] != lease]
        assert list(leases) == plain
        assert leases[:2] == plain[:2] and (not plain or leases[0] == plain[0])


def test_more_than_there_are_are_not_taken() -> None:
    leases, plain = made([[1, 2]], 0)
    assert leases.take([10, 11, 12]) is None
    assert list(leases) == plain


def test_what_follows_across_hand_outs_is_taken_as_one() -> None:
    leases, _ = made([range(3), range(3, 6)], 0)
    assert leases.take([10, 11, 12, 13, 14]) == range(5)
    assert list(leases) == [(15, 5)]
