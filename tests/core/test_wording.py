"""Numbers and strange texts, as people read them."""

from __future__ import annotations

import errno
import unicodedata
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.terms import wording
from supervisor.core.terms.errors import StorageError

EVENING = datetime(2025, 10, 14, 22, 30)  # a Tuesday


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.42, "0.4s"),
        (9.97, "10s"),
        (42, "42s"),
        (59.7, "1m 00s"),
        (200, "3m 20s"),
        (3599.6, "1h 00m"),
        (2 * 3600 + 13 * 60, "2h 13m"),
        (3 * 86400 + 4 * 3600, "3d 4h"),
    ],
)
def test_a_duration_has_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0, "22:30"), (8, "06:30"), (32, "Thu 06:30"), (24 * 8, "2025-10-22"), (1e12, "in years")],
)
def test_an_end_time_is_a_clock_time(hours: float, text: str) -> None:
    assert wording.clock(EVENING, hours * 3600) == text


def test_an_end_that_nobody_knows_is_not_told() -> None:
    assert wording.ends_about(EVENING, None) == ""
    assert wording.ends_about(EVENING, 8 * 3600 + 600) == "ends about 06:40"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0B"),
        (900, "900B"),
        (1536, "1.5K"),
        (412 << 20, "412M"),
        (2 << 30, "2.0G"),
        (1 << 60, "1,048,576T"),
    ],
)
def test_sizes_are_in_the_units_of_the_options(number: int, text: str) -> None:
    assert wording.size(number) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(460_000, "460,000 jobs/s"), (1.23, "1.2 jobs/s"), (0.5, "30 jobs/min"), (0.001, "3.6 jobs/h")],
)
def test_a_rate_has_the_unit_that_makes_it_readable(per_second: float, text: str) -> None:
    assert wording.rate(per_second) == text


def test_a_hundred_percent_means_all() -> None:
    assert wording.percent(999_999, 1_000_000) == "99%"
    assert wording.percent(5, 5) == "100%"
    assert wording.percent(0, 0) == "0%"


def test_a_signal_without_a_name_keeps_its_number() -> None:
    assert wording.signal_name(11) == "SIGSEGV"
    assert wording.signal_name(99) == "signal 99"


@given(st.text())
def test_no_text_of_a_stranger_steers_the_terminal(text: str) -> None:
    hostile = f"\x1b[2J{text}\x1b]0;title\x07\r\n\x9b31m"
    for line in [wording.one_line(hostile), *wording.printed_lines(hostile), *wording.told_lines(hostile)]:
        assert not {unicodedata.category(c) for c in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_of_a_progress_bar_the_last_state_is_shown() -> None:
    assert wording.printed_lines("start\n 10%\r 20%\r\n\tend\x1b[0m\n") == ["start", " 20%", "    end"]


def test_of_an_error_all_lines_are_shown() -> None:
    assert wording.told_lines("cause\rmore\r\n\tend\x1b[0m\n") == ["cause", "more", "    end"]


@given(st.text(), st.integers(min_value=0, max_value=50))
def test_what_is_shortened_fits(text: str, width: int) -> None:
    assert len(wording.shorten(text, width)) <= width
    assert len(wording.cut(text, max(1, width))) <= max(1, width)


def test_an_id_keeps_both_its_ends() -> None:
    assert wording.shorten("iris/forest/with/many/parts/200", 16) == "iris/fores…s/200"


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.EIO, "fix the disk"),
        (errno.EMFILE, "allow more open files"),
        (errno.ENFILE, "allow more open files"),
    ],
)
def test_a_limit_of_open_files_is_not_blamed_on_the_disk(number: int, step: str) -> None:
    said = str(StorageError.with_advice(OSError(number, "it failed", "plan.jsonl"), "start again"))
    assert f"What was recorded is safe; {step}" in said and said.endswith(", then start again.")
