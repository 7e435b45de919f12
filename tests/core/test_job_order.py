"""The order of the jobs: priorities first, then every domain in turn."""

from __future__ import annotations

import random
from array import array

from supervisor.core.dispatch import job_order
from supervisor.core.dispatch.job_order import lined_up, mixed
from supervisor.core.dispatch.job_queue import JobQueue
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.jobs import COMPLETED, INTERRUPTED, OwnSettings
from tests.core.test_scheduler import Core, bad, leases


def planned(*domains: str | None) -> JobTable:
    table = JobTable()
    for number, domain in enumerate(domains):
        table.add(f"job/{number}", domain)
    return table


def line(table: JobTable) -> list[int]:
    return list(lined_up(table, bytes(table.wanted), ())[0])


def test_domains_take_turns_each_in_the_order_of_the_plan() -> None:
    assert line(planned("a", "a", "a", "b", "b", "c")) == [0, 3, 5, 1, 4, 2]


def test_jobs_without_a_domain_take_part_and_a_single_domain_stays_as_it_is() -> None:
    assert line(planned("a", "a", None, None)) == [0, 2, 1, 3]
    assert line(planned("a", "a", "a")) == [0, 1, 2]
    assert line(planned(None, None)) == [0, 1]
    assert line(planned()) == []


def test_every_job_is_lined_up_once_whatever_the_domains() -> None:
    rng = random.Random(1)
    domain_of = array("I", (min(rng.randrange(1, 60), rng.randrange(1, 60)) for _ in range(5000)))
    jobs = mixed(array("I", range(5000)), domain_of)
    assert sorted(jobs) == list(range(5000))
    assert len({domain_of[job] for job in jobs[:50]}) == 50


def test_of_a_large_plan_the_front_is_mixed_and_the_rest_follows_in_order() -> None:
    size = job_order.MIXED + 1000
    domain_of = array("I", [1] * (size // 2) + [2] * (size - size // 2))
    jobs = mixed(array("I", range(size)), domain_of)
    assert sorted(jobs) == list(range(size))
    assert list(jobs[:4]) == [0, size // 2, 1, size // 2 + 1]
    rest = jobs[job_order.MIXED :]
    assert list(rest) == sorted(rest)


def test_a_higher_priority_goes_before_everything_else() -> None:
    table = planned("a", "a", "b", "b", "a")
    table.own = {1: OwnSettings(priority=-1), 3: OwnSettings(priority=5), 4: OwnSettings(priority=5)}
    assert line(table) == [3, 4, 0, 2, 1]


def test_what_was_cut_in_the_middle_goes_first_and_what_is_done_does_not_go() -> None:
    table = planned("a", "b", "a", "b")
    table.state[0], table.state[3] = COMPLETED, INTERRUPTED
    assert line(table) == [3, 1, 2]


def test_jobs_that_go_alone_slow_down_none_but_themselves() -> None:
    """Those that waited in a worker when the supervisor was killed."""
    queue = JobQueue(bytearray(100))
    queue.line_up(range(100))
    for job in (0, 1, 50):
        queue.mark_single(job)
    taken = [queue.take(30, empty_handed=True) for _ in range(7)]
    assert taken[:3] == [[0], [1], range(2, 32)]  # a range: nothing was done to each of them
    assert list(map(list, taken[3:])) == [[*range(32, 50)], [50], [*range(51, 81)], [*range(81, 100)]]
    assert not queue.has_ready()


def test_the_jobs_of_a_group_go_together_and_with_no_others() -> None:
    queue = JobQueue(bytearray(100))
    queue.line_up(range(100))
    queue.mark_group(range(3, 10))
    queue.mark_group(range(10, 12))
    queue.mark_single(11)
    assert list(queue.take(50, empty_handed=True)) == [0, 1, 2]
    assert list(queue.take(50, empty_handed=False)) == []
    taken = [list(queue.take(number, empty_handed=True)) for number in (5, 50, 50, 50)]
    assert taken == [[3, 4, 5, 6, 7], [8, 9], [10], [11]]
    assert queue.take(50, empty_handed=True) == range(12, 62)


def test_a_group_is_taken_as_it_stands_in_the_queue_without_the_jobs_that_have_ended() -> None:
    state = bytearray(100)
    queue = JobQueue(state)
    queue.line_up(range(100))
    queue.mark_group(range(40))
    queue.mark_group(range(40, 50))
    queue.put_back([2, 1])  # handed out once, and returned before they began
    assert list(queue.take(8000, empty_handed=True)) == [2, 1, 0, *range(3, 40)]
    state[43] = state[49] = COMPLETED  # under a lease that was revoked too late
    assert queue.take(3, empty_handed=True) == range(40, 43)  # a range: nothing was done to each of them
    assert list(queue.take(8000, empty_handed=True)) == [44, 45, 46, 47, 48]
    assert queue.take(8000, empty_handed=False) == range(50, 100)


def test_a_job_that_begins_two_groups_leaves_the_earlier_one() -> None:
    """Two workers had it, and behind it other jobs, when the supervisor was killed."""
    queue = JobQueue(bytearray(6))
    queue.line_up(range(6))
    queue.mark_group([0, 1, 2])
    queue.mark_group([0, 4])
    assert [list(queue.take(9, empty_handed=True)) for _ in range(3)] == [[0], [1, 2], [3]]


def test_a_job_that_is_queued_twice_is_handed_out_once() -> None:
    """Two workers had it when the supervisor was killed, and both had it first."""
    queue = JobQueue(bytearray(10))
    queue.mark_single(3)
    queue.put_first(3)
    queue.put_first(3)
    assert list(queue.take(5, empty_handed=True)) == [3]
    assert not queue.has_ready()


def test_another_attempt_goes_before_untried_jobs_of_a_lower_priority() -> None:
    queue = JobQueue(bytearray(6))
    queue.line_up([0, 1, 2, 3, 4], {0: 7, 1: 7, 5: 3})
    assert list(queue.take(1, empty_handed=True)) == [0]
    queue.put_again(0)
    queue.put_again(5)
    assert list(queue.take(9, empty_handed=True)) == [1, 0, 5, 2, 3, 4]
    assert not queue.has_any()


def test_without_priorities_other_attempts_come_last_in_their_order() -> None:
    queue = JobQueue(bytearray(6))
    queue.line_up([2, 3])
    for job in (5, 4):
        queue.put_again(job)
    assert list(queue.take(9, empty_handed=True)) == [2, 3, 5, 4]


def test_priorities_order_what_workers_get() -> None:
    core = Core(4, workers=1, retries=1, backoff=0.0)
    core.table.own = {2: OwnSettings(priority=1)}
    assert list(leases(core.start())[1].jobs) == [2]
    again = leases(core.tell(facts.JobsFinished(1, [bad(1)])))
    assert list(again[1].jobs) == [2]  # its error does not send it behind what matters less
