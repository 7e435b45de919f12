"""When the first 20 attempts all fail alike, it is said at once and once."""

from __future__ import annotations

from supervisor.views.failure_lines import FirstFailures
from tests.views.made import crash, failure


def test_the_twentieth_failure_of_one_kind_is_told_once() -> None:
    first = FirstFailures()
    said = [first.failed(failure(str(n))) for n in range(40)]
    assert said[:19] == [None] * 19
    assert said[19] == (
        "the first 20 attempts all failed alike: ValueError model.py:88: no such split. Ctrl+C stops the run."
    )
    assert said[20:] == [None] * 20


def test_one_success_or_another_kind_of_failure_ends_the_watch() -> None:
    first = FirstFailures()
    first.failed(failure())
    first.completed()
    assert [first.failed(failure()) for _ in range(30)] == [None] * 30

    first = FirstFailures()
    first.failed(crash())
    assert [first.failed(failure()) for _ in range(30)] == [None] * 30


def test_crashes_by_the_same_signal_are_alike() -> None:
    first = FirstFailures()
    assert "SIGSEGV" in [first.failed(crash(str(n), peak_rss=n)) or "" for n in range(20)][-1]
