"""What came of it: the final files, the report, the progress file."""

from __future__ import annotations

import json
import math
import statistics
from array import array
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.state.domain_counts import DomainCounts
from supervisor.core.state.snapshot import (
    FailureSnapshot,
    NeedsSnapshot,
    RunSnapshot,
    WaitingJob,
    WorkerSnapshot,
)
from supervisor.core.terms.errors import JobsFailed, StorageError, UsageError
from supervisor.core.terms.jobs import Counts
from supervisor.core.terms.records import Ended, Leased
from supervisor.reports import final_files
from supervisor.reports.final_files import statistics_document, write_reports
from supervisor.reports.hand_outs import HandOuts
from supervisor.reports.progress_file import ProgressFile, read_progress
from supervisor.reports.report import Report, load
from supervisor.reports.result_reader import Results
from tests.storage.made import AT, Made, expected

IDS = ["iris/a", "iris/b", "wine/c", "wine/d", "plain"]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """iris/a, iris/b and plain completed, wine/c failed, wine/d never ran."""
    made = Made(tmp_path, threads=True).create(IDS)
    made.hand_out(*IDS[:3])
    made.end("iris/b", "iris/a")
    made.end("wine/c", outcome="raised")
    table = made.store.table
    table.move(4, "completed")
    table.attempts[4] = 1
    record = Ended("plain", 1, 9, "completed", "completed", 2.0, 0, AT)
    record.result = type(record.result)(b'{"loss":null,"bounds":[0,null],"a/b":null}')
    record.nonfinite = [("/loss", "nan"), ("/bounds/1", "-inf"), ("/a~1b", "inf")]
    table.seconds[4] = 2.0
    made.store.append([record])
    return made


def written(made: Made) -> Report:
    made.store.save(made.position())
    report = write_reports(made.store, state="stopped")
    made.store.release()
    return report


def test_final_log_has_one_object_per_job_in_plan_order(made: Made) -> None:
    written(made).close()
    text = made.layout.final.read_text()
    entries: list[dict[str, Any]] = json.loads(text)
    assert [entry["job"] for entry in entries] == IDS
    assert len(text.splitlines()) == len(IDS) + 2
    first, failed, pending, odd = entries[0], entries[2], entries[3], entries[4]
    assert first == {
        "job": "iris/a",
        "domain": "iris",
        "params": {"name": "iris/a"},
        "state": "completed",
        "attempts": 1,
        "seconds": 0.25,
        "result": expected(IDS)["iris/a"],
    }
    assert failed["state"] == "failed"
    assert set(failed["error"]) >= {"outcome", "type", "message", "traceback"}
    assert "result" not in failed
    assert (pending["state"], pending["attempts"]) == ("pending", 0)
    assert (odd["domain"], odd["result"]["loss"], odd["nonfinite"][0]) == (None, None, ["/loss", "nan"])


def test_statistics_have_the_promised_keys(made: Made) -> None:
    written(made).close()
    document = json.loads(made.layout.statistics.read_bytes())
    assert document["counts"] == {"total": 5, "completed": 3, "failed": 1, "in_progress": 0, "pending": 1}
    assert document["seconds"] == {"mean": 2.5 / 3, "median": 0.25, "p95": 2.0, "max": 2.0, "total": 2.5}
    assert document["domains"]["iris"]["completed"] == 2
    assert document["domains"]["iris"]["seconds"]["total"] == 0.5
    assert document["domains"]["wine"]["seconds"]["mean"] is None
    for key in ("wall_seconds", "jobs_per_second", "crashes", "timeouts", "retries", "runs"):
        assert key in document
    assert document["runs"] == 1
    assert document["checkpoint_seconds"] == 0  # of the loop's time
    assert document["checkpoint_seconds_at_end"] >= 0


@pytest.mark.parametrize(("cores", "share"), [(4, 0.375), (1, 1.0), (0, 0.75)])
def test_utilisation_is_of_the_cores_and_not_of_the_workers(made: Made, cores: int, share: float) -> None:
    """Two workers were busy for 15 s of 10 s. Records of older versions have no cores: then it is of the workers."""
    with written(made) as report:
        history = report._results.history
        assert history.run_started is not None
        history.run_started = msgspec.structs.replace(history.run_started, cores=cores)
        report.statistics.busy_seconds, report.statistics.active_seconds = 15.0, 10.0
        document = statistics_document(report, "finished")
    assert (document["utilisation"], document["cores"]) == (share, cores or 2)


@pytest.mark.parametrize("few", [10_000, 3])
@given(st.lists(st.integers(0, 9).map(lambda tenths: tenths / 10), min_size=1, max_size=50))
def test_ranks_are_those_of_the_sorted_durations_whether_counted_or_sorted(
    few: int, durations: list[float]
) -> None:
    with mock.patch.object(final_files, "_FEW", few):
        spread = final_files._spread(array("d", durations))
    ordered = sorted(durations)
    assert spread["median"] == statistics.median(ordered)
    assert spread["p95"] == ordered[math.ceil(0.95 * len(ordered)) - 1]
    assert spread["max"] == ordered[-1]
    assert spread["total"] == pytest.approx(sum(ordered))


def test_the_report_restores_what_json_cannot_say(made: Made) -> None:
    report = written(made)
    results = report.results()
    assert list(results) == ["iris/a", "iris/b", "plain"]
    assert math.isnan(results["plain"]["loss"])
    assert results["plain"]["bounds"] == [0, -math.inf]
    assert results["plain"]["a/b"] == math.inf
    assert "3 completed" in repr(report)
    report.close()


def test_rows_are_flat(made: Made) -> None:
    with written(made) as report:
        rows = report.rows()
    assert rows[0] == {
        "job": "iris/a",
        "domain": "iris",
        "state": "completed",
        "seconds": 0.25,
        "outcome": "completed",
        "params.name": "iris/a",
        "result.of": "iris/a",
        "result.x": 1.5,
        "code": None,
    }
    assert rows[3] == {
        "job": "wine/d",
        "domain": "wine",
        "state": "pending",
        "seconds": None,
        "outcome": None,
        "params.name": "wine/d",
        "code": None,
    }
    assert rows[2] == {
        "job": "wine/c",
        "domain": "wine",
        "state": "failed",
        "seconds": 0.25,
        "outcome": "raised",
        "params.name": "wine/c",
        "error.type": "ValueError",
        "error.message": "no",
        "code": None,
    }


def test_failures_are_listed_and_can_be_raised(made: Made) -> None:
    with written(made) as report:
        (failure,) = report.failures()
        assert (failure.job, failure.domain, failure.type, failure.final) == (
            "wine/c",
            "wine",
            "ValueError",
            True,
        )
        with pytest.raises(JobsFailed, match=r"1 of 5 jobs failed in e1: wine/c: ValueError no"):
            report.raise_for_failures()


def test_load_reads_a_running_experiment_without_touching_it(made: Made) -> None:
    made.hand_out("wine/d")
    before = {path.name: path.read_bytes() for path in made.layout.logs.iterdir()}
    with load(made.layout.directory) as report:
        assert report.experiment_id == "e1"
        assert report.directory == made.layout.directory
        assert report.counts == Counts(total=5, completed=3, failed=1, in_progress=1, pending=0)
        assert report.rows()[3]["state"] == "in_progress"
        assert len(report.results()) == 3
    assert {path.name: path.read_bytes() for path in made.layout.logs.iterdir()} == before
    made.end("wine/d")
    with load(str(made.layout.directory), "e1") as report:
        assert report.counts.completed == 4


def test_load_says_what_there_is(tmp_path: Path, made: Made) -> None:
    with pytest.raises(UsageError, match="there are: e1"):
        load(tmp_path, "e2")
    with pytest.raises(UsageError, match="no experiments found"):
        load(tmp_path / "elsewhere")


def test_final_files_that_cannot_be_written_are_told(made: Made) -> None:
    made.layout.results_directory.write_text("in the way")
    made.store.save(made.position())
    with pytest.raises(StorageError, match="resume"):
        write_reports(made.store, state="stopped")


def snapshot(made: Made, state: str = "running") -> RunSnapshot:
    worker = WorkerSnapshot(
        0, 4242, 1, "ready", job="wine/d", attempt=1, since=AT, rss_bytes=5, cpu_percent=99.0
    )
    return RunSnapshot(
        experiment_id="e1",
        name="made",
        directory=str(made.layout.directory),
        state=state,
        counts=made.store.table.counts(),
        elapsed=3.0,
        rate=1.5,
        eta_seconds=2.0,
        workers=[worker],
        domains=DomainCounts(made.store.table).counted([made.store.table.numbers["wine/d"]]),
    )


def test_what_was_given_is_found_by_the_lease() -> None:
    big, shared = {"cpus": 4}, {"cpus": 1, "gpus": ["0"], "gpu_share": 0.5}
    hand_outs = [
        Leased(0, 1, 3, ["a", "b"], AT, big),
        Leased(1, 2, 7, ["c"], AT, shared),
        Leased(0, 1, 8, ["d"], AT, big),
        Leased(2, 3, 9, ["e"], AT, big, "node1 (b)"),
        Leased(2, 3, 10, ["f"], AT, {}, "node1 (b)"),
    ]
    known = HandOuts(hand_outs)
    assert [known.of(lease)[1] for lease in range(8, 12)] == ["", "node1 (b)", "node1 (b)", ""]
    found = {lease: bytes(known.of(lease)[0]) for lease in range(12)}
    assert {lease: json.loads(text) for lease, text in found.items() if text} == {
        3: big,
        4: big,
        7: shared,
        8: big,
        9: big,
    }


def test_the_journal_is_not_read_again_if_no_job_says_what_it_needs(made: Made) -> None:
    made.hand_out("wine/d")
    results = Results.of_store(made.store.parts)
    with mock.patch.object(results, "hand_outs_with_needs", side_effect=AssertionError):
        text = b"".join(Report(results).final_text())
    assert b'"needs"' not in text and b'"given"' not in text


def test_the_progress_file_has_the_promised_keys(made: Made) -> None:
    progress = ProgressFile(made.layout)
    made.hand_out("wine/d")
    failure = FailureSnapshot("wine/c", "wine", "raised", "ValueError", "no", "m.py:3", 1, True)
    now = snapshot(made)
    now.disk_free, now.memory_free, now.memory_total, now.grace_left, now.crashes = 7, 5, 9, 2.5, 3
    assert progress.write(now, [failure])
    document = json.loads(made.layout.progress.read_bytes())
    assert document["experiment_id"] == "e1"
    told = read_progress(made.layout)
    assert told is not None
    assert (told.disk_free, told.memory_free, told.memory_total) == (7, 5, 9)
    assert (told.grace_left, told.crashes, told.retries, told.checkpoint_age) == (2.5, 3, 0, None)
    assert document["state"] == "running"
    assert document["domains"]["iris"] == {
        "total": 2,
        "completed": 2,
        "failed": 0,
        "in_progress": 0,
        "pending": 0,
    }
    assert document["domains"]["wine"]["in_progress"] == 1
    assert (document["rate"], document["eta_seconds"]) == (1.5, 2.0)
    assert set(document["supervisor"]) == {"pid", "host"}
    (worker,) = document["workers"]
    assert (worker["worker"], worker["pid"], worker["job"], worker["since"]) == (0, 4242, "wine/d", AT)
    assert (worker["rss_bytes"], worker["cpu_percent"]) == (5, 99.0)
    assert document["recent_failures"][0]["job"] == "wine/c"
    assert progress.write(snapshot(made, "stopped"), [])
    assert json.loads(made.layout.progress.read_bytes())["state"] == "interrupted"


def test_the_progress_file_tells_of_needs_only_if_jobs_have_some(made: Made) -> None:
    progress = ProgressFile(made.layout)
    assert progress.write(snapshot(made), [])
    assert "needs" not in json.loads(made.layout.progress.read_bytes())
    read = read_progress(made.layout)
    assert read is not None and "needs" not in msgspec.to_builtins(read)
    needs = NeedsSnapshot((1, 2.5), waiting=WaitingJob("wine/d", "2 cores (none free)"))
    assert progress.write(msgspec.structs.replace(snapshot(made), needs=needs), [])
    document = json.loads(made.layout.progress.read_bytes())
    assert document["needs"] == {
        "cpus": [1, 2.5],
        "waiting": {"job": "wine/d", "lacks": "2 cores (none free)"},
    }
    read = read_progress(made.layout)
    assert read is not None and read.needs == needs


def test_progress_that_cannot_be_written_is_no_reason_to_stop(made: Made) -> None:
    made.layout.progress.mkdir()
    assert ProgressFile(made.layout).write(snapshot(made), []) is False


def test_large_parameters_are_read_a_few_at_a_time(made: Made) -> None:
    results = Results.of_store(made.store.parts)
    for job in range(len(made.store.table)):
        made.store.plan.lengths[job] = 3 << 20
    assert [list(group) for group in results.groups(range(4))] == [[0], [1], [2], [3]]


def test_a_closed_report_says_so(made: Made) -> None:
    with load(made.layout.directory) as report:
        assert len(report.results()) == report.counts.completed
    with pytest.raises(UsageError, match="closed"):
        report.results()
