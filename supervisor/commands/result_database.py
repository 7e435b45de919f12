"""`longhaul results --format sqlite`: one or several experiments as a database file, written whole or not at all.

Names of columns are those of `--format csv` without `params.` and `result.`, where that is no name twice.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from supervisor.commands.attempts import Attempt, Attempts, take_mark
from supervisor.commands.result_columns import Rows, finite
from supervisor.core.terms.errors import CannotCreate, UsageError
from supervisor.core.terms.records import RunStarted, WorkerEnded
from supervisor.reports.report import Report
from supervisor.storage.files.atomic_files import resolved, temporary_name
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_reader import history
from supervisor.system.signals import die_of

if TYPE_CHECKING:
    import sqlite3

_MOST_COLUMNS = 1900  # SQLite has 2000 at most; what is beyond goes into one more, `others`, as JSON
_OTHERS = "others"
_INT64 = 1 << 63
_EXPERIMENTS = (
    "experiment", "name", "directory", "jobs", "completed", "failed", "in_progress", "pending", "started",
    "last_started", "command", "code", "settings",
)  # fmt: skip
_JOBS = ("experiment", "job", "domain", "state", "attempts", "seconds", "outcome", "code")
_ATTEMPTS = (
    "experiment", "job", "attempt", "run", "worker", "started", "ended", "seconds", "outcome", "state", "type",
    "message", "peak_rss", "printed", "code",
)  # fmt: skip
_FAILURES = (
    "experiment", "job", "attempt", "outcome", "type", "message", "place", "seconds", "signal", "exit_code",
    "peak_rss", "at", "traceback", "output_tail",
)  # fmt: skip
_KEYS = {"experiments": "experiment", "jobs": "experiment, job", "results": "experiment, job"}


def write_database(path: Path, reports: Sequence[Report]) -> None:
    """Make or replace the file. Raises CannotCreate, and UsageError if this Python has no SQLite."""
    try:
        import sqlite3
    except ImportError:
        raise UsageError("--format sqlite: this Python has no SQLite; use --format csv") from None
    if path.exists() and not path.is_file():
        raise CannotCreate(f"{path.absolute()} is not a file: --format sqlite writes one")
    disk, target = Disk(), resolved(path)
    temporary = temporary_name(target)
    try:
        with _removed(disk, temporary):
            with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as database:
                database.execute("PRAGMA journal_mode = OFF")  # a file that is not whole is never seen
                database.execute("PRAGMA synchronous = OFF")
                database.execute("BEGIN")
                _fill(database, reports)
                database.execute("COMMIT")
            descriptor = disk.open(temporary, os.O_RDONLY)
            try:
                disk.sync(descriptor)
            finally:
                disk.close(descriptor)
            disk.rename(temporary, target)
            disk.sync_directory(os.path.dirname(target))
    except (OSError, sqlite3.OperationalError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CannotCreate(
            f"{path.absolute()} cannot be written: {why}. Choose another file with -o FILE."
        ) from None


@contextlib.contextmanager
def _removed(disk: Disk, path: str) -> Iterator[None]:
    """Without the file before and after; also when SIGTERM or a closed terminal ends this process, as it may be large.
    The handler raises nothing: an exception could be lost where Python passes none on."""

    def remove() -> None:
        with contextlib.suppress(OSError):  # it was renamed
            disk.remove(path)

    def end(number: int, _: object) -> None:
        remove()
        die_of(number)

    handled = []
    if threading.current_thread() is threading.main_thread():
        ending = (signal.SIGTERM, signal.SIGHUP)
        handled = [number for number in ending if signal.getsignal(number) == signal.SIG_DFL]
    with contextlib.suppress(FileNotFoundError):
        disk.remove(path)
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        remove()
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def _fill(database: sqlite3.Connection, reports: Sequence[Report]) -> None:
    rows = Rows(reports)
    names = rows.names()
    params = _columns(names, "params", _JOBS)
    results = _columns(names, "result", ("experiment", "job"))
    _make(database, "experiments", _EXPERIMENTS)
    _make(database, "jobs", (*_JOBS, *dict.fromkeys(params.values())))
    _make(database, "results", ("experiment", "job", *dict.fromkeys(results.values())))
    _make(database, "attempts", _ATTEMPTS)
    _make(database, "failures", _FAILURES)
    for report in reports:
        counted: dict[str, int] = {}
        starts: list[RunStarted] = []
        _insert(database, "attempts", _ATTEMPTS, _attempts(report, counted, starts))
        _insert(database, "experiments", _EXPERIMENTS, [_experiment(report, starts)])
        _insert(database, "jobs", (*_JOBS, *dict.fromkeys(params.values())), _jobs(report, params, counted))
        _insert(
            database,
            "results",
            ("experiment", "job", *dict.fromkeys(results.values())),
            _results(report, results),
        )
        _insert(database, "failures", _FAILURES, _failures(report))


def _columns(names: Iterable[str], prefix: str, taken: Iterable[str]) -> dict[str, str]:
    """A column for each name that begins with `prefix`. SQLite does not tell `Lr` from `lr`."""
    used = {name.casefold() for name in taken}
    found: dict[str, str] = {}
    for name in names:
        if name != prefix and not name.startswith(f"{prefix}."):
            continue
        if len(used) >= _MOST_COLUMNS:
            found[name] = _OTHERS
            continue
        column = name.removeprefix(f"{prefix}.") or name
        if column.casefold() in used or column == _OTHERS:
            column = name
        number = 1
        while column.casefold() in used:
            number += 1
            column = f"{name}_{number}"
        used.add(column.casefold())
        found[name] = column
    return found


def _make(database: sqlite3.Connection, table: str, columns: Sequence[str]) -> None:
    key = f", PRIMARY KEY ({_KEYS[table]})" if table in _KEYS else ""
    # Columns without a type: each value is kept as what it is, so that 007 stays a text.
    database.execute(f"CREATE TABLE {table} ({', '.join(map(_quoted, columns))}{key})")


def _insert(
    database: sqlite3.Connection, table: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    places = ", ".join("?" * len(columns))
    statement = f"INSERT INTO {table} VALUES ({places})"
    database.executemany(statement, ([_cell(row.get(name)) for name in columns] for row in rows))


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""').replace("\0", "")
    return f'"{doubled}"'


def _cell(value: Any) -> Any:
    """SQLite has whole numbers of 64 bits, and no NaN; lists and objects are JSON."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else str(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(finite(value)).decode()


# ------------------------------------------------------------------------------- the rows


def _experiment(report: Report, starts: Sequence[RunStarted]) -> dict[str, Any]:
    counts, last = report.counts, starts[-1] if starts else None
    return {
        "experiment": report.experiment_id,
        "name": report.name,
        "directory": str(report.directory).encode(errors="replace").decode(),
        "jobs": counts.total,
        "completed": counts.completed,
        "failed": counts.failed,
        "in_progress": counts.in_progress,
        "pending": counts.pending,
        "started": starts[0].at if starts else None,
        "last_started": last.at if last else None,
        "command": last.argv if last else None,
        "code": last.code.get("version") if last else None,
        "settings": last.settings if last else None,
    }


def _jobs(report: Report, params: Mapping[str, str], counted: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for row in report.each_row():
        yield {
            **_placed(row, params),
            "experiment": report.experiment_id,
            **{name: row[name] for name in ("job", "domain", "state", "seconds", "outcome", "code")},
            "attempts": counted.get(row["job"], 0),
        }


def _results(report: Report, results: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for row in report.each_row():
        if row["state"] == "completed":
            yield {**_placed(row, results), "experiment": report.experiment_id, "job": row["job"]}


def _placed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, column in columns.items():
        if name in row and column == _OTHERS:
            found.setdefault(_OTHERS, {})[name] = row[name]
        elif name in row:
            found[column] = row[name]
    return found


def _attempts(report: Report, counted: dict[str, int], starts: list[RunStarted]) -> list[dict[str, Any]]:
    """In the order of their ends. `counted` receives how many each job has had, `starts` the starts of all runs."""
    found: list[Attempt] = []
    fold = Attempts(found.append)
    marks: dict[int, int] = {}
    for record in history(Layout(report.directory, report.experiment_id)):
        fold.apply(record)
        if isinstance(record, RunStarted):
            starts.append(record)
        elif isinstance(record, WorkerEnded) and record.peak_lease is not None:
            marks[record.peak_lease] = record.peak_rss or 0
    rows = []
    for attempt in found:
        take_mark(attempt, marks)
        counted[attempt.job] = max(counted.get(attempt.job, 0), attempt.attempt)
        error = attempt.error or {}
        rows.append(
            {
                **{name: getattr(attempt, name, None) for name in _ATTEMPTS},
                "experiment": report.experiment_id,
                "started": attempt.started or None,
                "ended": attempt.ended or None,
                "type": error.get("type"),
                "message": error.get("message"),
            }
        )
    return rows


def _failures(report: Report) -> Iterator[dict[str, Any]]:
    for failure in report.failures():
        row = {name: getattr(failure, name, None) for name in _FAILURES}
        yield {**row, "experiment": report.experiment_id, "place": failure.where}
