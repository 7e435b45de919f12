"""Many jobs at once are registered and restored as one after the other would be."""

from __future__ import annotations

import pytest

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import COMPLETED, FAILED, PENDING
from supervisor.core.terms.records import Leased, Noted


def by_one(ids: list[str], domains: list[str | None]) -> JobTable:
    table = JobTable()
    for job_id, domain in zip(ids, domains, strict=True):
        table.add(job_id, domain)
    return table


def test_a_plan_is_registered_at_once_as_one_by_one() -> None:
    ids, domains = ["a", "b", "c", "d"], ["iris", None, "wine", "iris"]
    table = JobTable()
    assert table.add_planned(ids[:1], domains[:1])
    assert table.add_planned(ids[1:], domains[1:])
    assert vars(table) == vars(by_one(ids, domains))


@pytest.mark.parametrize(
    "ids", [["c", "a"], ["c", "c"], ["c", "d", "c"]], ids=["known", "twice", "twice apart"]
)
def test_a_group_with_a_job_that_is_there_already_changes_nothing(ids: list[str]) -> None:
    table = by_one(["a", "b"], ["iris", None])
    assert not table.add_planned(ids, ["new"] * len(ids))
    assert vars(table) == vars(by_one(["a", "b"], ["iris", None]))


@pytest.mark.parametrize("ids", [["b", "c"], ["c", "a"], ["a", "x", "b"], []])
def test_finished_jobs_are_restored_wherever_they_stand(ids: list[str]) -> None:
    table = by_one(["a", "b", "c"], [None, None, None])
    jobs = table.numbers_of(ids)
    assert [table.ids[job] for job in jobs] == ids
    table.restore(
        jobs, [COMPLETED, FAILED, COMPLETED][: len(jobs)], [1, 2, 3][: len(jobs)], [0.5] * len(jobs)
    )
    for job, state, attempts in zip(jobs, [COMPLETED, FAILED, COMPLETED], [1, 2, 3], strict=False):
        assert (table.state[job], table.attempts[job], table.seconds[job]) == (state, attempts, 0.5)
    assert all(table.state[job] == PENDING for job in range(len(table)) if job not in jobs)
    assert table.wanted.count(0) == ids.count("x")


def test_numbers_are_there_when_somebody_asks() -> None:
    table = JobTable()
    assert table.add_planned(["a", "b"], [None, "x"], unique=True)
    assert table.add_planned(["c"], [None], unique=True)
    assert table.add("b") == 1
    assert table.add("d", "x") == 3
    assert table.add_planned(["e"], [None], unique=True)
    assert not table.add_planned(["f", "e"], [None, None])
    assert table.add_planned(["f"], [None])
    assert table.numbers_of(["f", "a", "g"]) == [5, 0, 6]
    assert list(table.numbers.items()) == [(job_id, number) for number, job_id in enumerate(table.ids)]
    assert table.ids == list("abcdefg")


def test_the_number_of_a_job_that_has_ended_is_known_without_a_table_of_all() -> None:
    class Untouched(JobTable):
        @property
        def numbers(self) -> dict[str, int]:
            raise AssertionError("the numbers of all jobs were asked for")

    table = Untouched()
    assert table.add_planned(["a", "b", "c"], [None] * 3, unique=True)
    table.note_ended(1)
    assert table.number_of("b") == 1
    assert by_one(["a", "b", "c"], [None] * 3).number_of("c") == 2


def test_a_superseded_lease_is_not_what_its_worker_was_running() -> None:
    """Its job was completed by another worker meanwhile; after it came the one that ran to the end."""
    table = JobTable()
    table.apply(Leased(0, 1, 1, ["a", "b", "c"], "2025-10-14T21:00:00.000Z"))
    table.apply(
        Noted("superseded", "2025-10-14T21:00:01.000Z", {"job": "a", "lease": 1, "outcome": "completed"})
    )
    assert table.open_leases == {1: {2: table.numbers["b"], 3: table.numbers["c"]}}
