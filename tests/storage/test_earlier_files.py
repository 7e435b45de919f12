"""Files that an earlier longhaul has written: read, shown, checked, and gone on with.

killed_run/ is an experiment as longhaul left it on 28 November 2026, before results named the code that
made them. The first run was interrupted by Ctrl+C. The second one, of a longer plan, ran a job again and
was killed after three new ones: these stand in the journal behind the position of the checkpoint and of
the index, two leases are open, and the progress file says that it runs. (An index was written from 5
finished jobs on, and a job that interrupts itself waited 10 ms.) expected.json holds what `load` gave.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisor.reports.report import Report, load
from supervisor.storage.checkpoint.journal_index import Index
from tests.experiment_fixture import Experiment, experiment

pytestmark = pytest.mark.slow

__all__ = ["experiment"]

KEPT = Path(__file__).resolve().parent / "killed_run"
EXPECTED: dict[str, Any] = json.loads((KEPT / "expected.json").read_text())
NEW_KEYS = {"code"}  # of a row, since then
LONG = ["long/0", "long/1"]
FAILED = ["wish/hopeless", "bad/raises", "bad/exits", "bad/slow", "bad/object"]


@pytest.fixture
def killed(experiment: Experiment) -> Experiment:
    """The experiment and its script, in a folder of its own."""
    for part in ("logs", "walk"):
        shutil.copytree(KEPT / part, experiment.output / part)
    experiment.script = experiment.folder / "walk.py"
    shutil.copy(KEPT / "walk.py", experiment.script)
    (experiment.folder / "more").touch()  # the script gives late/0 to late/2 as well
    return experiment


def remains(experiment: Experiment) -> dict[str, bytes]:
    return {
        str(path.relative_to(experiment.output)): path.read_bytes()
        for path in experiment.output.rglob("*")
        if path.is_file()
    }


def same(one: Any, other: Any) -> bool:
    """Equal, with NaN equal to NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and bool(one == other)


def rows(report: Report) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in NEW_KEYS} for row in report.rows()]


def check(report: Report) -> None:
    assert all(same(row, before) for row, before in zip(rows(report), EXPECTED["rows"], strict=True))
    assert same(report.results(), EXPECTED["results"]) and list(report.results()) == list(EXPECTED["results"])
    assert msgspec.structs.asdict(report.counts) == EXPECTED["counts"]
    known = msgspec.structs.asdict(report.statistics)
    assert {key: known[key] for key in EXPECTED["statistics"]} == pytest.approx(EXPECTED["statistics"])
    found = [{key: getattr(one, key) for key in EXPECTED["failures"][0]} for one in report.failures()]
    assert found == EXPECTED["failures"]


# -------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("missing", [(), ("index",), ("checkpoint",), ("progress",)])
def test_it_is_read_as_it_was_whatever_of_its_files_is_left(
    killed: Experiment, missing: tuple[str, ...]
) -> None:
    for kind in missing:
        killed.path(kind).unlink()
    before = remains(killed)
    with load(killed.output) as report:
        assert (report.experiment_id, report.name, report.directory) == ("walk", "walk", killed.output)
        check(report)
    assert remains(killed) == before


def test_results_are_read_without_the_plan(killed: Experiment) -> None:
    killed.path("plan").unlink()
    with load(killed.output, "walk") as report:
        found = report.results()
    assert same({job: found[job] for job in EXPECTED["results"]}, EXPECTED["results"])
    assert len(found) == len(EXPECTED["results"])


def test_the_index_is_read_where_it_is_of_the_jobs_of_the_plan(
    killed: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stood after the first run: the checkpoint, the journal up to it, and its 14 jobs."""
    position = killed.checkpoint()["journal"]["position"]
    killed.path("journal").write_bytes(killed.path("journal").read_bytes()[:position])
    plan = killed.path("plan").read_bytes().splitlines(keepends=True)
    killed.path("plan").write_bytes(b"".join(plan[:14]))
    read: list[int] = []
    load_index = Index.load

    def noted(self: Index, table: Any, locations: Any) -> None:
        load_index(self, table, locations)
        read.append(len(table))

    monkeypatch.setattr(Index, "load", noted)
    final = json.loads((killed.output / "walk" / "logs_final.json").read_text())
    with load(killed.output) as report:
        text = b"".join(report.final_text())
    assert read == [14]
    for entry in final:
        if entry["state"] == "in_progress":
            entry["seconds"] = 0.0  # a checkpoint has the seconds of finished jobs
    assert json.loads(text) == final


def test_with_the_checkpoint_alone_what_finished_before_it_is_read(killed: Experiment) -> None:
    killed.path("journal").unlink()
    with load(killed.output) as report:
        found = report.results()
    assert set(found) == {"value/0", "value/1", "value/2", "value/3", "value/nan", "wish/retry", "bad/flaky"}
    assert all(same(value, EXPECTED["results"][job]) for job, value in found.items())


def test_values_that_are_not_finite_and_errors_under_earlier_names_are_what_they_were(
    killed: Experiment,
) -> None:
    with load(killed.output) as report:
        value = report.results()["value/nan"]
        failures = {one.job: one for one in report.failures()}
    assert math.isnan(value["mean"]) and value["bounds"] == [-math.inf, 1.5] and value["name"] == "grün"
    assert list(failures) == FAILED
    one = failures["wish/hopeless"]
    assert (one.type, one.outcome, one.attempt) == ("workers.Interrupted", "raised", 11)
    assert failures["bad/exits"].exit_code == 3


# ------------------------------------------------------------------------------- commands


def longhaul(experiment: Experiment, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", *words, "-d", os.fspath(experiment.output)],
        env=experiment.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_each_command_shows_it_and_changes_nothing(killed: Experiment) -> None:
    before = remains(killed)
    (listed,) = json.loads(longhaul(killed, "list", "--json"))
    assert (listed["experiment_id"], listed["state"], listed["counts"]) == (
        "walk",
        "unfinished",
        EXPECTED["counts"],
    )
    status = longhaul(killed, "status")
    assert status.startswith("walk walk: died") and "--resume walk" in status
    found = [json.loads(line) for line in longhaul(killed, "results", "-f", "jsonl").splitlines()]
    assert [(row["job"], row["state"]) for row in found] == [
        (row["job"], row["state"]) for row in EXPECTED["rows"]
    ]
    shown = longhaul(killed, "show", "wish/hopeless")
    assert "attempt 11: workers.Interrupted at walk.py:50: again" in shown and "| --- attempt 11 ---" in shown
    assert "before   " in longhaul(killed, "show", "value/0"), "it was run again"
    assert "long/1: attempt 1" in longhaul(killed, "output", "long/1")
    groups = json.loads(longhaul(killed, "failures", "--json"))
    by_kind = {group["kind"]: (group["jobs"], group["again"]) for group in groups}
    assert by_kind["workers.Interrupted walk.py:50"] == (["wish/hopeless"], [])
    assert by_kind["ValueError walk.py:52"] == (["bad/raises"], ["bad/raises"])
    assert by_kind["OSError walk.py:38"] == ([], ["bad/flaky"])
    verified = longhaul(killed, "verify")
    assert [
        line.split()[:2] for line in verified.splitlines() if line.startswith("  ") and "note" not in line
    ] == [
        ["journal", "good"],
        ["plan", "good"],
        ["checkpoint", "good"],
        ["progress", "good"],
        ["final", "files"],
    ]
    assert remains(killed) == before


# ------------------------------------------------------------------------------- resuming


@pytest.fixture
def finished(killed: Experiment) -> Iterator[Experiment]:
    """Resumed, with what the long jobs wait for."""
    (killed.folder / "mended").touch()
    done = killed.run("--resume", "latest")
    assert done.returncode == 1, done.stderr
    assert "10 completed, 2 to run; 5 failed stay as they are" in done.stderr
    return killed


def test_a_resume_finishes_it_and_keeps_every_result(finished: Experiment) -> None:
    with load(finished.output) as report:
        found, failed = report.results(), [one.job for one in report.failures()]
        counts, statistics = report.counts, report.statistics
    assert {job: found.pop(job) for job in LONG} == {job: {"starts": 3} for job in LONG}, (
        "saved by two attempts"
    )
    assert same(found, EXPECTED["results"]) and failed == FAILED
    assert (counts.completed, counts.failed, counts.in_progress, counts.pending) == (12, 5, 0, 0)
    assert statistics.runs == 3
    assert statistics.lost == 2, "the two that were running"
    assert statistics.attempts == EXPECTED["statistics"]["attempts"] + 4, "these, and what came of them"
    ends = [record for record in finished.journal() if record["type"] == "ended" and record["job"] in LONG]
    assert [end["outcome"] for end in ends] == ["interrupted"] * 2 + ["lost"] * 2 + ["completed"] * 2
    assert finished.journal()[: len(kept := kept_journal())] == kept
    assert "17 jobs" in longhaul(finished, "verify") and "good" in longhaul(finished, "verify")


def kept_journal() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (KEPT / "logs" / "journal_walk.jsonl").read_text().splitlines()]


def test_its_failed_jobs_are_tried_again(finished: Experiment) -> None:
    done = finished.run("--resume", "latest", "--retry-failed")
    assert done.returncode == 0, done.stderr
    final = finished.final()
    assert {entry["state"] for entry in final.values()} == {"completed"} and len(final) == 17
    assert [final[job]["attempts"] for job in FAILED] == [12, 3, 2, 2, 2]
    statistics = finished.statistics()
    assert (statistics["runs"], statistics["lost"], statistics["crashes"]) == (4, 2, 1)
    assert statistics["counts"]["completed"] == 17
