"""tools/combine_coverage.py: a process that was killed while it wrote its data fails no test run."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import coverage
import pytest

from tools.combine_coverage import sort_out, tables_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the data files of two measured processes."""
    (tmp_path / "pyproject.toml").write_text("[tool.coverage.run]\nbranch = true\nparallel = true\n")
    (tmp_path / "program.py").write_text(
        "import sys\nif sys.argv[1] == '1':\n    print(1)\nelse:\n    print(2)\n"
    )
    for word in ("1", "2"):
        python(tmp_path, "-m", "coverage", "run", "program.py", word)
    return tmp_path


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Not measured together with these tests."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=mine,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def torn(path: Path, tables: int) -> Path:
    """What a process leaves that was killed after so many tables of its data file."""
    whole = next(found for found in path.parent.glob(".coverage.*") if ".Xaaaaaaa" not in found.name)
    with sqlite3.connect(whole) as model:
        rows = model.execute("select sql from sqlite_master where sql is not null order by rowid").fetchall()
    model.close()
    with sqlite3.connect(path) as database:
        for (statement,) in rows[:tables]:
            database.execute(statement)
        if tables:
            database.execute("insert into coverage_schema values (7)")
    database.close()
    return path


def combine(folder: Path) -> subprocess.CompletedProcess[str]:
    return python(folder, str(ROOT / "tools" / "combine_coverage.py"), "0")


def test_a_data_file_whose_process_was_killed_at_any_table_is_left_out(folder: Path) -> None:
    bad = [torn(folder / f".coverage.host.pid1.Xaaaaaaa{tables}", tables) for tables in range(7)]
    combined = combine(folder)
    assert combined.returncode == 0, combined.stderr
    assert [path.name for path in bad if path.name not in combined.stderr] == []
    assert [found.name for found in folder.glob(".coverage*")] == [".coverage"]
    report = python(folder, "-m", "coverage", "report")
    assert report.returncode == 0 and "100%" in report.stdout, report.stdout + report.stderr


def test_bytes_that_are_no_database_are_left_out(folder: Path) -> None:
    for number, damage in enumerate((b"", b"no database", b"SQLite format 3\0")):
        (folder / f".coverage.host.pid1.Xaaaaaaa{number}").write_bytes(damage)
    assert combine(folder).returncode == 0
    assert [found.name for found in folder.glob(".coverage*")] == [".coverage"]


def test_a_file_cut_in_a_page_is_torn(folder: Path) -> None:
    path = next(folder.glob(".coverage.*"))
    os.truncate(path, path.stat().st_size - 6000)
    assert tables_of(path) is None


def test_without_any_data_it_fails(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.coverage.run]\nparallel = true\n")
    (tmp_path / ".coverage.host.pid1.Xaaaaaaaa").touch()
    combined = combine(tmp_path)
    assert combined.returncode == 1 and "cannot be combined" in combined.stderr


def test_a_file_that_is_still_being_written_is_waited_for(folder: Path) -> None:
    names = sorted(folder.glob(".coverage.*"))
    late = names[0].read_bytes()
    names[0].write_bytes(b"")
    assert sort_out(names, 0.0) == ([names[1]], [names[0]])
    writer = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; sys.stdin.read(); os.replace('late', sys.argv[1])", names[0]],
        cwd=folder,
        stdin=subprocess.PIPE,
    )
    (folder / "late").write_bytes(late)
    assert writer.stdin is not None
    writer.stdin.close()
    try:
        assert sort_out(names, 30.0) == (names, [])
    finally:
        writer.wait(30)


def test_coverage_itself_ends_at_a_torn_file(folder: Path) -> None:
    """Why all this is there; if it fails one day, the tool may go."""
    torn(folder / ".coverage.host.pid1.Xaaaaaaaa", 3)
    assert python(folder, "-m", "coverage", "combine").returncode != 0, coverage.__version__
