"""`longhaul status`: how an experiment goes right now."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime

import msgspec

from supervisor.commands.finding import add_experiment, the_experiment
from supervisor.commands.tables import add_json, emit, emit_json, on_terminal
from supervisor.core.errors import UsageError
from supervisor.listing import experiment_row, is_finished_pilot, is_gone, read_progress
from supervisor.records.layout import Layout
from supervisor.views.checkpoints import checkpoint_table
from supervisor.views.status import OVER, status_text

_EVERY = 1.0  # seconds between two looks; the progress file changes no faster
_HOME, _CLEAR_BELOW, _CLEAR_LINE = "\x1b[H", "\x1b[J", "\x1b[K"


def describe(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    parser.add_argument(
        "-w", "--watch", action="store_true", help="look again every second, until it is over"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.watch and arguments.json:
        raise UsageError(
            "--watch and --json do not go together: ask for --json as often as you like, "
            "or follow the progress file"
        )
    layout = the_experiment(arguments)
    shown = ""
    while True:
        if not arguments.watch:
            _print(layout, as_json=arguments.json)
            return 0
        text, over = _look(layout)
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


def _look(layout: Layout) -> tuple[str, bool]:
    """What there is to say, and whether nothing more will come."""
    progress = read_progress(layout)
    if progress is None:
        row = experiment_row(layout)
        return checkpoint_table([row]), row.state != "running"
    gone = is_gone(layout, progress) is True
    pilot = progress.state == "finished" and is_finished_pilot(layout)
    text = status_text(progress, datetime.now(UTC), gone=gone, word="pilot done" if pilot else "")
    return text, gone or progress.state in OVER


def _print(layout: Layout, *, as_json: bool) -> None:
    if not as_json:
        emit(_look(layout)[0])
        return
    progress = read_progress(layout)
    if progress is None:
        emit_json(experiment_row(layout))
        return
    document = msgspec.to_builtins(progress)
    if is_gone(layout, progress) is True and progress.state not in OVER:
        document["state"] = "died"
    emit_json({**document, "directory": str(layout.directory)})
