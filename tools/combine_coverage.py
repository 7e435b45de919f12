"""Combine the data files of a measured test run, without those of processes that were killed.

coverage writes the tables of a data file one by one. The tests end many processes with SIGKILL, and
one that is ended in between leaves a file with some of the tables, with none, or with half a page.
`coverage combine` ends at such a file and leaves all the others as they are. Here a torn file is
named and removed; the rest is combined. Whatever else is wrong still fails.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import coverage

PATIENCE = 2.0  # seconds for a file that somebody may still be writing
_POLL_EVERY = 0.1


def main(words: Sequence[str]) -> int:
    """Combine what lies in the current directory, as pyproject.toml says; the exit code. A word is the
    patience in seconds."""
    measured = coverage.Coverage()
    base = Path(str(measured.get_option("run:data_file")))
    found = sorted(base.absolute().parent.glob(f"{base.name}.*"))
    whole, torn = sort_out(found, float(words[0]) if words else PATIENCE)
    for path in torn:
        print(f"left out: {path.name}: its process was killed while it wrote it", file=sys.stderr)
        path.unlink(missing_ok=True)
    try:
        measured.combine(map(str, whole), strict=True)
        measured.save()
    except coverage.CoverageException as error:
        print(f"the coverage data cannot be combined: {error}", file=sys.stderr)
        return 1
    return 0


def sort_out(paths: Sequence[Path], patience: float) -> tuple[list[Path], list[Path]]:
    """Which of these data files are whole, and which are torn. A file that is not whole yet is looked
    at again for `patience` seconds. A whole one has every table that any of them has."""
    tables = {path: tables_of(path) for path in paths}
    until = time.monotonic() + patience
    while True:
        all_tables = frozenset().union(*(found for found in tables.values() if found is not None))
        torn = [path for path, found in tables.items() if not found or found != all_tables]
        if not torn or time.monotonic() >= until:
            return [path for path in paths if path not in torn], torn
        time.sleep(_POLL_EVERY)
        tables |= {path: tables_of(path) for path in torn}


def tables_of(path: Path) -> frozenset[str] | None:
    """The names of the tables in a data file; None if it is none, is damaged, or has no version."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute("select name from sqlite_master where type = 'table'").fetchall()
            versions = database.execute("select count(*) from coverage_schema").fetchone()
            sound = database.execute("pragma quick_check(1)").fetchone()
    except sqlite3.Error:
        return None
    return frozenset(name for (name,) in rows) if versions[0] and sound == ("ok",) else None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
