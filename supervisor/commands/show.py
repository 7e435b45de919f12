"""`longhaul show JOB`: every attempt of one job, from the journal."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from supervisor.commands.attempts import MARK, SAMPLE, Attempt, Attempts, take_mark
from supervisor.commands.lookup import add_experiment, add_job, find_job, the_experiment
from supervisor.commands.tables import add_json, emit, emit_json, show_table
from supervisor.core.terms.code_spans import UNKNOWN, CodeSpans
from supervisor.core.terms.jobs import INTERRUPTED, PENDING, STATE_NAMES
from supervisor.core.terms.needs_wording import amounts_in_words
from supervisor.core.terms.records import Ended, WorkerEnded
from supervisor.core.terms.wording import cut, duration, one_line, printed_lines, size, told_lines
from supervisor.experiment.code_changes import since_then
from supervisor.experiment.experiment_status import is_running
from supervisor.reports.report import result_text
from supervisor.reports.result_reader import Results
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_format import is_ended
from supervisor.storage.journal.journal_reader import history
from supervisor.storage.plan.plan_line import PlannedJob
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.storage.recovery.survey import survey
from supervisor.views.suggested_commands import pasted
from workers.isolation.faulthandler_dumps import printed_tail
from workers.isolation.output_files import log_path
from workers.process.surrogates import decoded_entry
from workers.program.recorded_command import recorded_command

_TAIL = 20  # lines of output
_HEAD = 120  # bytes of a line that have its kind
_WIDTH = 2000  # characters shown of params and of a result


def describe(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    add_experiment(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    layout = the_experiment(arguments)
    live = is_running(layout)
    found = survey(layout)
    try:
        job_id = find_job(arguments.job, found.table.ids)
        job = found.table.numbers[job_id]
        planned, record = _read(found, job)
        if found.table.state[job] == PENDING and job in found.running():
            found.table.state[job] = INTERRUPTED
        state, attempts = STATE_NAMES[found.table.state[job]], found.table.attempts[job]
        gone = not found.table.wanted[job]
        codes, run = found.history.codes, found.history.run_started
    finally:
        found.close()
    tries = attempts_of(layout, job_id, live=live)
    output = log_path(str(layout.output_directory), job_id)
    if arguments.json:
        document: dict[str, Any] = {
            "experiment_id": layout.experiment_id,
            "job": job_id,
            "domain": planned.domain,
            "params": planned.params,
            **({"needs": planned.needs} if planned.needs else {}),
            "state": state,
            "in_plan": not gone,
            "attempts": tries,
            "output": output,
        }
        if record is not None and record.result:
            document |= {"result": record.result, "nonfinite": record.nonfinite}
        if record is not None:
            document["code"] = codes.version(record.lease)
        emit_json(document)
        return 0
    entry = decoded_entry(run.entry) if run is not None else {}
    command = recorded_command(entry, msgspec.json.decode(planned.params))
    _tell_job(layout, planned, state, record, command, gone=gone)
    _tell_code(record, tries, codes, run.code if run is not None else {})
    _tell_attempts(tries, attempts)
    _tell_errors(tries)
    if not (tries and (tries[-1].error or {}).get("output_tail")):
        _tell_output(output)
    return 0


def attempts_of(layout: Layout, job_id: str, *, live: bool, alone: bool = False) -> list[Attempt]:
    """In the order of their ends; a running attempt is last. alone: no line of other jobs is decoded, which takes a
    third of the time; what waits in a worker's queue then counts as running, if it is `live`."""
    tries: list[Attempt] = []
    fold = Attempts(lambda attempt: tries.append(attempt) if attempt.job == job_id else None)
    marks: dict[int, int] = {}
    for record in history(layout, _lines_about(job_id) if alone else None):
        fold.apply(record)
        if isinstance(record, WorkerEnded) and record.peak_lease is not None:
            marks[record.peak_lease] = record.peak_rss or 0
    for attempt in tries:
        take_mark(attempt, marks)
    if live:
        tries += [attempt for attempt in fold.running() if attempt.job == job_id]
    return tries


def _lines_about(job_id: str) -> Callable[[bytes], bool]:
    """Whether a line names the job, or tells of no jobs but of workers and runs."""
    name = msgspec.json.encode(job_id)
    return lambda line: name in line or not (is_ended(line) or b'"type":"leased"' in line[:_HEAD])


def _read(found: Recovered, job: int) -> tuple[PlannedJob, Ended | None]:
    (row,) = Results.of(found).read([job])
    return row[1], row[2]


def _tell_job(
    layout: Layout, planned: PlannedJob, state: str, record: Ended | None, command: list[str], *, gone: bool
) -> None:
    domain = f", domain {one_line(planned.domain)}" if planned.domain else ""
    emit(
        f"{one_line(planned.id)}: {state.replace('_', ' ')}{domain}, in experiment {layout.experiment_id}"
        f"{'; no longer in the plan' if gone else ''}"
    )
    emit(f"params   {_shown(bytes(planned.params).decode(errors='replace'))}")
    if command:
        emit(f"command  {_shown(pasted(command))}")
    if planned.needs:
        emit(f"needs    {amounts_in_words(msgspec.json.decode(planned.needs))}")
    if record is not None and record.outcome == "completed":
        emit(f"result   {_shown(result_text(record.result, record.nonfinite))}")


def _tell_code(record: Ended | None, tries: list[Attempt], codes: CodeSpans, newest: dict[str, Any]) -> None:
    """The code version of its result, and earlier results, which only the journal has."""
    lease = 0 if record is None else record.lease
    if lease:
        emit(f"code     {_version(codes.version(lease), codes, newest)}")
    for one in tries:
        if one.outcome == "completed" and one.lease != lease:
            made_by = _version(one.code, codes, newest)
            result = result_text(one.result or b"", one.nonfinite)
            emit(f"before   {_shown(result)}, by code {made_by}")
    emit("")


def _version(version: str | None, codes: CodeSpans, newest: dict[str, Any]) -> str:
    """The version, with all later changes if it is not that of the last run."""
    if version is None:
        return f"{UNKNOWN}: an older longhaul has recorded it"
    last = version == codes.spans[-1].version and len(codes.spans) > 1
    since = since_then(version, codes, newest, most=1000)
    return ", ".join(filter(None, [version, "that of the last run" if last else "", since]))


def _shown(text: str) -> str:
    return cut(one_line(text), _WIDTH)


def _tell_attempts(tries: list[Attempt], counted: int) -> None:
    known = sum(one.attempt > 0 for one in tries)
    if known < counted:
        emit(f"{counted - known} of {counted} attempts are no longer in the journal (it was rewritten)")
    if not tries:
        emit("it has not been started" if not counted else "")
        return
    heads = ["attempt", "run", "worker", "pid", "started", "ended", "took", "outcome", "peak memory", "then"]
    several = len({one.code for one in tries}) > 1
    heads += ["code"] if several else []
    told = any(one.given is not msgspec.UNSET for one in tries)
    heads += ["given"] if told else []
    placed = any(one.place is not msgspec.UNSET for one in tries)
    heads += ["node"] if placed else []
    rows = [
        [
            str(one.attempt or "-"),
            str(one.run),
            "-" if one.worker is None else str(one.worker),
            str(one.pid or "-"),
            clock(one.started or one.handed_out),
            clock(one.ended),
            "-" if one.seconds is None else duration(one.seconds),
            one.outcome.replace("_", " "),
            peak(one),
            _then(one),
            *([one.code or "-"] if several else []),
            *([_given(one)] if told else []),
            *(["-" if one.place is msgspec.UNSET else one_line(one.place)] if placed else []),
        ]
        for one in tries
    ]
    show_table(heads, rows, right=("attempt", "run", "worker", "pid", "took"))


def _given(attempt: Attempt) -> str:
    return "-" if attempt.given is msgspec.UNSET else amounts_in_words(attempt.given)


def peak(attempt: Attempt) -> str:
    """`1.9G at 03:10:00`; `1.9G at 03:10:00 (sample)` where it may have held more between two samples;
    `1.9G (exact), sampled at 03:10:00`; `-` if it was never measured; `its worker's 1.9G` if an earlier job
    may have taken that."""
    if not attempt.peak_rss and (of_worker := (attempt.error or {}).get("worker_peak_rss")):
        return f"its worker's {size(of_worker)}"
    if not attempt.peak_rss:
        return "-"
    at = f" at {clock(attempt.peak_at).rpartition(' ')[2]}" if attempt.peak_at else ""
    if attempt.peak_from == MARK:
        return f"{size(attempt.peak_rss)} (exact)" + (f", sampled{at}" if at else "")
    return f"{size(attempt.peak_rss)}{at}{' (sample)' if attempt.peak_from == SAMPLE else ''}"


def clock(at: str) -> str:
    """A record's time in the local time zone; `-` if unknown."""
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%m-%d %H:%M:%S")
    except ValueError:
        return "-"


def _then(attempt: Attempt) -> str:
    if (attempt.error or {}).get("quarantined"):
        return "given up"
    words = {"pending": "to run again", "in_progress": "to run again", "failed": "failed", "completed": ""}
    return words.get(attempt.state, "")


def _tell_errors(tries: list[Attempt]) -> None:
    for one in tries:
        error = one.error or {}
        if one.outcome in ("interrupted", "lost") or not error:
            continue
        kind = error.get("type") or one.outcome.replace("_", " ")
        where = f" at {one_line(error['where'])}" if error.get("where") else ""
        message = f": {one_line(error['message'])}" if error.get("message") else ""
        emit(f"\nattempt {one.attempt or '-'}: {one_line(kind)}{where}{message}")
        for heading, key, lines in (
            ("", "traceback", told_lines),
            ("the value was", "value_repr", told_lines),
            ("last output", "output_tail", printed_lines),
        ):
            if text := error.get(key):
                if heading:
                    emit(f"  {heading}:")
                for line in lines(text):
                    emit(f"  | {line}")


def _tell_output(path: str) -> None:
    lines = printed_lines(printed_tail(path, _TAIL))
    if lines and any(lines):
        emit(f"\noutput, last lines of {path}:")
        for line in lines:
            emit(f"  | {line}")
