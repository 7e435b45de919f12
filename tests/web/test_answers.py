"""What the API answers about an experiment that is over: shapes, filters, bounds; nothing is left out silently."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import COMPLETED, FAILED, PENDING
from supervisor.page.timeline import Timeline
from supervisor.page.worker_bins import WorkerBins
from supervisor.reports.progress_file import ProgressFile
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from supervisor.web.experiment_watch import ExperimentWatch
from supervisor.web.job_pages import PER_PAGE, JobChoices, JobFilter, parse_filter
from supervisor.web.live_documents import live_document
from supervisor.web.text_pieces import MOST_BYTES
from supervisor.web.time_documents import MOST_CELLS, TimePicture, lanes_answer, parse_stretch
from tests.experiment_fixture import ROOT, Experiment, wait_for
from tests.views.made import node, snapshot
from tests.web.serving import Served, end, served

SCRIPT = """
from supervisor import Job, main
from workers import current_job
def evaluate(kind, depth):
    print(f"printed by {kind} {depth}")
    if kind == "long":
        print("0123456789\\n" * 50_000)
    if kind == "bad" or (kind == "flaky" and current_job().attempt == 1):
        raise ValueError(f"no such split: {depth}")
    return {"score": depth / 2}
KINDS = ("good", "bad", "flaky")
JOBS = [Job(id=f"{k}/{n}", domain=k, params={"kind": k, "depth": n}) for k in KINDS for n in range(100)]
JOBS.append(Job(id="long", params={"kind": "long", "depth": 0}))
if __name__ == "__main__":
    main(evaluate, JOBS, name="trial", workers=2, all_tasks=True, retries=1, backoff=0)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("starlette")
    folder: Path = tmp_path_factory.mktemp("web")
    (folder / "exp.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "exp.py", "--experiment-id", "night"]
    assert (
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode == 1
    )
    found = served(folder)
    wait_for(lambda: is_read(found), "the journal to be read")
    yield found
    end(found)


def is_read(server: Served) -> bool:
    """Whether the answers of the server are those that they stay: on a busy machine it is slower than the first ask."""
    live = server.of("live")
    return bool(
        live["complete"] and live["failure_groups"] and sum(one["failed"] for one in live["domains"]) == 100
    )


def test_the_list_and_the_head(server: Served) -> None:
    found = server.get("experiments")
    assert (found["total"], found["complete"]) == (1, True)
    (entry,) = found["experiments"]
    assert (entry["id"], entry["name"], entry["state"], entry["live"]) == (
        "night",
        "trial",
        "finished",
        False,
    )
    live = server.of("live")
    assert entry["counts"].items() <= live["counts"].items()
    assert (live["counts"]["completed"], live["counts"]["failed"], live["over"], live["orders"]) == (
        201,
        100,
        True,
        False,
    )
    assert {one["domain"]: one["failed"] for one in live["domains"]} == {"good": 0, "bad": 100, "flaky": 0}


def test_an_etag_spares_what_has_not_changed(server: Served) -> None:
    path = f"/api/x/{server.key}/live"
    status, headers, _ = server.ask("GET", path)
    assert status == 200
    status, _, text = server.ask("GET", path, If_None_Match=headers["etag"])
    assert (status, text) == (304, b"")


def test_jobs_are_filtered_sorted_and_paged(server: Served) -> None:
    first, second = server.of("jobs"), server.of("jobs?page=2")
    assert (first["total"], first["pages"], len(first["jobs"]), len(second["jobs"])) == (
        301,
        2,
        PER_PAGE,
        101,
    )
    ids = [one["id"] for one in first["jobs"] + second["jobs"]]
    assert len({*ids}) == 301 and ids[0] == "good/0" and ids[-1] == "long"
    assert server.of("jobs?page=9")["page"] == 2
    assert {one["state"] for one in server.of("jobs?state=failed")["jobs"]} == {"failed"}
    assert server.of("jobs?domain=flaky&q=9")["total"] == 19
    assert server.of(f"jobs?q={quote('state:failed domain:bad 7')}")["total"] == 19
    assert [one["id"] for one in server.of(f"jobs?q={quote('GOOD/?')}")["jobs"]] == [
        f"good/{n}" for n in range(10)
    ]
    seconds = [one["seconds"] for one in server.of("jobs?sort=-seconds")["jobs"]]
    assert seconds == sorted(seconds, reverse=True)
    assert server.of("jobs?domain=none")["total"] == 0


@pytest.mark.parametrize(
    "query",
    [
        "jobs?state=odd",
        "jobs?sort=odd",
        "jobs?page=0",
        "jobs?page=x",
        "log?from=-1",
        "timeline?from=x",
        "timeline?from=2&to=1",
        "series?width=0",
        "plot?x=seconds",
        "plot?x=odd&y=seconds",
    ],
)
def test_what_makes_no_sense_is_said(server: Served, query: str) -> None:
    status, _, text = server.ask("GET", f"/api/x/{server.key}/{query}")
    assert status == 400
    assert set(json.loads(text)) == {"error", "hint"}


def test_a_job_has_its_attempts_result_and_output(server: Served) -> None:
    flaky = server.of("job?id=flaky/3")
    assert [one["outcome"] for one in flaky["attempts"]] == ["raised", "completed"]
    assert json.loads(flaky["result"]) == {"score": 1.5}
    assert json.loads(flaky["params"]) == {"kind": "flaky", "depth": 3}
    assert "ValueError" in flaky["attempts"][0]["error"]["traceback"]
    bad = server.of("job?id=bad/3")
    assert (bad["state"], bad["result"], len(bad["attempts"]), bad["attempts_total"]) == (
        "failed",
        None,
        2,
        2,
    )
    assert "--- attempt 2 ---" in server.of("output?id=bad/3")["text"]


def test_output_comes_in_pieces_that_join(server: Served) -> None:
    tail = server.of("output?id=long")
    assert tail["from"] > 0 and tail["complete"] and len(tail["text"]) <= MOST_BYTES
    pieces, at, complete = [], 0, False
    while not complete:
        piece = server.of(f"output?id=long&from={at}")
        assert len(piece["text"]) <= MOST_BYTES and piece["next"] > at
        pieces.append(piece["text"])
        at, complete = piece["next"], piece["complete"]
    whole = "".join(pieces)
    assert (len(pieces), at) == (3, piece["total"])
    assert whole.count("0123456789\n") == 50_000 and whole.startswith("printed by long 0\n")


def test_failures_are_grouped(server: Served) -> None:
    found = server.of("failures")
    (group,) = found["groups"]
    assert (found["total"], found["failed"], group["failed"], group["attempts"]) == (1, 100, 100, 300)
    assert group["jobs_total"] == len(group["jobs"]) == 100


def test_the_timeline_has_lanes_and_series(server: Served) -> None:
    lanes, series = server.of("timeline"), server.of("series")
    assert (lanes["total"], lanes["complete"], lanes["slots"]) == (501, True, [0, 1])
    assert sorted(lanes["lanes"]["outcome"]) == [0] * 201 + [1] * 100 + [2] * 200
    assert sum(series["series"]["ended"]) == 501 and sum(series["series"]["failed"]) == 300
    late = server.of(f"timeline?from={lanes['origin'] + 10_000}")
    assert late["lanes"]["slot"] == []


def test_results_as_columns_points_and_csv(server: Served) -> None:
    columns = server.of("columns")
    assert (columns["rows"], columns["total"], columns["complete"]) == (301, 301, True)
    names = [one["name"] for one in columns["columns"]]
    assert names[:4] == ["job", "domain", "state", "seconds"] and "result.score" in names
    plot = server.of("plot?x=params.depth&y=result.score&color=domain")
    assert (plot["total"], plot["points_total"], len(plot["points"]["job"])) == (301, 201, 201)
    assert plot["points"]["y"]["values"][:3] == [0.0, 0.5, 1.0]
    status, headers, text = server.ask("GET", f"/api/x/{server.key}/results.csv?state=failed&q=9")
    rows = list(csv.DictReader(io.StringIO(text.decode())))
    assert status == 200 and headers["content-disposition"] == 'attachment; filename="night.csv"'
    assert len(rows) == 19 and {row["state"] for row in rows} == {"failed"}


# ------------------------------------------------------------------------------- alone


def test_an_experiment_that_cannot_be_used_is_not_called_finished(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "night")
    layout.logs.mkdir()
    layout.journal.write_text("garbage\n")
    layout.checkpoint.write_text("{")
    watch = ExperimentWatch(layout)
    try:
        watch.refresh()
        found = live_document(layout, "key", watch, may_steer=True)
        assert (found["state"], found["complete"], found["orders"]) == ("unusable", False, False)
        assert "damaged" in found["trouble"]
    finally:
        watch.close()


def test_a_run_that_has_just_ended_has_the_counts_of_its_end(experiment: Experiment) -> None:
    """Its last lines have not been read yet: on a busy machine that takes longer than a request may wait."""
    experiment.made("night", ["a", "b"], name="some")
    watch = ExperimentWatch(Layout(experiment.output, "night"))
    try:
        watch.refresh()
        assert watch.table is not None
        watch.table.state[:] = bytes([PENDING]) * 2
        found = live_document(watch.layout, "key", watch, may_steer=True)
        assert (found["state"], found["counts"]["completed"], found["resume"]) == ("finished", 2, {})
    finally:
        watch.close()


@pytest.mark.parametrize("several", [True, False])
def test_a_live_run_on_several_machines_shows_its_nodes(tmp_path: Path, several: bool) -> None:
    layout = Layout(tmp_path, "night")
    layout.logs.mkdir()
    nodes = [node(0), node(1)] if several else None
    ProgressFile(layout).write(snapshot(experiment_id="night", nodes=nodes), [])
    lock = Lock.acquire(layout.lock, "night")
    watch = ExperimentWatch(layout)
    try:
        found = live_document(layout, "key", watch, may_steer=True)
        assert found["live"] and ("nodes" in found) == several
        if several:
            assert [one["node"] for one in found["nodes"]] == ["node0 (host)", "node1 (host)"]
            assert {"load": 3.9, "cpu_percent": 385.0, "heard_age": 2.0}.items() <= found["nodes"][0].items()
    finally:
        watch.close()
        lock.release()


def test_a_choice_is_kept_until_the_table_has_changed() -> None:
    table = JobTable()
    for number in range(1000):
        table.add(f"job/{number}")
    choices = JobChoices()
    wanted = JobFilter(text="7", sort="-seconds")
    found = choices.chosen(table, wanted, {}, 1)
    assert choices.chosen(table, wanted, {}, 1) is found
    table.state[7] = FAILED
    time.sleep(0.05)  # a search may be reused for some twenty times as long as it took
    assert list(choices.chosen(table, JobFilter(state="failed"), {}, 2)) == [7]
    table.state[8] = COMPLETED
    assert len(choices.chosen(table, JobFilter(state="pending"), {}, 2)) == 998


def test_an_id_with_brackets_is_found_by_what_stands_in_it() -> None:
    table = JobTable()
    for job_id in ("T1", "T[1,1]", "layers=[64,32]"):
        table.add(job_id)
    found = JobChoices().chosen(table, JobFilter(text="T[1,1]"), {}, 1)
    assert list(found) == [0, 1]
    assert list(JobChoices().chosen(table, JobFilter(text="[64,"), {}, 1)) == [2]


def test_a_filter_that_is_being_typed_is_no_error() -> None:
    assert parse_filter({"q": "state:fa iris"}) == JobFilter("iris", "failed", None, "")
    assert parse_filter({"q": "state:odd"}) == JobFilter("state:odd", "", None, "")
    assert parse_filter({"q": 'domain:"a b" x'}) == JobFilter("x", "", "a b", "")


def test_bins_are_as_fine_as_the_stretch_allows() -> None:
    timeline = Timeline(most_attempts=0)
    timeline.attempts = None
    timeline.bins = WorkerBins()
    for slot in range(4):
        timeline.bins.add_batch(slot, [float(at) for at in range(1, 40_000)], [1.0] * 39_999, [0] * 39_999)
    picture = TimePicture(timeline, None)

    def asked(**query: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = lanes_answer(picture, parse_stretch(query), [], complete=True)[
            "lanes"
        ]
        return found

    whole = asked()
    assert len(whole["slot"]) <= MOST_CELLS and sum(whole["ended"]) == 4 * 39_999
    part = asked(**{"from": "1000", "to": "1100"})
    assert part["width"] == 1.0 and 400 <= len(part["slot"]) <= 408
    assert len(asked(width="10")["slot"]) <= 40
