"""`Report`: an experiment for a program to look at, running or not; `load` reads one from a directory.

No report holds all results in memory, but for `Report.results()` and `rows()`, which are asked for that.
Nothing here changes a record.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import msgspec

from supervisor.core.state.snapshot import FailureSnapshot, failure_of
from supervisor.core.state.statistics import Statistics
from supervisor.core.terms.errors import JobsFailed, UsageError
from supervisor.core.terms.experiment_id import check_id
from supervisor.core.terms.jobs import FAILED, INTERRUPTED, PENDING, STATE_NAMES, Counts
from supervisor.core.terms.records import Ended
from supervisor.reports.experiment_list import experiments
from supervisor.reports.final_text import final_text
from supervisor.reports.latest_experiment import larger_beside
from supervisor.reports.result_reader import Results
from supervisor.storage.files.layout import Layout
from supervisor.storage.plan.plan_line import PlannedJob

if TYPE_CHECKING:
    import pandas


class Report:
    """An experiment as it stands; read-only, also while it runs.

    Attributes
    ----------
    experiment_id: as it was given, or made: experiment_YYYYMMDD_HHMMSS.
    name: of the experiment, as the script gives it.
    directory: where its files are, absolute; `data/outputs/<name>` if nothing else was asked for.
    counts: how many jobs are in each state: `total`, `completed`, `failed`, `in_progress`, `pending`.
    statistics: counters and sums of all runs together; durations in seconds.

    The methods read the files of the experiment. They raise StorageError or OSError if these cannot
    be read, and UsageError after `close` or at the end of a `with` statement.
    """

    def __init__(self, results: Results) -> None:
        self.experiment_id = results.layout.experiment_id
        self.name = results.name
        self.directory: Path = results.layout.directory
        self.counts: Counts = results.table.counts()
        self.statistics: Statistics = results.statistics.closed()
        self._results = results
        self._codes: Counter[str | None] = Counter()  # completed jobs by what made them, once read

    def __repr__(self) -> str:
        counts = self.counts
        return (
            f"<Report {self.experiment_id}: {counts.completed} completed, {counts.failed} failed, "
            f"{counts.in_progress} in progress, {counts.pending} pending of {counts.total}>"
        )

    def results(self) -> dict[str, Any]:
        """Job id -> what the function returned, of each completed job, in plan order.

        Values are those of JSON: a tuple comes back as a list. NaN and infinities are floats again.
        """
        return {record.job: _value(record) for _, _, record in self._results.rows() if _is_completed(record)}

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict per job, in plan order, for `pandas.DataFrame`.

        Keys: `job`, `domain`, `state` ("completed", "failed", "in_progress", "pending"), `seconds`
        and `outcome` of the attempt that finished it (None if none has), `params.*`, then `result.*`
        (`result` if it is no dict) or `error.type` and `error.message`, and `code`, the version of
        the code that made it (None if it is not known).
        """
        return list(self.each_row())

    def to_frame(self) -> pandas.DataFrame:
        """`rows()` as a DataFrame: a row for each job, a column for each key.

        Raises UsageError if pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UsageError(
                "to_frame() needs pandas, which is not installed here: pip install pandas, or use rows()"
            ) from None
        return pandas.DataFrame.from_records(self.rows())

    def each_row(self) -> Iterator[dict[str, Any]]:
        """The dicts of `rows()`, one after the other; none is kept in memory."""
        return self._flat(self._results.rows())

    def rows_of(self, jobs: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The same for these jobs, by number."""
        return self._flat(self._results.read(jobs))

    def _flat(self, rows: Iterable[tuple[int, PlannedJob, Ended | None]]) -> Iterator[dict[str, Any]]:
        codes = self._results.history.codes
        for number, planned, record in rows:
            row = {
                "job": planned.id,
                "domain": planned.domain,
                "state": self._state(number),
                "seconds": self._results.table.seconds[number] if record is not None else None,
                "outcome": record.outcome if record is not None else None,
            }
            _flatten(row, "params", msgspec.json.decode(planned.params))
            if _is_completed(record):
                _flatten(row, "result", _value(record))
            elif record is not None:
                error = record.error or {}
                row["error.type"] = error.get("type", "")
                row["error.message"] = error.get("message", "")
            row["code"] = codes.version(record.lease) if record is not None else None
            yield row

    def domains(self) -> dict[str, str]:
        """Job id -> domain, of each job that has one, in plan order."""
        table = self._results.table
        names = zip(table.ids, table.domain_of, strict=True)
        return {job_id: table.domains[domain] for job_id, domain in names if domain}

    def failures(self) -> list[FailureSnapshot]:
        """How each failed job failed, in plan order.

        Each has `job`, `domain`, `outcome` ("raised", "crashed", "timed_out", "over_memory", ...),
        `type` and `message` of the exception ("" if there was none), `where`, `attempt`, `traceback`,
        `output_tail` (the last lines that the job printed), `seconds`, `peak_rss` (bytes), and
        `signal` or `exit_code` of a worker that crashed.
        """
        return list(self.each_failure())

    def each_failure(self) -> Iterator[FailureSnapshot]:
        """Those of `failures()`, one after the other; none is kept in memory."""
        table = self._results.table
        for number, _, record in self._results.rows(FAILED):
            if record is not None:
                yield failure_of(record, table.domains[table.domain_of[number]] or None)

    def raise_for_failures(self) -> None:
        """Does nothing if no job failed. Raises JobsFailed, with the first three failures, if some did."""
        failed = self.failures()
        if not failed:
            return
        first = "; ".join(f"{one.job}: {one.type or one.outcome} {one.message}".strip() for one in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise JobsFailed(
            f"{len(failed)} of {self.counts.total} jobs failed in {self.experiment_id}: {first}{more}. "
            f"Their tracebacks are in {self._results.layout.final}; a resume of this experiment "
            f'(resume="{self.experiment_id}", but not resume="auto") tries them again.'
        )

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write one HTML file with everything that somebody wants to see in the morning: what failed and why, what
        each worker did, how long jobs took, parameters and results. It asks for nothing from outside, and may be
        sent to others.

        Raises CannotCreate if the file cannot be written.
        """
        from supervisor.reports.html_report import save_html_report

        save_html_report(self, self._results, path)

    def close(self) -> None:
        """Close the files; `counts` and `statistics` stay. May be called again."""
        self._results.close()

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------ parts

    def _state(self, number: int) -> str:
        return STATE_NAMES[self._results.table.state[number]]

    def final_text(self) -> Iterator[bytes]:
        """The text of logs_final.json as it is now, some hundred lines at a time."""
        return final_text(self._results, self._codes)


def load(directory: str | os.PathLike[str], experiment_id: str = "latest") -> Report:
    """The `Report` of an experiment on disk, running or not; nothing is changed.

    Parameters
    ----------
    directory: of one experiment name, `data/outputs/<name>`.
    experiment_id: which of those in it; "latest" is the one that was saved last.

    Raises
    ------
    UsageError: there is no such experiment, or the id is none.
    UnusableCheckpoint: its files cannot be used.
    StorageError: its files cannot be read.

    Warns (UserWarning) if "latest" is a small trial beside a larger experiment.
    """
    directory = os.fspath(directory)
    if experiment_id == "latest":
        known = experiments(directory)
        if not known:
            raise UsageError(
                f"no experiments found in {Layout(directory, '').logs}; "
                f"give the directory of one name of experiments, such as data/outputs/NAME"
            )
        experiment_id = known[0]
        if found := larger_beside(Layout(directory, experiment_id)):
            taken, other = found
            text = f"latest is {taken.summary()}; there is also {other.summary()}"
            call = f"load({os.fspath(directory)!r}, {other.experiment_id!r})"
            warnings.warn(f"{text}: {call} reads that one", stacklevel=2)
    layout = Layout(directory, check_id(experiment_id))
    if not layout.exists():
        known = experiments(directory)
        there = f"there are: {', '.join(known[:5])}" if known else "there are none"
        raise UsageError(f"no experiment {experiment_id!r} in {layout.logs}; {there}")
    from supervisor.storage.recovery.survey import survey

    recovered = survey(layout)
    for job in recovered.running():
        if recovered.table.state[job] == PENDING:
            recovered.table.state[job] = INTERRUPTED
    return Report(Results.of(recovered))


# ------------------------------------------------------------------------------- values


def _is_completed(record: Ended | None) -> TypeGuard[Ended]:
    return record is not None and record.outcome == "completed"


def _value(record: Ended) -> Any:
    """The result, with what was not finite put back in its place."""
    value = msgspec.json.decode(record.result) if record.result else None
    for pointer, text in record.nonfinite:
        value = _replaced(value, pointer, float(text))
    return value


_TOKEN = "\0nonfinite:"  # stands in a result for a number that JSON does not have


def result_text(result: msgspec.Raw | bytes, nonfinite: Sequence[tuple[str, str]]) -> str:
    """A recorded result as JSON, but with `nan`, `inf` and `-inf` where these were, as `results` prints them."""
    if not nonfinite:
        return bytes(result or b"null").decode(errors="replace")
    value = msgspec.json.decode(result) if result else None
    for pointer, text in nonfinite:
        value = _replaced(value, pointer, f"{_TOKEN}{float(text)}")
    quoted = re.escape(msgspec.json.encode(_TOKEN).decode()[:-1])
    return re.sub(f'{quoted}([^"]*)"', r"\1", msgspec.json.encode(value).decode())


def _replaced(value: Any, pointer: str, number: Any) -> Any:
    """`value` with the place that a JSON pointer (RFC 6901) names set to `number`."""
    if not pointer:
        return number
    *path, last = [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]
    place = value
    for token in path:
        place = place[int(token)] if isinstance(place, list) else place[token]
    if isinstance(place, list):
        place[int(last)] = number
    else:
        place[last] = number
    return value


def _flatten(row: dict[str, Any], prefix: str, value: Any) -> None:
    if not isinstance(value, dict):
        row[prefix] = value
        return
    for key, item in value.items():
        _flatten(row, f"{prefix}.{key}", item)
