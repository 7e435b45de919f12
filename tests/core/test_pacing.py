"""What outcomes tell of how long jobs take."""

from __future__ import annotations

import pytest

from supervisor.core.dispatch import pacing
from supervisor.core.dispatch.pacing import Durations
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.worker_state import READY, WorkerState
from supervisor.core.terms.events import GATHER_ELSEWHERE
from supervisor.core.terms.position import Position
from supervisor.core.terms.settings import Settings


def test_nothing_is_known_before_a_job_has_ended() -> None:
    durations = Durations()
    durations.learn(0.0, 0)
    assert durations.mean is None and durations.quick is None


def test_a_worker_that_had_no_processor_for_a_moment_makes_nobody_sleep_longer() -> None:
    """It holds some thousand jobs of a microsecond: work for some hundredths of a second."""
    durations = Durations()
    for _ in range(20):
        durations.learn(1000 * 1e-6, 1000)
    before = pacing.coalescing_delay(durations.quick, 4000, 2)
    durations.learn(100 * 1e-6 + 0.004, 100)  # one of them had to wait for 4 ms
    assert durations.mean is not None and durations.mean > 10e-6
    assert before <= pacing.coalescing_delay(durations.quick, 4000, 2) < 3 * before


def test_jobs_that_do_get_slower_are_believed_after_a_while() -> None:
    durations = Durations()
    durations.learn(1e-6, 1)
    for _ in range(40):
        durations.learn(0.001, 1)
    assert durations.quick == pytest.approx(0.001, rel=0.1)
    durations.learn(1e-6, 1)
    assert durations.quick == 1e-6


def test_outcomes_of_long_jobs_gather_a_little_only_where_there_are_many_workers() -> None:
    assert pacing.coalescing_delay(1.0, 1, 63) == 0.0
    assert 0.002 < pacing.coalescing_delay(1.0, 1, 64) < pacing.coalescing_delay(1.0, 1, 200) <= 0.02
    assert pacing.coalescing_delay(1.0, 1, 4096) == 0.02
    assert pacing.coalescing_delay(0.05, 1, 4096) == 0.001


@pytest.mark.parametrize("each", [0.0, 1e-5, 0.001, 0.01, 0.019])
@pytest.mark.parametrize("gathering", [0.0, GATHER_ELSEWHERE])
def test_a_worker_has_work_left_when_outcomes_have_gathered_with_its_node_and_here(
    each: float, gathering: float
) -> None:
    most = pacing.leases_ahead(each, gathering=gathering)
    for held in (most // 2, most):  # with fewer it gets some
        work = (held - 1) * pacing.time_of(each)
        delay = pacing.coalescing_delay(each, held, 2, gathering)
        assert delay > 0.0 and work - min(gathering, work / 2) - delay > 0.24 * work


def test_where_outcomes_gather_with_the_node_a_worker_holds_as_much_more() -> None:
    here, there = (pacing.leases_ahead(0.01, gathering=gathering) for gathering in (0.0, 0.2))
    assert (here, there) == (31, 71)
    assert pacing.leases_ahead(0.0, gathering=0.2) == pacing.MOST_AHEAD
    assert pacing.leases_ahead(1.0, gathering=0.2) == 1


def test_news_of_workers_gather_only_while_many_start_or_end() -> None:
    table = JobTable()
    table.add("job")
    core = Scheduler(table, Settings(), 200, Position(1, 1, 1))
    workers = core.dispatcher.workers
    for number in range(200):
        workers[number] = WorkerState(number, number)
    assert core.dispatcher.coalescing_delay() == pacing.MANY_CHANGES_DELAY == 0.01
    for number in range(200 - pacing.MANY_WORKERS + 1):
        workers[number].set_status(READY)
    assert core.dispatcher.coalescing_delay() == 0.0
