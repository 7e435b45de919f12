"""What is kept about all workers, beside a look at each of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.state.worker_state import ABANDONED, DOOMED, READY, STOPPING, WorkerState
from supervisor.core.state.workers_now import SOME_STALE, Workers, scan

TIMEOUTS = [None, 5.0, 1.0, 30.0]  # of jobs, by their number

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "ready", "end", "lease", "settle", "batch", "revoke", "status", "time"]),
        st.integers(0, 5),
        st.integers(0, 3),
    ),
    max_size=40,
)


def timeout_of(worker: WorkerState) -> float | None:
    return TIMEOUTS[worker.leases[0][1] % len(TIMEOUTS)]


class Play:
    def __init__(self) -> None:
        self.workers = Workers(timeout_of)
        self.now = 0.0
        self.lease = 1

    def do(self, what: str, incarnation: int, number: int) -> None:
        if what == "time":
            self.now += number
            late = {worker.incarnation for worker in self.workers.timed_out(self.now)}
            assert late == {
                each.incarnation
                for each in self.workers.values()
                if each.leases
                and each.status in (READY, STOPPING)
                and (seconds := timeout_of(each)) is not None
                and self.now >= each.since + seconds
            }
            for incarnation in late:
                self.workers[incarnation].set_status(DOOMED)
            return
        worker = self.workers.get(incarnation)
        if what == "start" and worker is None:
            self.workers[incarnation] = WorkerState(incarnation, incarnation)
        elif what == "end":
            self.workers.pop(incarnation, None)
        if worker is None:
            return
        held = [lease for lease, _ in worker.leases]
        if what == "ready":
            worker.set_status(READY)
            worker.begin(self.now, "")
        elif what == "status":
            worker.set_status([READY, STOPPING, DOOMED, ABANDONED][number])
        elif what == "lease":
            jobs = range(self.lease, self.lease + number)
            worker.since = worker.since if held else self.now
            worker.add_leases(self.lease, jobs)
            self.lease += number
        elif what == "settle" and held:
            worker.settle(held[number % len(held)])
            worker.since = self.now
        elif what == "batch" and worker.settle_batch(held[:number]) is not None:
            worker.since = self.now
        elif what == "revoke":
            worker.revoke(held[1:number])


@given(steps=STEPS)
@settings(max_examples=300)
def test_what_is_kept_is_what_a_look_at_each_worker_finds(steps: list[tuple[Any, ...]]) -> None:
    play = Play()
    for step in steps:
        play.do(*step)
        workers = play.workers
        # In the order of their start, as a run starts them; here numbers are used again.
        found = scan([workers[key] for key in sorted(workers)], timeout_of)
        assert workers.known() == found
        few = [each for each in workers.values() if each.status == READY and each.lease_count() <= 1]
        few.sort(key=lambda each: (each.lease_count(), each.incarnation))
        assert workers.holding(1) == few
        assert workers.idle == sum(not each.lease_count() for each in few)


@pytest.mark.parametrize("timeouts", [[60.0], [1e6, 1.5]], ids=["equal", "of their own"])
def test_the_timeouts_that_are_kept_do_not_grow_with_the_jobs(timeouts: list[float]) -> None:
    """Also while one job lasts, whose timeout comes before those that are out of date."""
    lasting = 1_000_000

    def timeout(job: int) -> float:
        return 1e5 if job == lasting else timeouts[job // 10 % len(timeouts)]

    workers = Workers(lambda worker: timeout(worker.leases[0][1]))
    for incarnation in range(11):
        workers[incarnation] = WorkerState(incarnation, incarnation)
        workers[incarnation].set_status(READY)
    workers[10].add_leases(lasting, [lasting])
    for lease in range(10_000):
        worker = workers[lease % 10]
        worker.since = float(lease)
        worker.add_leases(lease, [lease])
        worker.settle(lease - 10)
        assert workers.first_timeout() is not None
    assert len(workers._timeouts) <= 2 * 11 + SOME_STALE + 1
