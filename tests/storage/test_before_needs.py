"""An experiment that was begun before jobs could say what they need: it is gone on with, with needs and without.

before_needs/ holds what a kill of the supervisor left on 29 November 2026: 7 jobs completed, one failed, two running,
three that wait behind one of these. (The machine has another name and another kernel there.) Its script says what
jobs need if there is a file "needy".
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from supervisor.reports.report import load
from tests.experiment_fixture import Experiment, experiment

pytestmark = pytest.mark.slow

__all__ = ["experiment"]

KEPT = Path(__file__).resolve().parent / "before_needs"
LOGS = [
    KEPT / f"{kind}_grow.{end}"
    for kind, end in (("journal", "jsonl"), ("plan", "jsonl"), ("checkpoint", "json"))
]


@pytest.fixture
def killed(experiment: Experiment) -> Experiment:
    """The experiment and its script, and what its jobs wait for."""
    logs = experiment.output / "logs"
    logs.mkdir(parents=True)
    for path in LOGS:
        shutil.copy(path, logs)
    experiment.script = experiment.folder / "grow.py"
    shutil.copy(KEPT / "grow.py", experiment.script)
    (experiment.folder / "mended").touch()
    return experiment


def kept_journal() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOGS[0].read_text().splitlines()]


def leases(experiment: Experiment) -> list[dict[str, Any]]:
    """The hand-outs of the runs since then."""
    return [record for record in experiment.journal()[len(kept_journal()) :] if record["type"] == "leased"]


def test_it_is_read_as_it_was(killed: Experiment) -> None:
    with load(killed.output) as report:
        counts = report.counts
        assert report.results() == {f"quick/{n}": {"n": n, "devices": None} for n in range(7)}
    assert (counts.completed, counts.failed, counts.in_progress, counts.pending) == (7, 1, 2, 3)


def test_a_resume_finishes_it_and_says_nothing_of_needs(killed: Experiment) -> None:
    done = killed.run("--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert "resuming: 7 completed, 1 failed to try again, 5 to run" in done.stderr
    assert killed.journal()[: len(kept_journal())] == kept_journal()
    final = killed.final()
    assert {entry["state"] for entry in final.values()} == {"completed"} and len(final) == 13
    assert [final[f"long/{n}"]["attempts"] for n in (8, 9)] == [2, 2], "lost, and run again"
    assert not any("given" in record for record in leases(killed))
    plan = killed.path("plan").read_bytes()
    assert plan == LOGS[1].read_bytes()


def test_jobs_that_say_now_what_they_need_are_the_same_jobs(killed: Experiment) -> None:
    (killed.folder / "needy").touch()
    env = {**killed.environment(), "CUDA_VISIBLE_DEVICES": "GPU-a"}
    done = killed.run("--resume", "latest", env=env)
    assert done.returncode == 75, done.stderr
    why = "job 'late/10': asks for license=1, but there is none (--resource license=N); 2 more jobs cannot run either"
    assert f"left pending: {why}" in done.stderr
    assert "10 completed, 0 failed, 0 in progress, 3 pending" in done.stderr
    given = {job: record["given"] for record in leases(killed) if "given" in record for job in record["jobs"]}
    assert given["fails"]["cpus"] == 2 and given["long/8"]["memory"] == 64 << 20
    last = killed.run("--resume", "latest", "--resource", "license=1", env=env)
    assert last.returncode == 0, last.stderr
    results = {job: entry["result"] for job, entry in killed.final().items()}
    assert {results[f"late/{n}"]["devices"] for n in (10, 11, 12)} == {"GPU-a"}
    assert all(results[f"quick/{n}"] == {"n": n, "devices": None} for n in range(7)), "not run again"
    lines = {line["id"]: line for line in map(json.loads, killed.path("plan").read_text().splitlines())}
    assert lines["late/10"]["needs"] == {"gpus": 0.5, "resources": {"license": 1}}
    assert lines["late/10"]["priority"] == -1 and lines["long/8"]["timeout"] == 3600.0
