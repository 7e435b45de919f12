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


def printed(folder: Path, name: str) -> str:
    (folder / name).write_text(SCRIPTS[name])
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env={**os.environ, "JOBLIB_MULTIPROCESSING": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_before_and_after_print_the_same(tmp_path: Path, before: str, after: str) -> None:
    said = printed(tmp_path, before)
    assert said.strip() == "[0.9, 0.95, 0.8, 0.9]"
    assert printed(tmp_path, after) == said
    (plan,) = tmp_path.glob("data/outputs/*/logs/plan_*.jsonl")
    assert '"rate=0.1,depth=1"' in plan.read_text()


def test_every_script_of_the_page_is_one_of_a_pair_and_the_readme_leads_there() -> None:
    assert set(SCRIPTS) == {name for pair in PAIRS for name in pair}
    assert len(SCRIPTS) == len(blocks(PAGE, "python"))
    assert "(docs/coming-from-a-loop.md)" in README.read_text(encoding="utf-8")
