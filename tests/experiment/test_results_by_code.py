"""Which code each result was made by, whatever files are left of the experiment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.terms.code_spans import UNKNOWN, CodeSpan
from supervisor.experiment.results_by_code import MadeBy
from supervisor.reports.report import load
from supervisor.storage.checkpoint import checkpoint_writer
from supervisor.storage.files.layout import Layout
from supervisor.storage.recovery.survey import survey
from tests.storage.made import Made

IDS = [f"job/{number}" for number in range(8)]
SPANS = [CodeSpan("aaaa", 3, ["mylib.py"]), CodeSpan("bbbb", 5, ["exp.py"]), CodeSpan("aaaa", 7)]
MADE = [UNKNOWN, UNKNOWN, "aaaa", "aaaa", "bbbb", "bbbb", "aaaa"]  # by lease; job/7 has none


@pytest.fixture(params=["all", "with an index", "no journal", "no checkpoint", "written anew", "damaged"])
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Layout:
    """Four runs, the first one by an older longhaul; of the second result of each, it is its only one."""
    if request.param == "with an index":
        monkeypatch.setattr(checkpoint_writer, "ENOUGH", 0)
    made = Made(tmp_path).create(IDS)
    made.hand_out(*IDS[:2])
    made.end(*IDS[:2])
    for number, jobs in enumerate((IDS[2:4], IDS[4:6], IDS[6:7]), 1):
        made.finish()
        made = Made(tmp_path)
        made.codes = SPANS[:number]
        made.resume()
        made.hand_out(*jobs)
        made.end(*jobs)
    made.finish()
    _SPOILED.get(request.param, lambda layout: None)(made.layout)
    return made.layout


def _written_anew(layout: Layout) -> None:
    layout.journal.unlink()
    made = Made(layout.directory)
    made.codes = SPANS
    made.resume().finish()


def _damage(layout: Layout) -> None:
    lines = layout.journal.read_bytes().split(b"\n")
    at = next(place for place, line in enumerate(lines) if b'"job":"job/3"' in line)
    lines[at] = lines[at].replace(b"completed", b"complated")
    layout.journal.write_bytes(b"\n".join(lines))


_SPOILED: dict[str, Callable[[Layout], None]] = {
    "no journal": lambda layout: layout.journal.unlink(),
    "no checkpoint": lambda layout: layout.checkpoint.unlink(),
    "written anew": _written_anew,
    "damaged": _damage,
}


def test_each_result_has_the_version_of_its_run(layout: Layout) -> None:
    found = survey(layout)
    made_by = MadeBy(found)
    assert [made_by.version(job) for job in range(7)] == MADE
    assert made_by.counts() == {UNKNOWN: 2, "aaaa": 3, "bbbb": 2}
    assert made_by.counts([0, 2, 4, 7]) == {UNKNOWN: 1, "aaaa": 2, "bbbb": 1}
    found.close()
    with load(layout.directory) as report:
        assert [row["code"] for row in report.rows()] == [
            *(None if version == UNKNOWN else version for version in MADE),
            None,
        ]


def test_while_there_is_one_code_no_record_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tmp_path)
    made.codes = [CodeSpan("aaaa", 1)]
    made.create(IDS)
    made.hand_out(*IDS)
    made.end(*IDS[:5])
    made.finish()
    found = survey(made.layout)
    monkeypatch.setattr(found, "parts", None)
    made_by = MadeBy(found)
    assert made_by.counts() == {"aaaa": 5} and made_by.counts([0, 7]) == {"aaaa": 4}
    assert made_by.version(3) == "aaaa"
    found.close()
