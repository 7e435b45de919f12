"""A worker's leases, and the outcomes that take them off its list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.state.worker_state import WorkerState


def made(leases: list[int], revoked: list[int]) -> WorkerState:
    worker = WorkerState(0, 1)
    for lease in leases:
        worker.leases.add(lease, [100 + 2 * lease])
    worker.revoked.update(set(revoked) & set(leases))
    return worker


@given(
    held=st.integers(0, 6),
    answered=st.just([0, 1, 2]) | st.lists(st.integers(0, 8), min_size=1, max_size=4),
    revoked=st.lists(st.integers(0, 5), max_size=2),
)
def test_leases_are_settled_together_as_one_by_one_or_not_at_all(
    held: int, answered: list[int], revoked: list[int]
) -> None:
    leases = list(range(held))
    together, singly = made(leases, revoked), made(leases, revoked)
    jobs = together.settle_batch(answered)
    if jobs is None:
        assert list(together.leases) == list(singly.leases) and together.revoked == singly.revoked
        assert together.revoked or answered != leases[: len(answered)]
        return
    assert list(jobs) == [singly.settle(lease) for lease in answered]
    assert list(together.leases) == list(singly.leases) and together.revoked == singly.revoked
