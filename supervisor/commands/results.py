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

from supervisor.commands.column_fitting import fitted, terminal_width
from supervisor.commands.lookup import add_experiments, find_and_tell, root_of
from supervisor.commands.result_columns import Rows, finite
from supervisor.commands.result_database import write_database
from supervisor.commands.tables import emit, on_terminal, plain_table, show_table
from supervisor.core.terms.errors import CannotCreate, UsageError
from supervisor.core.terms.wording import cut, harmless, harmless_json, one_line
from supervisor.reports.report import load
from supervisor.storage.files.atomic_files import write_atomically
from supervisor.storage.files.disk import Disk
from supervisor.system.text_encoding import for_people, for_programs

_CELL = 60  # characters of a cell in a table
_BUFFER = 1 << 16


def describe(parser: argparse.ArgumentParser) -> None:
    add_experiments(parser, "experiments, the name of one (its latest), `latest`, or directories")
    parser.add_argument(
        "-f", "--format", choices=("table", "csv", "jsonl", "sqlite"), default="table", help="default: table"
    )
    parser.add_argument(
        "--json", action="store_const", const="jsonl", dest="format", help="the same as --format jsonl"
    )
    parser.add_argument(
        "-c",
        "--columns",
        action="append",
        default=[],
        metavar="NAMES",
        help="only these columns, in this order: job,params.steps,result.* (the last part of a name is enough)",
    )
    parser.add_argument(
        "-a",
        "--all-columns",
        action="store_true",
        help="all columns, also in a terminal that has no room for them",
    )
    parser.add_argument(
        "-s",
        "--sort",
        action="append",
        default=[],
        metavar="NAME",
        help="sort by this column; may be repeated (default: the order of the script)",
    )
    parser.add_argument("-r", "--reverse", action="store_true", help="in descending order")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write it there, replacing what is there"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.format == "sqlite":
        _refuse_for_database(arguments)
    layouts = [find_and_tell(word, root_of(arguments)) for word in arguments.experiments]
    with contextlib.ExitStack() as stack:
        reports = [stack.enter_context(load(one.directory, one.experiment_id)) for one in layouts]
        columns = [name for words in arguments.columns for name in words.split(",") if name]
        if arguments.format == "sqlite":
            write_database(arguments.output, reports)
            emit(f"written: {arguments.output.absolute()}")
            return 0
        found = Rows(reports, columns, arguments.sort, reverse=arguments.reverse)
        if arguments.format == "table" and arguments.output is None and on_terminal():
            _show(found, everything=arguments.all_columns)
        elif arguments.output is None:
            for text in written(found, arguments.format):
                _print(text, arguments.format)
        else:
            _save(arguments.output, found, arguments.format)
    return 0


def _refuse_for_database(arguments: argparse.Namespace) -> None:
    if arguments.output is None:
        raise UsageError("--format sqlite makes a file: say which one with -o FILE")
    if arguments.columns or arguments.sort or arguments.reverse:
        raise UsageError("--format sqlite has all columns and no order: choose and sort with SQL")


def _show(found: Rows, *, everything: bool) -> None:
    """As a table in a terminal: what there is room for, unless columns were chosen."""
    heads, rows = table_of(found)
    notes: list[str] = []
    if not (everything or found.chosen):
        from rich.cells import cell_len

        heads, rows, notes = fitted(heads, rows, terminal_width(), cell_len)
    show_table(heads, rows, right=_numeric(heads, rows))
    for note in notes:
        emit(note)


def _print(text: str, form: str) -> None:
    """Print for programs; a terminal gets no control characters."""
    if sys.stdout is None:
        return
    if sys.stdout.isatty():
        text = harmless_json(text) if form == "jsonl" else harmless(text)
    fitted = for_people if form == "table" else for_programs
    sys.stdout.write(fitted(text, sys.stdout))


def _save(path: Path, found: Rows, form: str) -> None:
    parts = (text.encode() for text in written(found, form))
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as device:  # or a pipe: replacing it by a file would destroy it
                device.writelines(parts)
            return
        write_atomically(Disk(), path, parts)
    except OSError as error:
        raise CannotCreate(
            f"{path.absolute()} cannot be written: {error.strerror or error}. Choose another file with -o FILE."
        ) from None
    emit(f"written: {path.absolute()}")


def written(found: Rows, form: str) -> Iterator[str]:
    """The text of a format, in pieces."""
    if form == "jsonl":
        encode = msgspec.json.Encoder().encode
        yield from (encode(finite(row)).decode() + "\n" for row in found)
    elif form == "csv":
        yield from _csv(found)
    else:
        heads, rows = table_of(found)
        yield (
            plain_table(
                [list(map(one_line, heads)), *rows], {heads.index(head) for head in _numeric(heads, rows)}
            )
            + "\n"
        )


def _csv(found: Rows) -> Iterator[str]:
    columns = found.names()
    buffer: TextIO = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in found:
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
        return msgspec.json.encode(finite(value)).decode()
    return value


def table_of(found: Rows) -> tuple[list[str], list[list[str]]]:
    """Heads and cells for people: numbers rounded, long texts cut; the code version only if there are several."""
    heads = found.names()
    if not found.chosen and "code" in heads and len(_codes(found)) < 2:
        heads = [name for name in heads if name != "code"]
    return heads, [[_cell(row.get(name)) for name in heads] for row in found]


def _codes(found: Rows) -> set[Any]:
    return {row["code"] for row in found if row["seconds"] is not None}


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
