"""Columns by job number: what is quick is what a loop over the jobs comes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.state.columns import any_in_both, indices_of
from supervisor.core.terms.jobs import COMPLETED, FAILED, PENDING

states = st.lists(st.sampled_from([PENDING, FAILED, COMPLETED]), max_size=12)


@given(st.integers(0, 20), states, st.integers(0, 20))
def test_jobs_in_a_state_are_found_wherever_they_stand(before: int, among: list[int], after: int) -> None:
    column = bytearray([COMPLETED] * before + among + [COMPLETED] * after)
    for state in (PENDING, FAILED, COMPLETED):
        found = indices_of(column, state)
        assert found.typecode == "I"
        assert found.tolist() == [job for job, each in enumerate(column) if each == state]


@pytest.mark.parametrize("column", [b"", bytes([COMPLETED]) * 5])
def test_there_may_be_none(column: bytes) -> None:
    assert not indices_of(bytearray(column), FAILED)


@given(st.integers(0, 9), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6))
def test_a_job_that_is_marked_in_both_is_found_wherever_it_stands(
    before: int, marks: list[tuple[bool, bool]]
) -> None:
    marks = [(False, True)] * before + marks
    rare, mask = bytearray(one for one, _ in marks), bytes(other for _, other in marks)
    assert any_in_both(rare, mask) == ((True, True) in marks)
