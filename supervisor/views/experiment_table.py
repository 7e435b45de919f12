"""The table of experiments, for `--list-checkpoints` and `longhaul list`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from supervisor.core.terms.jobs import Counts
from supervisor.core.terms.wording import one_line


class CheckpointRow(msgspec.Struct):
    """One experiment. `state`: running, interrupted, finished, damaged ... `saved_at`: ISO 8601, "" if
    unknown. `name`: of the experiment; shown if the rows have different ones."""

    experiment_id: str
    state: str
    counts: Counts
    saved_at: str = ""
    name: str = ""


def checkpoint_table(rows: Sequence[CheckpointRow], command: str = "") -> str:
    """The table, newest experiment last, and below it how to resume.

    command: the resume command, with `ID` in place of the id; "" leaves it out.
    """
    named = len({row.name for row in rows}) > 1
    heads = [*(["name"] if named else []), "experiment", "state", "completed", "failed", "left", "saved"]
    table = [heads]
    for row in sorted(rows, key=lambda row: (row.saved_at, row.experiment_id)):
        counts = row.counts
        cells = [row.experiment_id, row.state, f"{counts.completed:,} of {counts.total:,}"]
        cells += [f"{counts.failed:,}", f"{counts.left:,}", _local(row.saved_at)]
        table.append([*([one_line(row.name)] if named else []), *cells])
    widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
    numbers = {len(heads) - 4, len(heads) - 3, len(heads) - 2}
    lines = []
    for line in table:
        cells = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if command:
        lines += ["", f"resume with: {command}   (or --resume latest)"]
    return "\n".join(lines)


def no_checkpoints(directory: str) -> str:
    """The message if there is nothing to list or to resume."""
    return f"No checkpoints found to resume from in {directory}"


def nothing_yet(directory: str) -> str:
    """The message of a list of all experiments if there is none."""
    return (
        f"{no_checkpoints(directory)}\nNothing has run here yet: a script that calls main(...) makes an experiment "
        "each time it is started (python SCRIPT.py), and so does longhaul exec; longhaul list -d DIR looks elsewhere"
    )


def _local(saved_at: str) -> str:
    try:
        return datetime.fromisoformat(saved_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return "?"
