"""`longhaul list`: the experiments of a directory, with their states."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from supervisor.commands.lookup import add_directory, all_of, root_of
from supervisor.commands.tables import add_json, emit, emit_json
from supervisor.experiment.experiment_status import experiment_row, shown_row
from supervisor.views.experiment_table import checkpoint_table, nothing_yet


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", nargs="?", type=Path, metavar="DIR", help="the same as -d DIR")
    add_directory(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    root = root_of(arguments)
    row_of = experiment_row if arguments.json else shown_row
    rows = [(layout, row_of(layout)) for layout in all_of(root)]
    if arguments.json:
        rows.sort(key=lambda pair: pair[1].saved_at)
        emit_json(
            [{**msgspec.structs.asdict(row), "directory": str(layout.directory)} for layout, row in rows]
        )
    elif rows:
        emit(checkpoint_table([row for _, row in rows]))
    else:
        emit(nothing_yet(str(root.absolute())))
    return 0
