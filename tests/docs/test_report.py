"""docs/report.md: its commands are run, and what it says is in a report is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.page.page_assets import asset
from supervisor.reports.html_report import MOST_ROWS
from tests.docs.conftest import ROOT, blocks, prose

PAGE = ROOT / "docs" / "report.md"

SCRIPT = """
from supervisor import Job, main

def evaluate(n):
    if n == 3:
        raise ValueError("no such split")
    return {"n2": n * n}

if __name__ == "__main__":
    main(evaluate, [Job(id=f"a/{n}", params={"n": n}) for n in range(5)], name="night", all_tasks=True, workers=1)
"""

NOTEBOOK = """
from supervisor import Job, run, load

def evaluate(n):
    return {"n2": n * n}

if __name__ == "__main__":
    jobs = [Job(id=f"a/{n}", params={"n": n}) for n in range(5)]
    report = run(evaluate, jobs, name="night", workers=1, progress=False)
    report.save_html("run.html")
    load(report.directory).save_html("load.html")
"""

FINISH = """
from supervisor import Job, main

def evaluate(n):
    return {"n2": n * n}

def finish(report):
    report.save_html("finish.html")

if __name__ == "__main__":
    jobs = [Job(id=f"a/{n}", params={"n": n}) for n in range(5)]
    main(evaluate, jobs, name="night", workers=1, all_tasks=True, finish=finish)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the command `longhaul` of this tree on PATH."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "longhaul"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m supervisor "$@"\n')
    program.chmod(0o755)
    (tmp_path / "night.py").write_text(SCRIPT)
    return tmp_path


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_recipe_leaves_a_report_in_the_morning(folder: Path) -> None:
    by_hand, recipe = (block.text for block in blocks(PAGE, "sh"))
    done = shell(folder, recipe)
    assert done.returncode == 1, done.stderr
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Over, but 1 of 5 jobs failed; 4 completed" in text
    assert "Running" not in text.partition("</header>")[0]
    assert shell(folder, by_hand).returncode == 0
    assert (folder / "night.html").stat().st_size > 50_000


def test_a_notebook_saves_what_it_has(folder: Path) -> None:
    assert "report.save_html(" in PAGE.read_text(encoding="utf-8")
    (folder / "cell.py").write_text(NOTEBOOK)
    done = shell(folder, f"{sys.executable} cell.py")
    assert done.returncode == 0, done.stderr
    (folder / "finish.py").write_text(FINISH)
    done = shell(folder, f"{sys.executable} finish.py --no-resume")
    assert done.returncode == 0, done.stderr
    for name in ("run", "load", "finish"):
        text = (folder / f"{name}.html").read_text(encoding="utf-8")
        assert "All 5 jobs completed, none failed" in text, name
        block = text.partition('<script type="application/json" id="facts">')[2].partition("</script>")[0]
        runs = json.loads(block)["timeline"]["runs"]
        assert [run["state"] for run in runs] == ([] if name == "finish" else ["finished"]), name


def test_figures_and_keys_are_those_of_the_code() -> None:
    text = prose(PAGE)
    assert f"All jobs up to {MOST_ROWS:,} (fewer" in text
    lanes, report = asset("lanes.mjs"), asset("report.mjs")
    assert all(f'"{key}"' in lanes or f"{key}:" in lanes for key in ("+", "-", "0", "ArrowLeft"))
    assert '"/"' in report
