"""`longhaul results`: params and results as columns, of one experiment or of several."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from supervisor.commands.finding import add_directory, find_and_tell, root_of
from supervisor.commands.tables import emit, on_terminal, plain_table, show_table
from supervisor.core.errors import CannotCreate
from supervisor.records.disk import Disk
from supervisor.records.files import write_atomically
from supervisor.records.reports import Report, load
from supervisor.views.encodings import for_people, for_programs
from supervisor.views.words import cut, one_line

# What every job has; of the rest each job brings what it has.
_FIRST = ("experiment", "job", "domain", "state", "seconds", "outcome")
_LAST = ("error.type", "error.message", "code")
_CELL = 60  # characters of a cell in a table
_BUFFER = 1 << 16

Row = dict[str, Any]


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiments",
        nargs="*",
        default=["latest"],
        metavar="ID",
        help="experiments, `latest`, or directories (default: latest)",
    )
    add_directory(parser)
    parser.add_argument(
        "-f", "--format", choices=("table", "csv", "jsonl"), default="table", help="default: table"
    )
    parser.add_argument(
        "--json", action="store_const", const="jsonl", dest="format", help="the same as --format jsonl"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write it there, replacing what is there"
    )


def run(arguments: argparse.Namespace) -> int:
    layouts = [find_and_tell(word, root_of(arguments)) for word in arguments.experiments]
    with contextlib.ExitStack() as stack:
        reports = [stack.enter_context(load(one.directory, one.experiment_id)) for one in layouts]
        if arguments.format == "table" and arguments.output is None and on_terminal():
            heads, rows = table_of(reports)
            show_table(heads, rows, right=_numeric(heads, rows))
        elif arguments.output is None:
            fitted = for_people if arguments.format == "table" else for_programs
            for text in written(reports, arguments.format):
                if sys.stdout is not None:
                    sys.stdout.write(fitted(text, sys.stdout))
        else:
            _save(arguments.output, reports, arguments.format)
    return 0


def _save(path: Path, reports: Sequence[Report], form: str) -> None:
    parts = (text.encode() for text in written(reports, form))
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as device:  # or a pipe: a file in its place would destroy it
                device.writelines(parts)
            return
        write_atomically(Disk(), path, parts)
    except OSError as error:
        raise CannotCreate(f"{path.absolute()} cannot be written: {error.strerror or error}") from None
    emit(f"written: {path.absolute()}")


def rows_of(reports: Sequence[Report]) -> Iterator[Row]:
    """The rows of all, with the experiment's id in front if there are several."""
    for report in reports:
        for row in report.each_row():
            yield {"experiment": report.experiment_id, **row} if len(reports) > 1 else row


def columns_of(reports: Sequence[Report]) -> list[str]:
    """What always comes first, then params, then results, each as it first appears."""
    seen = dict.fromkeys(name for row in rows_of(reports) for name in row)
    first = [name for name in _FIRST if name in seen]
    params = [name for name in seen if name.split(".")[0] == "params"]
    last = [name for name in _LAST if name in seen]
    rest = [name for name in seen if name not in {*first, *params, *last}]
    return [*first, *params, *rest, *last]


def written(reports: Sequence[Report], form: str) -> Iterator[str]:
    """The text of a format, in pieces."""
    if form == "jsonl":
        encode = msgspec.json.Encoder().encode
        yield from (encode(row).decode() + "\n" for row in rows_of(reports))
    elif form == "csv":
        yield from _csv(reports)
    else:
        heads, rows = table_of(reports)
        yield plain_table([heads, *rows], {heads.index(head) for head in _numeric(heads, rows)}) + "\n"


def _csv(reports: Sequence[Report]) -> Iterator[str]:
    columns = columns_of(reports)
    buffer: TextIO = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows_of(reports):
        writer.writerow([csv_cell(row.get(name)) for name in columns])
        if buffer.tell() > _BUFFER:
            yield _emptied(buffer)
    yield _emptied(buffer)


def _emptied(buffer: Any) -> str:
    text: str = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def csv_cell(value: Any) -> Any:
    """Texts and numbers as they are, nothing for None, JSON for the rest."""
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return msgspec.json.encode(value).decode()
    return value


def table_of(reports: Sequence[Report]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells for people: numbers rounded, long texts cut; the code only if there are several."""
    heads = columns_of(reports)
    if len({row["code"] for row in rows_of(reports) if row["seconds"] is not None}) < 2:
        heads.remove("code")
    return heads, [[_cell(row.get(name)) for name in heads] for row in rows_of(reports)]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return cut(one_line(str(csv_cell(value))), _CELL)


def _numeric(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns in which every cell that is not empty is a number."""
    return [
        head
        for column, head in enumerate(heads)
        if all(_is_number(row[column]) for row in rows if row[column]) and any(row[column] for row in rows)
    ]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
