"""docs/result-files.md: its tables have the keys of the files, and its commands read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.state.snapshot import NeedsSnapshot, UnfitJobs, WaitingJob
from supervisor.core.state.statistics import Statistics
from supervisor.reports.progress_file import ProgressSupervisor, ProgressWorker
from tests.docs.conftest import DOCS, ROOT, blocks, commands, longhaul

PAGE = ROOT / "docs" / "result-files.md"
SCRIPT = next(block.text for block in blocks(DOCS / "guide.md", "python") if block.file == "walk.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of walk.py, with jobs that fail in several ways and a result that is not finite."""
    path = tmp_path_factory.mktemp("files")
    bad = """def evaluate(dimensions, steps, walks=100):
    if (dimensions, steps) == (3, 10):
        raise FileNotFoundError(2, "no such table")
    if (dimensions, steps) == (3, 100):
        print("last words", flush=True)
        import os, signal
        os.kill(os.getpid(), signal.SIGSEGV)
    if (dimensions, steps) == (3, 1000):
        return object()
    if (dimensions, steps) == (2, 10):
        return {"returned": float("nan"), "all": [1.0, float("inf")]}
"""
    script = SCRIPT.replace("def evaluate(dimensions, steps, walks=100):\n", bad)
    script = script.replace('"steps": steps})', '"steps": steps}, cpus=2 if steps == 10 else None)')
    (path / "walk.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "walk.py", "--all-tasks", "--experiment-id", "first"],
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return path


def results(folder: Path) -> Path:
    return folder / "data" / "outputs" / "walk" / "first"


def loaded(folder: Path, name: str) -> Any:
    return json.loads((results(folder) / name).read_text())


def keys(head: str) -> list[str]:
    """The keys in the table with this head, in its order."""
    text = PAGE.read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    cells = [row.split("|")[1] for row in table.splitlines()]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_every_key_of_statistics_json_is_told_and_no_other(folder: Path) -> None:
    found = loaded(folder, "statistics.json")
    assert keys("key") == list(found)
    text = PAGE.read_text(encoding="utf-8")
    for name in (*found["counts"], *found["seconds"]):
        assert f"`{name}`" in text, name
    for domain in found["domains"].values():
        assert domain.keys() == {*found["counts"], "seconds"}
        assert domain["seconds"].keys() == found["seconds"].keys()
    counted = {name for name in Statistics.__struct_fields__ if not name.endswith(("_at", "_since"))}
    assert counted - {"outcomes"} <= found.keys()


def test_every_key_of_the_progress_file_is_told_and_no_other(folder: Path) -> None:
    (path,) = results(folder).parent.glob("logs/progress_*.json")
    found = json.loads(path.read_text())
    of_nodes = {"nodes"}  # of a run on several nodes: tests/nodes
    assert [key for key in keys("key of the document") if key not in of_nodes] == list(found)
    assert keys("key of `needs`") == list(NeedsSnapshot.__struct_fields__)
    text = PAGE.read_text(encoding="utf-8")
    for struct in (WaitingJob, UnfitJobs, ProgressWorker, ProgressSupervisor):
        assert all(f"`{name}`" in text for name in struct.__struct_fields__), struct


def test_every_key_of_a_job_is_told_and_no_other(folder: Path) -> None:
    entries = loaded(folder, "logs_final.json")
    of_nodes = {"place"}  # of a run on several nodes: tests/nodes
    assert {key for entry in entries for key in entry} == set(keys("key of a job")) - of_nodes
    told = keys("key of `error`")
    in_errors = {key for entry in entries for key in entry.get("error", {})}
    assert {"where", "errno", "value_repr", "signal", "quarantined", "output_tail"} <= in_errors
    assert in_errors <= set(told)
    source = Path(sys.modules[Ledger.__module__].__file__ or "").read_text()
    assert set(re.findall(r'error\["(\w+)"\]', source)) <= set(told)


def test_logs_final_json_is_one_array_with_one_job_a_line(folder: Path) -> None:
    lines = (results(folder) / "logs_final.json").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("[", "]")
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == loaded(folder, "logs_final.json")


@pytest.mark.skipif(not shutil.which("jq"), reason="no jq here")
def test_jq_reads_them(folder: Path) -> None:
    table, numbers = (
        subprocess.run(words, cwd=results(folder), capture_output=True, text=True, check=True).stdout
        for words in commands(PAGE)
        if words[0] == "jq"
    )
    assert [line.split(",")[:2] for line in table.splitlines()][:2] == [
        ['"1d/10"', "10"],
        ['"1d/100"', "100"],
    ]
    assert json.loads(numbers)["failed"] == 3


def test_pandas_reads_them(folder: Path) -> None:
    pytest.importorskip("pandas")
    (script,) = blocks(PAGE, "python")
    done = subprocess.run(
        [sys.executable, "-c", script.text], cwd=results(folder), capture_output=True, text=True, check=True
    )
    assert "params.steps" in done.stdout and "1d/1000" in done.stdout
    with_nan = pytest.importorskip("pandas").read_json(results(folder).parent / "walk.jsonl", lines=True)
    numbers = pytest.importorskip("pandas").to_numeric(with_nan["result.returned"])
    assert numbers.isna().sum() == 4


@pytest.fixture(scope="module", autouse=True)
def table(folder: Path) -> list[str]:
    """What the commands of the page print."""
    found = []
    for words in [words for words in commands(PAGE) if words[0] == "longhaul"]:
        code, printed = longhaul(folder, *words[1:])
        assert code == 0, printed
        found.append(printed)
    (results(folder).parent / "walk.jsonl").write_text(found[2])
    return found


def test_the_commands_choose_and_sort(table: list[str], folder: Path) -> None:
    heads, *rows = (line.split() for line in table[0].splitlines())
    assert heads == ["job", "params.steps", "result.returned"]
    numbers = [float(row[2]) for row in rows if len(row) == 3 and row[2] != "nan"]
    assert len(numbers) == 5 and numbers == sorted(numbers, reverse=True)
    lines = [json.loads(line) for line in table[2].splitlines()]
    (bad,) = [line for line in lines if line["job"] == "2d/10"]
    assert bad == {"job": "2d/10", "result.returned": "nan", "result.all": [1.0, "inf"]}
    assert '"[1.0,""inf""]"' in (folder / "walk.csv").read_text()
