"""Batches that are damaged: that the damage is done as it is said, and that what is measured is what has happened."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools import bench
from tools.benchmark.child_processes import QUICK, Bench, Failed
from tools.benchmark.peers import ALL_PEERS
from tools.damage import damage_samples
from tools.damage.batch_process import BatchProcess, Notes, of_joblog
from tools.damage.damage_jobs import LONG, RESUMED, SHORT, Batch, job, write_script
from tools.damage.damage_programs import CONTENDERS, is_here
from tools.damage.damage_samples import Damage, last_line, last_outcome, last_pickle, tear
from tools.damage.damage_table import DAMAGE_KEYS, crash_in_words, kill_in_words, table, torn_in_words

LEAST = Damage(
    good=20, starts=3, jobs=12, done=6, torn_jobs=8, torn_done=5, cuts=(0.5,), watched=1.0, patience=60.0
)
PARALLEL = pytest.mark.skipif(shutil.which("parallel") is None, reason="GNU parallel is not installed")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(damage_samples, "QUICK", LEAST)
    return Bench(tmp_path, QUICK)


# ------------------------------------------------------------------------------ the jobs


def by_python(task: str, folder: Path) -> int:
    code = f"from tools.damage.damage_jobs import job; job({task!r})"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


def by_script(task: str, folder: Path) -> int:
    return subprocess.run([str(write_script(folder / "job.sh")), task], check=False).returncode


@pytest.mark.parametrize("run", [by_python, by_script])
def test_a_job_notes_its_begin_and_its_end_and_one_that_crashes_only_its_begin(
    run: Callable[[str, Path], int], tmp_path: Path
) -> None:
    batch = Batch(str(tmp_path), 3, crash=2)
    codes = [run(task, tmp_path) for task in batch.tasks()]
    assert codes == [0, -signal.SIGSEGV, 0]
    notes = [note[:2] for note in Notes(batch.notes).read()]
    assert notes == [("begun", 1), ("done", 1), ("begun", 2), ("begun", 3), ("done", 3)]


def test_the_last_jobs_are_long_until_the_batch_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(str(tmp_path), 5, long_from=4)
    seconds = [float(task.split(":")[1]) for task in batch.tasks()]
    assert seconds == [SHORT, SHORT, SHORT, LONG, LONG]
    slept: list[float] = []
    monkeypatch.setattr("tools.damage.damage_jobs.time.sleep", slept.append)
    job(batch.tasks()[-1])
    Path(f"{batch.notes}{RESUMED}").touch()
    job(batch.tasks()[-1])
    assert slept == [LONG, SHORT]


def test_notes_are_read_on_also_when_a_line_is_not_whole_yet(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    notes = Notes(path)
    assert notes.read() == []
    path.write_text("begun 1 77\ndone 1")
    assert notes.read() == [("begun", 1, 77)]
    with path.open("a") as file:
        file.write("2 77\n")
    assert notes.read() == [("done", 12, 77)]
    assert notes.done() == {12}


# ------------------------------------------------------------------------------ torn records

JOURNAL = b'{"n":1,"type":"ended","job":"1"}\n{"n":2,"type":"ended","job":"2"}\n{"n":3,"type":"leased"}\n'
JOBLOG = b"Seq\tHost\n1\t:\t1.5\n2\t:\t2.5\n"
PICKLES = b"".join(pickle.dumps({"hash": "0123", "result": number}) for number in range(3))


@pytest.mark.parametrize("cut", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    ("contender", "name", "text", "find", "kept"),
    [
        ("longhaul", "logs/journal_1.jsonl", JOURNAL, last_outcome, JOURNAL[: JOURNAL.index(b'{"n":2')]),
        ("parallel", "joblog", JOBLOG, last_line, JOBLOG[: JOBLOG.index(b"2\t:")]),
        ("parsl", "runinfo/000/checkpoint/tasks.pkl", PICKLES, last_pickle, PICKLES[: len(PICKLES) * 2 // 3]),
        ("joblib", "cache/f/0/output.pkl", PICKLES, lambda text: (0, len(text)), b""),
    ],
)
def test_a_torn_record_ends_in_the_middle_of_the_last_one(
    contender: str,
    name: str,
    text: bytes,
    find: Callable[[bytes], tuple[int, int]],
    kept: bytes,
    cut: float,
    tmp_path: Path,
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    assert tear(contender, tmp_path, cut) == path
    left = path.read_bytes()
    _, end = find(text)
    assert left.startswith(kept)
    assert len(kept) < len(left) < end - 1  # something of it is there, and more than its newline is missing
    assert text.startswith(left)


def test_a_torn_transaction_is_half_in_the_file_and_is_rolled_back(tmp_path: Path) -> None:
    path = tmp_path / "dbos.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE workflow_status (workflow_uuid, status, output, inputs, updated_at)")
    connection.execute("CREATE TABLE operation_outputs (workflow_uuid)")
    rows = [(f"job-{number}", "SUCCESS", "out", "in" * 500, number) for number in range(1, 41)]
    connection.executemany("INSERT INTO workflow_status VALUES (?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    tear("dbos", tmp_path, 0.5)
    assert b"SUCCESS" in path.read_bytes()
    assert b"00" * 2000 in path.read_bytes()  # of the torn transaction
    assert Path(f"{path}-journal").stat().st_size > 0
    connection = sqlite3.connect(path)
    found = connection.execute(
        "SELECT workflow_uuid, status, output, length(inputs) FROM workflow_status"
    ).fetchall()
    connection.close()
    assert found[-1] == ("job-40", "PENDING", None, 1000)
    assert found[0] == ("job-1", "SUCCESS", "out", 1000)
    assert {row[3] for row in found} == {1000}


def test_a_real_journal_is_torn_in_the_record_of_the_last_job_that_ended(tmp_path: Path) -> None:
    batch = Batch(str(tmp_path), 4)
    with BatchProcess("longhaul", batch) as process:
        process.start()
        assert process.wait(60)[1]["done"] == [1, 2, 3, 4]
    path = next(tmp_path.glob(CONTENDERS["longhaul"].record))
    whole = path.read_bytes().splitlines()
    ended = [number for number, line in enumerate(whole) if json.loads(line)["type"] == "ended"]
    assert tear("longhaul", tmp_path, 0.5) == path
    *lines, torn = path.read_bytes().splitlines()
    assert lines == whole[: ended[-1]]
    assert 0 < len(torn) < len(whole[ended[-1]])
    with pytest.raises(ValueError, match=r"."):
        json.loads(torn)


# ------------------------------------------------------------------------------ processes


def test_only_the_runner_is_killed_and_what_it_leaves_is_found_and_ended(tmp_path: Path) -> None:
    batch = Batch(str(tmp_path), 4, long_from=1)
    with BatchProcess("executor", batch) as process:
        process.start()
        notes = Notes(batch.notes)
        notes.wait_for(lambda _: len(notes.lines) == 2, process, 60)
        process.kill()
        left = process.left()
        assert len(left) >= 2  # the workers of ProcessPoolExecutor, in their jobs
    assert not any(each.is_running() and each.status() != "zombie" for each in left)


def test_who_ends_before_the_notes_are_there_has_failed(tmp_path: Path) -> None:
    with BatchProcess("executor", Batch(str(tmp_path), 2)) as process:
        process.start()
        with pytest.raises(Failed, match="ended before"):
            Notes(tmp_path / "others").wait_for(lambda _: False, process, 60)


# ------------------------------------------------------------------------------ for real


def test_with_longhaul_the_batch_finishes_and_the_job_that_crashes_is_blamed(place: Bench) -> None:
    found = damage_samples.crash(place, "longhaul")
    assert (found["finished"], found["starts"], found["results"]) == (True, 1, LEAST.good)
    assert (found["guilty"], found["innocent"], found["crashes"]) == ("crashed", [], 3)


def test_a_pool_that_breaks_is_started_again_and_never_finishes(place: Bench) -> None:
    found = damage_samples.crash(place, "executor")
    assert (found["finished"], found["starts"], found["crashes"]) == (False, LEAST.starts, LEAST.starts)
    assert found["guilty"] == "BrokenProcessPool"
    assert found["innocent"]


@PARALLEL
def test_a_program_that_crashes_is_told_from_the_job_log(place: Bench) -> None:
    found = damage_samples.crash(place, "parallel")
    assert (found["finished"], found["guilty"], found["innocent"]) == (True, "SIGSEGV", [])


def test_after_a_kill_longhaul_goes_on_and_leaves_nobody(place: Bench) -> None:
    found = damage_samples.kill(place, "longhaul")
    assert found["jobs"] == found["results"] == LEAST.jobs
    assert found["done"] >= LEAST.done
    assert found["again"] < LEAST.done
    assert (found["orphans"], found["went_on"], found["twice"], found["left"]) == ([], 0, 0, [])
    assert found["first_new"] > 0


def test_after_a_kill_a_pool_runs_everything_again_while_its_orphans_compute_on(place: Bench) -> None:
    found = damage_samples.kill(place, "executor")
    assert found["again"] == found["done"]
    assert found["orphans"]
    assert found["results"] == LEAST.jobs
    assert found["went_on"] >= found["twice"] > 0


def test_a_torn_journal_costs_the_job_and_no_other(place: Bench) -> None:
    found = damage_samples.torn(place, "longhaul")
    for cut in found["cuts"]:
        assert (cut["refused"], cut["again_later"], cut["results"]) == ("", 0, LEAST.torn_jobs)
        assert cut["again"] <= 1  # none, if a checkpoint was there already
    with pytest.raises(Failed, match="keeps no record"):
        damage_samples.torn(place, "executor")


def test_of_a_job_log_only_whole_lines_say_something(tmp_path: Path) -> None:
    log = tmp_path / "joblog"
    lines = [
        "Seq\tHost",
        "1\t:\t1796.5\t     0.008\t0\t0\t0\t0\tjob 1",
        "2\t:\t1796.5\t     0.008\t0\t0\t0\t11\tjob 2",
    ]
    lines += [
        "3\t:\t1796.5\t     1.008\t0\t0\t1\t0\tjob 3",
        "4\t:\t17965\t:\t1796.5\t     0.008\t0\t0\t0\t0\tjob 5",
    ]
    log.write_text("".join(f"{line}\n" for line in lines))
    assert of_joblog(log, "") == {"done": [1], "blamed": {2: "SIGSEGV", 3: "exit code 1"}, "lost": ""}
    log.unlink()
    assert of_joblog(log, "refused") == {"done": [], "blamed": {}, "lost": "refused"}


@PARALLEL
@pytest.mark.parametrize(("contender", "refuses"), [("parallel", False), ("parallel-failed", True)])
def test_a_torn_line_of_a_job_log_counts_as_done_or_is_refused(
    contender: str, refuses: bool, place: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage_samples, "QUICK", LEAST._replace(cuts=(0.1,)))
    (cut,) = damage_samples.torn(place, contender)["cuts"]
    assert (cut["refused"] != "", cut["again"], cut["results"] < LEAST.torn_jobs) == (refuses, 0, True)


# ------------------------------------------------------------------------------ words


def crashed(**more: Any) -> dict[str, Any]:
    base = {"good": 50, "results": 50, "starts": 1, "finished": True, "guilty": "crashed", "innocent": []}
    return {**base, "lost": "", "seconds": 2.0, "crashes": 3, **more}


def test_a_crash_is_told_in_words() -> None:
    assert crash_in_words([crashed(), crashed(seconds=4.0)]) == (
        "all 50 others complete, one start, 3.0 s; blamed: that job, `crashed`"
    )
    broken = crashed(results=25, starts=6, finished=False, guilty="BrokenProcessPool", innocent=[27, 28])
    assert crash_in_words([crashed(), broken]).endswith(
        "blamed: `BrokenProcessPool` for it and 2 innocent jobs"
    )
    lost = crashed(results=0, starts=6, finished=False, guilty="", lost="TerminatedWorkerError")
    assert (
        crash_in_words([lost])
        == "**0 of 50** others after 6 starts; blamed: nobody (`TerminatedWorkerError`)"
    )


def test_a_kill_is_told_in_words() -> None:
    found = {"jobs": 12_000, "done": 10_000, "again": 3, "orphans": [], "left": [], "went_on": 0, "twice": 0}
    found |= {"first_new": 0.5, "results": 12_000}
    assert kill_in_words([found, {**found, "again": 483}]) == (
        "3 to 483 finished jobs run again (of 12,000 jobs with 10,000 done); no process is left 5 s later; "
        "first new job after 0.5 s"
    )
    worse = {**found, "orphans": ["interchange.py"], "went_on": 2, "twice": 2, "results": 11_999}
    assert (
        "5 s later 1 process left (`interchange.py`); 2 jobs went on to the end without it, 2 of them twice"
        in (kill_in_words([found, worse]))
    )
    assert kill_in_words([worse]).endswith("1 results missing")


def torn(cut: float, **more: Any) -> dict[str, Any]:
    return {"cut": cut, "refused": "", "again": 1, "again_later": 0, "results": 40, "code": 0, **more}


def test_a_torn_record_is_told_in_words() -> None:
    assert torn_in_words([{"jobs": 40, "cuts": [torn(0.2), torn(0.5)]}]) == "that job runs again"
    refused = torn(0.2, refused="parsl.errors.BadCheckpoint: Failed to load: DIR/tasks.pkl", results=0)
    counted = torn(0.5, again=0, again_later=1, results=39)
    assert torn_in_words([{"jobs": 40, "cuts": [refused, counted]}]) == (
        "with 20% of it left: **refused**: `BadCheckpoint`; "
        "with 50% of it left: counted as done, 1 record missing; the next start runs 1 finished job again"
    )
    wrong = [
        torn(cut, refused=f"parallel: Error: 'joblog' is wrong: 30\t:\t{cut}", results=0)
        for cut in (0.2, 0.5)
    ]
    assert (
        torn_in_words([{"jobs": 40, "cuts": wrong}])
        == "**refused**: `parallel: Error: 'joblog' is wrong: 30`"
    )


def test_the_table_has_a_line_for_each_contender_and_says_what_was_left_out() -> None:
    rounds = [{"longhaul/crash": crashed()}]
    text = table(
        ["crash", "torn"], rounds, {"parsl": "not installed"}, {"executor/torn": "it keeps | no record\n"}
    )
    lines = text.splitlines()
    assert len(lines) == 2 + len(CONTENDERS)
    assert {line.count("|") for line in lines if "keeps" not in line} == {4}
    assert "one start" in lines[2]
    assert any("Parsl" in line and "not installed" in line for line in lines)


# ------------------------------------------------------------------------------ as rows of the benchmark


def test_damages_are_measured_only_when_they_are_named() -> None:
    everybody = ["longhaul", *ALL_PEERS]
    assert not any(
        sample.endswith(("/crash", "/kill", "/torn")) for sample in bench.samples_for(None, everybody)
    )
    named = bench.samples_for(["damage:torn"], ["longhaul", "executor"])
    assert set(named) >= {"longhaul/torn", "executor/torn"}
    assert {sample.partition("/")[2] for sample in named} == {"torn"}
    assert {key for key in DAMAGE_KEYS if bench.parse(["--only", key]).only == [key]} == set(DAMAGE_KEYS)


def test_whoever_is_here_takes_part() -> None:
    named = bench.samples_for(
        ["damage:kill", "peers"], ["longhaul", "executor", "prefect", "parallel-failed"]
    )
    assert {"prefect/kill", "parallel-failed/kill", "executor/kill"} <= set(named)
    assert {"executor/tiny", "longhaul/tiny"} <= set(named)
    assert "prefect/tiny" not in named
    assert is_here(CONTENDERS["executor"])
    assert not is_here(CONTENDERS["executor"]._replace(module="not_there"))


def test_peers_with_records_are_measured_only_when_they_are_named() -> None:
    everybody = ["longhaul", *ALL_PEERS]
    assert not any(
        sample.startswith(("parsl/", "dbos/", "submitit/")) for sample in bench.samples_for(None, everybody)
    )
    named = bench.samples_for(["peers-with-records"], everybody)
    assert {"parsl/tiny", "dbos/cpu_10ms", "submitit/tiny", "longhaul/tiny"} <= set(named)


def test_a_row_of_damages_is_measured_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(damage_samples, "QUICK", LEAST)
    monkeypatch.setattr(bench, "two_cores", lambda: None)
    others = {
        "metaflow": CONTENDERS["metaflow"]._replace(module="not_there"),
        "executor": CONTENDERS["executor"],
    }
    monkeypatch.setattr(bench, "CONTENDERS", others)
    words = ["--quick", "--only", "damage:crash", "--directory", str(tmp_path / "out")]
    assert bench.main(words) == 0
    said, told = capsys.readouterr()
    assert "metaflow is left out: not installed" in told
    assert re.search(r"^\| Metaflow.* \| not installed \|$", said, re.MULTILINE)
    assert "`BrokenProcessPool` for it and" in said  # a second of work was left when it broke
    assert list((tmp_path / "out").iterdir()) == []
