"""The example: its task list, its function, and what it prints."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", reason="scikit-learn, which the example uses, is not installed")

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "examples" / "experiment_2025-10-14.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("experiment_2025_10_14", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_task_list_is_what_its_tool_writes(example: Any) -> None:
    tool = [sys.executable, str(ROOT / "tools" / "make_tasks.py")]
    written = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    assert example.TASKS.read_text(encoding="utf-8") == written


def test_there_are_twelve_tasks_for_each_of_six_domains(example: Any) -> None:
    jobs = list(example.jobs(argparse.Namespace(tasks=example.TASKS)))
    assert len({job.id for job in jobs}) == 72
    assert {domain: sum(job.domain == domain for job in jobs) for domain in example.LOADERS} == dict.fromkeys(
        example.LOADERS, 12
    )


def test_a_task_gives_the_same_result_again(example: Any) -> None:
    job = next(job for job in example.jobs(argparse.Namespace(tasks=example.TASKS)) if job.domain == "iris")
    few = {**job.params, "repeats": 1}
    result = example.evaluate(**few)
    assert result == example.evaluate(**few)
    assert result["metric"] == "balanced_accuracy"
    assert result["mean"] > 0.8
    assert result["folds"] == 5


def test_the_table_shows_the_best_of_each_domain(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def row(job: str, mean: float, state: str = "completed") -> dict[str, Any]:
        domain = job.partition("/")[0]
        scores = (
            {"result.mean": mean, "result.sd": 0.01, "result.metric": "r2"} if state == "completed" else {}
        )
        return {"job": job, "domain": domain, "state": state, **scores}

    rows = [row("wine/a", 0.5), row("wine/b", 0.75), row("iris/c", -0.25), row("iris/d", 9.0, "failed")]
    example.best_table(types.SimpleNamespace(rows=lambda: rows))
    _, header, wine, iris = capsys.readouterr().out.splitlines()
    assert header.split() == ["domain", "best", "configuration", "metric", "mean", "±", "sd", "tried"]
    assert wine.split() == ["wine", "b", "r2", "0.750", "±", "0.010", "2"]
    assert iris.split() == ["iris", "c", "r2", "-0.250", "±", "0.010", "1"]


def test_a_task_list_of_ones_own_is_run(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    params = {"dataset": "iris", "model": "bayes", "options": {}, "repeats": 1}
    tasks.write_text(json.dumps({"id": "iris/bayes", "domain": "iris", "params": params}) + "\n")
    command = [
        sys.executable,
        str(SCRIPT),
        "--tasks",
        str(tasks),
        "--output",
        str(tmp_path / "out"),
        "--workers",
        "1",
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "bayes" in run.stdout
    (final,) = (tmp_path / "out").rglob("logs_final.json")
    (job,) = json.loads(final.read_text())
    assert job["state"] == "completed"
    assert job["result"]["mean"] > 0.9
