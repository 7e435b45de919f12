"""The first jobs of an experiment, as its index has them: those of a survey. Without an index that fits, nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.storage.checkpoint import checkpoint_writer
from supervisor.storage.files.layout import Layout
from supervisor.storage.plan.plan_line import gone_line
from supervisor.storage.recovery.first_jobs import first_jobs
from supervisor.storage.recovery.survey import survey
from tools.benchmark.long_history import write_history


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(checkpoint_writer, "ENOUGH", 0)
    return write_history(str(tmp_path), 300, failing=0.1)


def test_they_are_those_of_a_survey(layout: Layout) -> None:
    found = survey(layout)
    early = first_jobs(layout, 200)
    assert early is not None and early.total == 300
    assert early.table.ids == found.table.ids[:200]
    assert early.table.state == found.table.state[:200]
    assert early.table.attempts == found.table.attempts[:200]
    assert early.table.seconds == found.table.seconds[:200]
    assert early.table.outcome == {job: how for job, how in found.table.outcome.items() if job < 200}
    assert early.table.outcome and len(found.table.outcome) > len(early.table.outcome)
    domains = [found.table.domains[number] for number in found.table.domain_of[:200]]
    assert [early.table.domains[number] for number in early.table.domain_of] == domains
    found.close()


def test_there_may_be_fewer_than_are_asked_for(layout: Layout) -> None:
    early = first_jobs(layout, 999)
    assert early is not None and len(early.table) == early.total == 300


def test_an_index_that_does_not_fit_tells_nothing(layout: Layout) -> None:
    plan = layout.plan.read_bytes()
    layout.plan.write_bytes(gone_line("d0/run/0") + plan)
    assert first_jobs(layout, 200) is None
    layout.plan.write_bytes(b"".join(plan.splitlines(keepends=True)[:100]))
    assert first_jobs(layout, 200) is None
    layout.plan.write_bytes(b"\0" + plan)
    assert first_jobs(layout, 200) is None
    layout.plan.write_bytes(plan)
    assert first_jobs(layout, 200) is not None
    checkpoint = layout.checkpoint.read_bytes()
    another = b"1" if checkpoint[-4:-3] == b"0" else b"0"
    layout.checkpoint.write_bytes(checkpoint[:-4] + another + checkpoint[-3:])
    assert first_jobs(layout, 200) is None
    layout.checkpoint.write_bytes(checkpoint[:-9])
    assert first_jobs(layout, 200) is None
    layout.checkpoint.write_bytes(checkpoint)
    layout.index.unlink()
    assert first_jobs(layout, 200) is None
