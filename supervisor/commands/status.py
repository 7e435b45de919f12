"""`longhaul status`: the present state of an experiment."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime

import msgspec

from supervisor.commands.lookup import add_experiment, the_experiment
from supervisor.commands.tables import add_json, emit, emit_json, on_terminal
from supervisor.core.state.snapshot import NeedsSnapshot, RunSnapshot, WorkerSnapshot
from supervisor.core.terms.errors import StorageError, UsageError
from supervisor.core.terms.records import RunStarted
from supervisor.core.terms.wording import duration, one_line, shorten, size
from supervisor.experiment.experiment_status import experiment_row, how_it_ended, is_finished_pilot, is_gone
from supervisor.reports.journal_watch import JournalWatch
from supervisor.reports.progress_file import OVER, Progress, ProgressWorker, read_progress, seconds_since
from supervisor.storage.checkpoint.checkpoint_format import peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.views.experiment_table import checkpoint_table
from supervisor.views.failure_lines import failure_line
from supervisor.views.plain_view import node_line, taken_of, unfit_of, waiting_of
from supervisor.views.plain_view import progress as progress_line
from supervisor.views.suggested_commands import resume_command
from workers.process.surrogates import decoded_entry

_EVERY = 1.0  # seconds between two reads; the progress file changes no faster

_HOME, _CLEAR_BELOW, _CLEAR_LINE = "\x1b[H", "\x1b[J", "\x1b[K"


def describe(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    parser.add_argument(
        "-w", "--watch", action="store_true", help="refresh every second until the run is over"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.watch and arguments.json:
        raise UsageError(
            "--watch and --json do not go together: ask for --json as often as you like, "
            "or follow the progress file"
        )
    layout = the_experiment(arguments)
    journal = JournalWatch(layout)
    shown = ""
    while True:
        if not arguments.watch:
            _print(layout, as_json=arguments.json)
            return 0
        text, over = _state_in_words(layout)
        if shown:  # at first what can be had at once: a journal of a million lines takes some seconds
            text = "\n".join([text, *(f"  {line}" for line in _lines_of(journal))])
        if on_terminal():
            lines = "".join(f"{line}{_CLEAR_LINE}\n" for line in text.splitlines())
            start = _HOME + _CLEAR_BELOW if not shown else _HOME
            sys.stdout.write(f"{start}{lines}{_CLEAR_BELOW}")
        elif text != shown:
            emit(f"{text}\n" if not over else text)
        shown = text
        sys.stdout.flush()
        if over:
            return 0
        time.sleep(_EVERY)


def _lines_of(journal: JournalWatch) -> list[str]:
    """What the journal tells; nothing while it cannot be read."""
    try:
        journal.update()
    except StorageError:
        return []
    return journal.lines(datetime.now(UTC))


def _state_in_words(layout: Layout) -> tuple[str, bool]:
    """The state as text, and whether it will not change any more."""
    progress = read_progress(layout)
    if progress is None:
        row = experiment_row(layout)
        return checkpoint_table([row]), row.state != "running"
    gone = is_gone(layout, progress) is True
    pilot = progress.state == "finished" and is_finished_pilot(layout)
    word = "pilot done" if pilot else how_it_ended(layout, progress)
    resume = _resume(layout) if gone else ""
    text = status_text(progress, datetime.now(UTC), gone=gone, word=word, resume=resume)
    return text, gone or progress.state in OVER


def _resume(layout: Layout) -> str:
    header = peek(Disk(), layout.checkpoint)
    return resume_words(layout, header.run_started if header is not None else None)


def resume_words(layout: Layout, started: RunStarted | None) -> str:
    """The command that goes on with it, as its last run was started; "" if that is not known."""
    if started is None or not started.argv:
        return ""
    words = [str(word) for word in decoded_entry(started.entry).get("sys_argv", ())]
    return resume_command(started.argv, words[1:], layout.experiment_id)


def _print(layout: Layout, *, as_json: bool) -> None:
    if not as_json:
        emit(_state_in_words(layout)[0])
        return
    progress = read_progress(layout)
    if progress is None:
        emit_json(experiment_row(layout))
        return
    document = msgspec.to_builtins(progress)
    if is_gone(layout, progress) is True and progress.state not in OVER:
        document["state"] = "died"
    emit_json({**document, "directory": str(layout.directory)})


_MOST_WORKERS = 64
_MOST_NODES = 64

_MOST_FAILURES = 5


def status_text(
    progress: Progress, now: datetime, *, gone: bool = False, word: str = "", resume: str = ""
) -> str:
    """The state of an experiment as text. `now` has a time zone. `gone`: its supervisor is known to be dead.
    `word`: replaces the state of the progress file, if not empty. `resume`: the command that goes on with it,
    if it is known."""
    over = progress.state in OVER
    state = "died" if gone and not over else word or progress.state.replace("_", " ")
    age = seconds_since(progress.saved_at, now)
    when = "" if age is None else f", {duration(age)} ago"
    lines = [f"{one_line(progress.name)} {progress.experiment_id}: {state}{when}".strip()]
    workers = [] if over or gone else progress.workers
    nodes = None if over or gone or progress.nodes is msgspec.UNSET else progress.nodes
    snapshot = RunSnapshot(
        experiment_id=progress.experiment_id,
        name=progress.name,
        directory="",
        state=progress.state,
        counts=progress.counts,
        elapsed=progress.elapsed_seconds,
        rate=0.0 if over or gone else progress.rate,
        eta_seconds=None if over or gone else progress.eta_seconds,
        workers=[WorkerSnapshot(worker.worker, worker.pid, 0, "ready", worker.job) for worker in workers],
        waiting_for="" if over or gone else progress.waiting_for,
        nodes=nodes,
    )
    lines.append(f"  {progress_line(snapshot, now.astimezone())}")
    if progress.needs is not msgspec.UNSET:
        lines.extend(f"  {line}" for line in _needs(progress.needs, over=over or gone))
    if gone and not over:
        where = f"pid {progress.supervisor.pid} on {progress.supervisor.host}"
        resume = resume or f"--resume {progress.experiment_id}"
        lines.append(f"  its supervisor ({where}) is gone; resume with: {resume}")
        lines.append("  the journal may hold more results than are counted here; longhaul verify counts them")
    if nodes is not None:
        wide = min(40, max((len(node.node) for node in nodes), default=0))
        lines.extend(f"  {node_line(node, wide)}" for node in nodes[:_MOST_NODES])
        lines.extend([f"  and {len(nodes) - _MOST_NODES:,} more nodes"] if len(nodes) > _MOST_NODES else [])
    lines.extend(_worker(worker, now) for worker in workers[:_MOST_WORKERS] if worker.job is not None)
    lines.extend(f"  {failure_line(failure)}" for failure in progress.recent_failures[-_MOST_FAILURES:])
    return "\n".join(lines)


def _needs(needs: NeedsSnapshot, *, over: bool) -> list[str]:
    """What jobs take, and wait for; when the run is over, only how many were left."""
    lines = [] if over else [f"given: {', '.join(taken_of(needs))}", waiting_of(needs)]
    return list(filter(None, [*lines, unfit_of(needs)]))


def _worker(worker: ProgressWorker, now: datetime) -> str:
    seconds = seconds_since(worker.since or "", now)
    running = "" if seconds is None else duration(seconds)
    name = shorten(one_line(worker.job or ""), 60)
    usage = f"{size(worker.rss_bytes):>6} {worker.cpu_percent:4.0f}%"
    done = "" if worker.fraction is None else f"  {worker.fraction:.0%} done"
    place = "" if worker.place is msgspec.UNSET else f"  on {one_line(worker.place)}"
    return f"  {worker.worker:>4}  {name:<40}  {running:>8}  {usage}{done}{'  slow' * worker.slow}{place}"
