"""docs/coming-from-a-loop.md: what stands before and after prints the same, and can be gone on with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import README, ROOT, blocks

PAGE = ROOT / "docs" / "coming-from-a-loop.md"
SCRIPTS = {block.file: block.text for block in blocks(PAGE, "python") if block.file}
PAIRS = [("loop.py", "loop_run.py"), ("with_joblib.py", "joblib_main.py"), ("with_pool.py", "pool_run.py")]


def execute(folder: Path, name: str, text: str) -> subprocess.CompletedProcess[str]:
    (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env={**os.environ, "JOBLIB_MULTIPROCESSING": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def printed(folder: Path, name: str) -> str:
    done = execute(folder, name, SCRIPTS[name])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_before_and_after_print_the_same(tmp_path: Path, before: str, after: str) -> None:
    said = printed(tmp_path, before)
    assert said.strip() == "[0.9, 0.95, 0.8, 0.9]"
    assert printed(tmp_path, after) == said
    (plan,) = tmp_path.glob("data/outputs/*/logs/plan_*.jsonl")
    assert '"rate=0.1,depth=1"' in plan.read_text()


BUG = "    if (rate, depth) == (0.2, 2):\n        raise ValueError('a bug')\n    return"
AUTO, LATEST = 'resume="auto")', 'resume="latest")'


def test_the_failed_jobs_of_the_recipe_run_again_as_the_page_says(tmp_path: Path) -> None:
    script = SCRIPTS["loop_run.py"].replace("def fit(rate, depth):\n", "def fit(rate, depth):\n    note()\n")
    script = script.replace("def fit", "def note():\n    open('ran', 'a').write('x')\n\ndef fit", 1)
    ran = tmp_path / "ran"

    failed = execute(tmp_path, "loop_run.py", script.replace("    return", BUG, 1))
    assert failed.returncode == 1
    first = next(tmp_path.glob("data/outputs/loop/logs/plan_*")).stem.removeprefix("plan_")
    assert f'resume="{first}"' in failed.stderr.splitlines()[-1]
    assert 'not resume="auto"' in failed.stderr.splitlines()[-1]

    (line,) = (
        block.text.strip() for block in blocks(PAGE, "python") if block.text.startswith("    report =")
    )
    assert line.endswith(LATEST)
    repaired = execute(tmp_path, "loop_run.py", script.replace(line.replace(LATEST, AUTO), line))
    assert repaired.stdout.strip() == "[0.9, 0.95, 0.8, 0.9]", repaired.stderr
    assert len(ran.read_text()) == 4 + 1

    again = execute(tmp_path, "loop_run.py", script)
    assert again.returncode == 0, again.stderr
    assert len(ran.read_text()) == 4 + 1 + 4
    (told,) = (
        text for text in again.stderr.splitlines() if f"{first} is finished (4 completed, 0 failed)" in text
    )
    assert f'resume="{first}"' in told

    named = script.replace(AUTO, f'resume="auto", experiment_id="{first}")')
    assert execute(tmp_path, "loop_run.py", named).stdout.strip() == "[0.9, 0.95, 0.8, 0.9]"
    assert len(ran.read_text()) == 4 + 1 + 4


def test_every_script_of_the_page_is_one_of_a_pair_and_the_readme_leads_there() -> None:
    assert set(SCRIPTS) == {name for pair in PAIRS for name in pair}
    whole = [block for block in blocks(PAGE, "python") if not block.text.startswith("    ")]
    assert len(SCRIPTS) == len(whole)
    assert "(docs/coming-from-a-loop.md)" in README.read_text(encoding="utf-8")
