"""docs/bounds-and-retries.md is run: its scripts and its commands do what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.conftest import ROOT, blocks, commands

PAGE = ROOT / "docs" / "bounds-and-retries.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bounds")
    for block in blocks(PAGE, "python"):
        assert block.file, "every script names its file"
        (path / block.file).write_text(block.text)
    return path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def final(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    (path,) = folder.glob(f"data/outputs/{name}/*/logs_final.json")
    return {entry["job"]: entry for entry in json.loads(path.read_text())}


def test_a_job_asks_for_another_attempt_or_gives_up(folder: Path) -> None:
    assert ["python", "fetch.py"] in commands(PAGE)
    done = run(folder, "fetch.py")
    assert done.returncode == 1, done.stderr
    jobs = final(folder, "fetch")
    assert jobs["busy"]["result"] == {"name": "busy", "attempts": 3}
    assert (jobs["gone"]["state"], jobs["gone"]["attempts"]) == ("failed", 1)
    assert jobs["gone"]["error"]["type"] == "workers.GiveUp"
    assert jobs["urgent"]["result"] == {"name": "fine", "attempts": 1}


def test_a_job_that_leaks_is_stopped_and_the_others_finish(folder: Path) -> None:
    (command,) = [words for words in commands(PAGE) if words[1] == "leak.py"]
    done = run(folder, *command[1:])
    assert done.returncode == 1, done.stderr
    jobs = final(folder, "leak")
    assert jobs["leaks"]["error"]["outcome"] == "over_memory"
    assert jobs["leaks"]["error"]["peak_rss"] > 250 << 20
    assert [entry["state"] for entry in jobs.values()].count("completed") == 4


def test_the_bounds_of_the_last_command_let_a_good_run_pass(folder: Path) -> None:
    (command,) = [words for words in commands(PAGE) if "--deadline" in words]
    done = run(folder, *command[1:], "--output", "bounded", "--only", "fine", "--only", "urgent")
    assert done.returncode == 0, done.stderr
    assert "2 completed, 0 failed" in done.stderr


def test_every_option_that_is_named_exists(folder: Path) -> None:
    helped = run(folder, "fetch.py", "--help").stdout
    for command in commands(PAGE):
        for word in command:
            assert not word.startswith("--") or f"{word} " in helped, word
