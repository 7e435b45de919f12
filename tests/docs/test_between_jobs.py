"""docs/between-jobs.md: its script runs and measures, and its numbers are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.conftest import DOCS, ROOT, blocks, commands
from workers.isolation.interpreter_state import _OFTEN_PATCHED
from workers.isolation.process_state import _RAREST_EVERY
from workers.worker import INBOX_CHECK_AFTER, MAX_CHECKS_AFTER_SHORT, MIN_CHANGE_SECONDS, RESTORE_AFTER

PAGE = ROOT / "docs" / "between-jobs.md"


def test_the_script_measures_what_a_fresh_process_costs(tmp_path: Path) -> None:
    (script,) = blocks(PAGE, "python")
    (command,) = commands(PAGE)
    assert command == ["python", script.file, "--max-jobs-per-worker", "1"]
    (tmp_path / "fresh.py").write_text(script.text.replace("range(300)", "range(6)"))
    for words in (command[1:], command[1:2]):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert re.fullmatch(r"\d+\.\d\d ms of a worker per job\n", done.stdout), done.stderr


def test_the_numbers_are_those_of_the_code() -> None:
    text = re.sub(r"\s+", " ", PAGE.read_text(encoding="utf-8"))
    assert INBOX_CHECK_AFTER == 0.001 and "After every job of a millisecond or more" in text
    assert RESTORE_AFTER == 0.005 and "more than 5 ms ago" in text
    assert MAX_CHECKS_AFTER_SHORT == 100 and "the first hundred of a worker" in text
    assert MIN_CHANGE_SECONDS == 1e-6 and "longer than a microsecond" in text
    assert _RAREST_EVERY == 20 and "every twentieth time" in text
    assert all(f"`{name}`" in text for name in _OFTEN_PATCHED)


def test_it_is_found_from_the_page_about_jobs() -> None:
    assert "(between-jobs.md)" in (DOCS / "jobs.md").read_text(encoding="utf-8")
