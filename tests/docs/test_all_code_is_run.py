"""All code on the pages is run by tests: which module runs it, and the list of what cannot be run, and why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.conftest import DOCS, README, Block, all_blocks, blocks, run_python

CODE = ("python", "sh", "bash", "console")
# Of each page that has code the module that runs it.
RUN_BY = {
    "README.md": "test_readme",
    "any-program.md": "test_any_program",
    "api.md": "test_all_code_is_run",
    "between-jobs.md": "test_between_jobs",
    "bounds-and-retries.md": "test_bounds",
    "coming-from-a-loop.md": "test_coming_from_a_loop",
    "coming-from-gnu-parallel.md": "test_coming_from_a_loop",
    "coming-from-joblib.md": "test_coming_from_a_loop",
    "coming-from-processpoolexecutor.md": "test_coming_from_a_loop",
    "coming-from-ray.md": "test_coming_from_a_loop",
    "coming-from-slurm-arrays.md": "test_coming_from_a_loop",
    "commands.md": "test_guide",
    "guide.md": "test_guide",
    "index.md": "test_readme",
    "jobs.md": "test_guide",
    "long-jobs.md": "test_long_jobs",
    "needs.md": "test_needs",
    "notebooks.md": "test_guide",
    "options.md": "test_guide",
    "report.md": "test_report",
    "result-files.md": "test_result_files",
    "slurm-systemd-cron.md": "test_slurm_systemd_cron",
    "steering-a-run.md": "test_steering",
    "the-morning-after.md": "test_the_morning_after",
}
# What is not run here, by the beginning of its first line.
NOT_RUN = {
    ("README.md", "pip install ."): "installs; the targets are checked in test_readme",
    ("README.md", "python pi.py --engine ray"): "needs a cluster; tests/nodes/ray",
    ("README.md", "longhaul exec --param lr="): "in docs/any-program.md it is run",
    ("index.md", "python3 -m venv"): "installs; tests/test_dist.py installs the wheel and runs an experiment",
    ("long-jobs.md", "python tools/progress_cost.py"): "measures for minutes",
    ("page.md", "pip install"): "installs, and serves until Ctrl+C; tests/web",
    ("page.md", "ssh -N"): "needs another machine",
    ("page.md", "curl"): "needs a page that is served; tests/web ask it",
    ("several-machines.md", "pip install"): "starts a cluster; tests/nodes/ray",
    ("several-machines.md", "python experiment.py"): "needs a cluster; tests/nodes/ray",
    ("several-machines.md", "#!/bin/bash"): "needs Slurm with several nodes",
}
PAGES = (README, *sorted(DOCS.glob("*.md")))
PROGRAMS = ("python", "longhaul", "pip", "make", "ssh", "curl", "sbatch", "ray ", "$ ")


def reason(page: Path, block: Block) -> str | None:
    """Why this block is not run."""
    for (name, beginning), why in NOT_RUN.items():
        if name == page.name and block.text.startswith(beginning):
            return why
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_all_code_is_run_or_it_is_listed_why_not(page: Path) -> None:
    for block in all_blocks(page):
        if block.language not in CODE or reason(page, block) is not None:
            continue
        assert page.name in RUN_BY, f"no test runs the code of {page.name}"
        module = (Path(__file__).parent / f"{RUN_BY[page.name]}.py").read_text(encoding="utf-8")
        assert f'"{page.name}"' in module or (page == README and "README" in module)
        taken = f', "{block.language}")' in module or (block.language == "sh" and "commands(" in module)
        assert taken, f"{RUN_BY[page.name]} takes no {block.language} blocks"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_command_stands_in_a_block_without_a_language(page: Path) -> None:
    for block in all_blocks(page):
        assert block.language or not block.text.startswith(PROGRAMS), block.text


def test_what_is_not_run_is_there() -> None:
    pages = {page.name: page for page in PAGES}
    for name, beginning in NOT_RUN:
        assert any(block.text.startswith(beginning) for block in all_blocks(pages[name])), (name, beginning)
    assert set(RUN_BY) <= set(pages)


def test_the_imports_of_the_api_work(tmp_path: Path) -> None:
    (block,) = blocks(DOCS / "api.md", "python")
    assert len(re.findall(r"\w+", block.text)) > 12
    run_python(tmp_path, "-c", block.text)
