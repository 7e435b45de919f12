"""docs/any-program.md: its command lines are run by a shell, with its C program where there is a compiler."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisor.core.dispatch.retry_policy import INTERRUPTED_LIMIT
from supervisor.core.terms.settings import Settings
from supervisor.exec.command_options import build_own_parser
from tests.docs.conftest import ROOT, blocks
from workers.program.program_end import CRASHES, STOPS
from workers.transport.messages import WorkerSpec

PAGE = ROOT / "docs" / "any-program.md"
TRAIN = 'echo "training with $*"; echo "{\\"loss\\": $2}"; test $4 != 5\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, and `longhaul` on PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    longhaul = programs / "longhaul"
    longhaul.write_text(f'#!/bin/sh\nexec {sys.executable} -m supervisor "$@"\n')
    longhaul.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    work = tmp_path / "work"
    work.mkdir()
    (work / "train.sh").write_text(TRAIN)
    (work / "cases.csv").write_text("case,size\n1,small\n4,large\n-1,none\n")
    for name in ("a b", "it's"):
        (work / f"{name}.txt").write_text("one\ntwo\n")
    (work / "solve.c").write_text(blocks(PAGE, "c")[0].text)
    (work / "Makefile").write_text(blocks(PAGE, "make")[0].text)
    if shutil.which("make") and shutil.which("cc"):
        subprocess.run(["make", "-s", "solve"], cwd=work, check=True)
    else:
        stand_in = "case $2 in -1) echo no such case: -1 >&2; exit 3;; 1) r=1.5;; 4) r=3;; esac\n"
        (work / "solve").write_text(f'#!/bin/sh\n{stand_in}echo "{{\\"root\\": $r}}"\n')
        (work / "solve").chmod(0o755)
    return work


def final(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    (path,) = (folder / "data" / "outputs" / name).glob("*/logs_final.json")
    return {entry["job"]: entry for entry in json.loads(path.read_text())}


def test_the_command_lines_do_what_the_page_says(folder: Path) -> None:
    first, second = blocks(PAGE, "sh")
    codes = []
    for line in (*first.text.splitlines(), *second.text.splitlines()):
        run = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
        codes.append(run.returncode)
        assert "Traceback" not in run.stderr and run.returncode in (0, 1), run.stderr
    assert codes == [1, 1, 0, 0, 0, 0]  # training with seed 5 fails, as does case -1
    trained = final(folder, "exec")
    assert len(trained) == 10 and trained["lr=0.01,seed=2"]["result"] == {"loss": 0.01}
    assert trained["lr=0.1,seed=5"]["error"]["type"] == "exit code 1"
    cases = final(folder, "cases")
    assert {job: entry.get("result") for job, entry in cases.items()} == {
        "case=1,size=small": {"root": 1.5}, "case=4,size=large": {"root": 3.0}, "case=-1,size=none": None
    }  # fmt: skip
    assert cases["case=-1,size=none"]["error"]["message"] == "no such case: -1"
    assert gzip.decompress((folder / "it's.txt.gz").read_bytes()) == b"one\ntwo\n"
    assert (folder / "a b.txt.lines").read_text().strip() == "2"


def test_the_script_runs_the_program(folder: Path) -> None:
    (script,) = blocks(PAGE, "python")
    (folder / str(script.file)).write_text(script.text)
    run = subprocess.run(
        [sys.executable, str(script.file)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert {job: entry["result"] for job, entry in final(folder, "sweep").items()} == {
        "case/1": {"root": 1.5}, "case/4": {"root": 3.0}
    }  # fmt: skip
    (folder / "solve").unlink()
    again = subprocess.run(
        [sys.executable, str(script.file), "--resume", "latest", "--rerun", "*"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 1 and "cannot be started: ./solve: No such file or directory" in again.stderr


def test_the_page_names_what_there_is() -> None:
    text = re.sub(r"\s+", " ", PAGE.read_text(encoding="utf-8"))
    for option in build_own_parser()._actions:
        names = [name for name in option.option_strings if option.help != "==SUPPRESS=="]
        assert not names or any(name in text for name in names), names
    assert all(name in text for name in (*CRASHES, *STOPS))
    assert Settings().crash_limit == 3 and "three times in all" in text
    assert INTERRUPTED_LIMIT == 10 and "ten times at most" in text
    assert Settings().grace == 20.0 and "`--grace`, 20 s" in text
    (limit,) = (field.default for field in msgspec.structs.fields(WorkerSpec) if field.name == "output_limit")
    assert limit == 10_000_000
    assert "more than 10 MB" in text
