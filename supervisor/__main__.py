"""The command `longhaul`: looks at experiments from outside. It never changes one."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from supervisor.closing import checkpoint_row
from supervisor.core.errors import LonghaulError, UnusableCheckpoint, UsageError
from supervisor.options import version
from supervisor.records.layout import Layout, check_id, experiments
from supervisor.views.checkpoints import CheckpointRow, checkpoint_table, no_checkpoints
from supervisor.views.outlet import say
from supervisor.views.status import OVER, Progress, status_text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        directories = _directories(arguments.directory)
        if arguments.command == "list":
            text = _list(directories, arguments.directory)
        else:
            text = _status(directories, arguments.experiment, arguments.directory)
    except LonghaulError as error:
        say(sys.stderr, f"error: {error}")
        return error.exit_code
    say(sys.stdout, text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="longhaul",
        description="Look at experiments. They are started and resumed by their own scripts.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"longhaul {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="which experiments there are")
    status = commands.add_parser("status", help="how one goes right now")
    status.add_argument("experiment", nargs="?", default="latest", metavar="ID", help="default: latest")
    for command in (listing, status):
        command.add_argument(
            "directory",
            nargs="?",
            type=Path,
            default=Path(os.environ.get("LONGHAUL_OUTPUT") or Path("data", "outputs")),
            metavar="DIR",
            help="of one experiment name, or of several (default: LONGHAUL_OUTPUT or data/outputs)",
        )
    return parser


def _directories(root: Path) -> list[Path]:
    """`root` if it has logs, and what has logs one level below."""
    try:
        below = sorted(path for path in root.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{root.absolute()} is not a directory; name the one that holds the outputs"
        ) from None
    except OSError as error:
        raise UsageError(f"{root.absolute()} cannot be read: {error.strerror}") from None
    return [path for path in (root, *below) if (path / "logs").is_dir()]


def _list(directories: Sequence[Path], root: Path) -> str:
    rows = [_row(Layout(path, one)) for path in directories for one in experiments(path)]
    return checkpoint_table(rows) if rows else no_checkpoints(str(root.absolute()))


def _row(layout: Layout) -> CheckpointRow:
    row = checkpoint_row(layout)
    progress = _progress(layout)
    if progress is not None and progress.state not in OVER and _is_gone(progress) is False:
        row.state = progress.state.replace("_", " ")
    return row


def _status(directories: Sequence[Path], experiment_id: str, root: Path) -> str:
    if experiment_id == "latest":
        found = [Layout(path, one) for path in directories for one in experiments(path)[:1]]
        found.sort(key=lambda layout: checkpoint_row(layout).saved_at)
    else:
        check_id(experiment_id)
        found = [layout for path in directories if (layout := Layout(path, experiment_id)).exists()]
    if not found:
        which = "experiments" if experiment_id == "latest" else f"experiment {experiment_id!r}"
        raise UsageError(f"no {which} in {root.absolute()}; `longhaul list DIR` shows what there is")
    layout = found[-1]
    progress = _progress(layout)
    if progress is None:
        return checkpoint_table([checkpoint_row(layout)])
    return status_text(progress, datetime.now(UTC), gone=_is_gone(progress) is True)


def _progress(layout: Layout) -> Progress | None:
    """None if there is no progress file; it is worth nothing after a power cut."""
    try:
        return msgspec.json.decode(layout.progress.read_bytes(), type=Progress)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableCheckpoint(f"{layout.progress} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError:
        return None


def _is_gone(progress: Progress) -> bool | None:
    """Whether the supervisor is no more; None if it lives or lived on another machine."""
    if progress.supervisor.host != socket.gethostname():
        return None
    return not psutil.pid_exists(progress.supervisor.pid)


if __name__ == "__main__":
    raise SystemExit(main())
