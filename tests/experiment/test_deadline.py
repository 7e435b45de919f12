"""`--deadline`: a clock, a duration, or the end of a Slurm allocation."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from supervisor.core.terms.errors import TooLate, UsageError
from supervisor.core.terms.settings import Settings, parse_value
from supervisor.experiment.deadline import FINISHING, deadline_of

NOW = datetime(2025, 10, 14, 21, 0, 0)


def drains_at(text: str, **environment: str) -> datetime:
    found = deadline_of(Settings(deadline=text), NOW, environment)
    assert found is not None
    return datetime.fromtimestamp(found.drain_at)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("07:30", datetime(2025, 10, 15, 7, 30)),
        ("23:15", datetime(2025, 10, 14, 23, 15)),
        ("2025-10-16T06:00", datetime(2025, 10, 16, 6, 0)),
        ("8h", datetime(2025, 10, 15, 5, 0)),
        ("1-12:00:00", datetime(2025, 10, 16, 9, 0)),
    ],
)
def test_the_drain_begins_before_the_deadline(text: str, end: datetime) -> None:
    assert (end - drains_at(parse_value("deadline", text))).total_seconds() == 20.0 + FINISHING


def test_the_end_of_the_allocation_comes_from_the_environment_or_from_scontrol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = datetime(2025, 10, 15, 6, 0)
    assert drains_at("slurm", SLURM_JOB_END_TIME=str(int(end.timestamp()))) < end
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        '#!/bin/sh\necho "JobId=$4 StartTime=2025-10-14T20:00:00 EndTime=2025-10-15T06:00:00 X=1"\n'
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert (end - drains_at("slurm", SLURM_JOB_ID="12")).total_seconds() == 20.0 + FINISHING
    scontrol.write_text("#!/bin/sh\necho slurm_load_jobs error\n")
    with pytest.raises(UsageError, match="when job 12 ends"):
        drains_at("slurm", SLURM_JOB_ID="12")


def test_slurm_outside_of_slurm_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="SLURM_JOB_ID is not set"):
        drains_at("slurm")


@pytest.mark.parametrize("text", ["10s", "21:00:00", "2025-10-14T20:00", "2025-02-31T10:00"])
def test_a_deadline_that_leaves_no_time_is_refused(text: str) -> None:
    if text == "21:00:00":  # that is a duration
        assert drains_at(text) > NOW
        return
    with pytest.raises(UsageError, match="--deadline"):
        drains_at(text)


@pytest.mark.parametrize("text", ["21:00", "slurm"])
def test_a_deadline_that_is_near_only_now_is_no_wrong_option(text: str) -> None:
    """The same command is right an hour later, or in the next allocation."""
    end = NOW.replace(second=10)
    now = NOW.replace(hour=20, minute=59, second=50)
    with pytest.raises(TooLate, match="nothing can be started before") as error:
        deadline_of(Settings(deadline=text), now, {"SLURM_JOB_END_TIME": str(int(end.timestamp()))})
    assert error.value.exit_code == 76


@pytest.mark.parametrize("text", ["99999999d", "2920000d", "9" * 200])
def test_a_deadline_beyond_the_calendar_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError, match="too far in the future"):
        drains_at(text)


@pytest.mark.parametrize("value", ["soon", "25:00", "7:3", "0", "-1h", True, "slurm?"])
def test_what_is_no_deadline(value: object) -> None:
    with pytest.raises(UsageError, match="07:30"):
        parse_value("deadline", value)


def test_no_deadline_is_the_default_and_none_takes_it_away() -> None:
    assert deadline_of(Settings()) is None
    assert parse_value("deadline", "none") is None
    assert msgspec.convert({"deadline": "07:30"}, Settings).deadline == "07:30"
