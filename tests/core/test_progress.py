from __future__ import annotations

import pytest

from supervisor.core.state import domain_counts
from supervisor.core.state.domain_counts import DomainCounts
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import Counts


def table_of(jobs: int) -> JobTable:
    table = JobTable()
    for number in range(jobs):
        table.add(f"job/{number}", ("even", "odd", None)[number % 3])
    for number, moves in enumerate(("completed", "failed", "", "interrupted", "")):
        table.move(number, "leased")
        if moves:
            table.move(number, moves)
    return table


def test_each_domain_has_counts_of_its_own() -> None:
    counted = DomainCounts(table_of(9)).counted([4])
    assert counted == {"even": Counts(3, 1, 0, 1, 1), "odd": Counts(3, 0, 1, 1, 1)}


def test_leased_jobs_that_wait_in_a_worker_are_pending() -> None:
    assert DomainCounts(table_of(9)).counted([])["odd"] == Counts(3, 0, 1, 0, 2)


def test_many_jobs_are_counted_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain_counts, "_BLOCK", 10)
    table = table_of(95)
    whole = DomainCounts(table_of(95)).counted([4], to_the_end=True)
    counts = DomainCounts(table)
    assert [counts.counted([4]) for _ in range(5)] == [{}, {}, {}, {}, whole]
    table.move(5, "leased")
    assert counts.counted([4]) == whole, "a new sweep has begun"
    table.move(6, "leased")
    table.move(6, "failed")
    assert counts.counted([4], to_the_end=True)["even"].failed == 1
