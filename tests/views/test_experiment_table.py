"""The table of what can be resumed."""

from __future__ import annotations

import time

import pytest

from supervisor.views.experiment_table import CheckpointRow, checkpoint_table, no_checkpoints
from tests.views.made import counts


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_a_table_of_experiments_newest_last() -> None:
    rows = [
        CheckpointRow("second", "interrupted", counts(), "2025-10-15T06:40:00Z"),
        CheckpointRow("first", "finished", counts(72, 0, 0, 0), "2025-10-14T23:40:00.123Z"),
    ]
    assert checkpoint_table(rows, "python exp.py --resume ID").splitlines() == [
        "experiment  state           completed  failed   left  saved",
        "first       finished         72 of 72       0      0  2025-10-14 23:40:00",
        "second      interrupted  740 of 2,000       3  1,257  2025-10-15 06:40:00",
        "",
        "resume with: python exp.py --resume ID   (or --resume latest)",
    ]


def test_experiments_of_several_names_are_told_apart() -> None:
    rows = [CheckpointRow("x", "?", counts(), "", "a"), CheckpointRow("x", "?", counts(), "", "b\n")]
    lines = checkpoint_table(rows).splitlines()
    assert [line.split()[0] for line in lines] == ["name", "a", "b"]
    assert lines[1].endswith("?")


def test_nothing_found_names_the_directory() -> None:
    assert no_checkpoints("/data/logs") == "No checkpoints found to resume from in /data/logs"
