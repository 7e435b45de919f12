"""`longhaul report`: one HTML file about an experiment, to be read anywhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from supervisor.commands.lookup import add_experiment, the_experiment
from supervisor.commands.tables import emit
from supervisor.core.terms.wording import size
from supervisor.reports.report import load
from supervisor.views.suggested_commands import shown


def describe(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write it there, replacing what is there (default: report_ID.html)",
    )


def run(arguments: argparse.Namespace) -> int:
    layout = the_experiment(arguments)
    path: Path = (arguments.output or Path(f"report_{layout.experiment_id}.html")).absolute()
    with load(layout.directory, layout.experiment_id) as report:
        report.save_html(path)
    number = path.stat().st_size if path.is_file() else 0
    emit(f"written: {shown(str(path))}{f' ({size(number)})' if number else ''}")
    return 0
