"""docs/steering-a-run.md is run: its script, and its commands from another terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.commands.ctl import _ORDERS
from tests.docs.conftest import ROOT, blocks, commands, longhaul
from tests.experiment_fixture import wait_for

PAGE = ROOT / "docs" / "steering-a-run.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for block in blocks(PAGE, "python"):
        assert block.file, "every script names its file"
        (tmp_path / block.file).write_text(block.text)
    return tmp_path


@pytest.fixture
def slow(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Its jobs take as long as the commands do: until there is a file `go`."""
    script = (folder / "slow.py").read_text()
    assert "    time.sleep(1)\n" in script
    waiting = '    while not os.path.exists("go"):\n        time.sleep(0.01)\n'
    (folder / "slow.py").write_text(
        script.replace("    time.sleep(1)\n", waiting).replace("import time\n", "import os\nimport time\n")
    )
    process = subprocess.Popen(
        [sys.executable, "slow.py"], cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_the_commands_steer_the_run(folder: Path, slow: subprocess.Popen[str]) -> None:
    def listens() -> bool:
        paths = list(folder.glob("data/outputs/slow/logs/progress_*.json"))
        return bool(paths and json.loads(paths[0].read_text())["control"])

    wait_for(listens)
    answers = []
    for words in [words for words in commands(PAGE) if words[:2] == ["longhaul", "ctl"]]:
        code, answer = longhaul(folder, *words[1:])
        assert code == 0, f"{words}: {answer}"
        answers.append(answer)
    assert len(answers) == 7
    assert "10 jobs (slow/20, slow/21, slow/22 and 7 more): cancelled" in answers[3]
    assert "slow/20: back in line" in answers[4]
    (folder / "go").touch()
    _, err = slow.communicate(timeout=60)
    assert slow.returncode == 76, err


def test_the_page_has_a_row_for_each_order() -> None:
    rows = re.findall(r"^\| `(\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [order.split()[0] for order in _ORDERS]


def test_the_hooks_write_what_is_shown(folder: Path) -> None:
    (words,) = [words for words in commands(PAGE) if "--on-finish" in words]
    (folder / "slow.py").write_text((folder / "slow.py").read_text().replace("sleep(1)", "sleep(0)"))
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert json.loads((folder / "finished.json").read_text())["counts"]["completed"] == 29
    assert (folder / "failed.txt").read_text() == "1 failed\n"


def test_in_the_background_it_says_what_is_shown(folder: Path) -> None:
    (words,) = [words for words in commands(PAGE) if "--detach" in words]
    (shown,) = [block.text for block in blocks(PAGE, "") if "in the background" in block.text]
    (folder / "slow.py").write_text((folder / "slow.py").read_text().replace("sleep(1)", "sleep(0)"))
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = re.escape(shown).replace("4711", r"\d+").replace(re.escape("/home/ada"), r"\S+")
    expected = expected.replace(r"it:\ ", r"it:\s+\S*").replace(r"\S*\ longhaul", r"\S*longhaul")
    assert re.fullmatch(expected, done.stdout + done.stderr), done.stdout + done.stderr
    wait_for((folder / "data/outputs/slow/night/logs_final.json").exists)
