"""The experiments of a directory with their states, for `--list-checkpoints` and the
command `longhaul`. Nothing is changed, and one damaged experiment hides no other."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil

from supervisor.core.terms.errors import LonghaulError
from supervisor.core.terms.jobs import Counts
from supervisor.reports.experiment_list import experiments
from supervisor.reports.progress_file import OVER, Progress, read_progress
from supervisor.storage.checkpoint.checkpoint_format import peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import is_held
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.storage.recovery.survey import survey
from supervisor.views.console import print_lines
from supervisor.views.experiment_table import CheckpointRow, checkpoint_table, no_checkpoints


def list_checkpoints(directory: Path, resume_command: str) -> None:
    """The experiments that can be resumed, as a table on stdout."""
    rows = [shown_row(Layout(directory, experiment_id)) for experiment_id in experiments(directory)]
    if not rows:
        print_lines(sys.stdout, no_checkpoints(str(directory / "logs")))
        return
    print_lines(sys.stdout, checkpoint_table(rows, resume_command))


def shown_row(layout: Layout) -> CheckpointRow:
    """`experiment_row` for people: for an unfinished experiment it says how the last run ended, in the words
    of the summary."""
    row = experiment_row(layout)
    if row.state != "unfinished":
        return row
    return msgspec.structs.replace(row, state=how_it_ended(layout, _progress(layout)) or row.state)


def how_it_ended(layout: Layout, progress: Progress | None) -> str:
    """`stopped early` or `interrupted`, if the last run has ended like that; else "". The progress file has
    one state for both."""
    if progress is None or progress.state != "interrupted":
        return ""
    try:
        state = msgspec.json.decode(layout.statistics.read_bytes(), type=_RunState).state
    except (OSError, msgspec.MsgspecError):
        return "interrupted"
    return "stopped early" if state == "stopped" else "interrupted"


class _RunState(msgspec.Struct):
    """Of statistics.json: how the last run ended."""

    state: str = ""


def experiment_row(layout: Layout) -> CheckpointRow:
    """One experiment of the table; a damaged one is listed as such."""
    live = _live_state(layout)
    try:
        found = survey(layout)
    except LonghaulError as error:
        return CheckpointRow(layout.experiment_id, f"unusable: {error}"[:60], Counts())
    try:
        saved: Any = found.header.saved_at if found.header is not None else found.statistics.last_at
        counts = found.table.counts()
        return CheckpointRow(layout.experiment_id, live or _state(found), counts, saved, found.name)
    finally:
        found.close()


def _state(found: Recovered) -> str:
    """Of one that nobody runs now."""
    counts = found.table.counts()
    if counts.left:
        return "unfinished"
    started = found.history.run_started
    if started is not None and started.offered > counts.total and not found.settings.get("all_tasks", True):
        return f"pilot done, of {started.offered:,}"
    return "finished"


def is_finished_pilot(layout: Layout) -> bool:
    """Whether the script has more jobs than the experiment, which is finished; quickly, by its checkpoint."""
    header = peek(Disk(), layout.checkpoint)
    started = header.run_started if header is not None else None
    if header is None or started is None or header.settings.get("all_tasks", True):
        return False
    return started.offered > header.counts.total


def is_running(layout: Layout) -> bool:
    """Whether a supervisor owns the experiment now."""
    return bool(_live_state(layout))


def _live_state(layout: Layout) -> str:
    """ "" if no supervisor owns the experiment now, else what that is doing. A supervisor holds the lock; where the
    file system has no locks, the progress file says it."""
    progress = _progress(layout)
    at_work = progress is not None and progress.state not in OVER
    held = is_held(layout.lock)
    if held is None:
        held = progress is not None and at_work and is_gone(layout, progress) is False
    if not held:
        return ""
    doing = progress.state.replace("_", " ") if progress is not None and at_work else ""
    return doing or "running"


def _progress(layout: Layout) -> Progress | None:
    """None also if it cannot be read."""
    try:
        return read_progress(layout)
    except LonghaulError:
        return None


def is_gone(layout: Layout, progress: Progress) -> bool | None:
    """Whether the supervisor has ended; None if it ran on another machine."""
    if progress.supervisor.host != socket.gethostname():
        return None
    # A killed supervisor may still be a zombie, but its lock is released.
    return is_held(layout.lock) is False or not psutil.pid_exists(progress.supervisor.pid)
