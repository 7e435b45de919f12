"""`longhaul rm`: removes all files of an experiment, and no others.

It holds the experiment's lock, so nobody can run the experiment meanwhile. Journal and checkpoint are removed
last: an interrupted removal still appears in `longhaul list` and can be repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from supervisor.commands.lookup import add_directory, find_and_tell, root_of
from supervisor.commands.tables import emit
from supervisor.core.terms.errors import BeingRun, UsageError
from supervisor.core.terms.wording import count, size
from supervisor.experiment.experiment_status import experiment_row, is_running
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from supervisor.storage.files.removal import files_of, remove

_NO = 1  # exit code when the answer was no


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiments",
        nargs="+",
        metavar="ID",
        help="experiments (ids, no names), `latest`, or their directories",
    )
    add_directory(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    # A name might be taken for all experiments of that name.
    layouts = [find_and_tell(word, root_of(arguments), names=False) for word in arguments.experiments]
    for layout in layouts:  # before anything is removed
        _refuse_a_live_one(layout)
    for layout in layouts:
        if not arguments.yes and not _agreed(layout):
            emit("nothing was removed")
            return _NO
    for layout in layouts:
        lock = Lock.acquire(layout.lock, layout.experiment_id)
        try:
            files = files_of(layout)
            remove(files)
        finally:
            lock.release()
        emit(f"removed {layout.experiment_id} from {layout.directory}")
    return 0


def _refuse_a_live_one(layout: Layout) -> None:
    if is_running(layout):
        raise BeingRun(
            f"experiment {layout.experiment_id} in {layout.directory} is being run; stop it first (Ctrl+C, or "
            f"longhaul ctl stop). Nothing was removed."
        )


def _agreed(layout: Layout) -> bool:
    row = experiment_row(layout)
    files = files_of(layout)
    results = layout.results_directory
    emit(
        f"{layout.experiment_id} in {layout.directory}: {row.state}, {row.counts.completed:,} of "
        f"{count(row.counts.total, 'job')} completed"
    )
    emit(f"  {size(_bytes(files))} in {', '.join(path.name for path in files)}")
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            f"no terminal to ask for confirmation: use --yes to remove {results.name}. Nothing was removed."
        )
    sys.stdout.write("Remove it? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _bytes(paths: Sequence[Path]) -> int:
    total = 0
    for path in paths:
        inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
        total += sum(one.lstat().st_size for one in inner)
    return total
