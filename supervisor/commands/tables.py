"""Output of commands: tables, plain or for a terminal, and JSON.

rich is imported only where there is a terminal to draw on. A closed pipe raises BrokenPipeError, on which
`longhaul` exits.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from supervisor.core.terms.wording import harmless, harmless_json, one_line
from supervisor.system.text_encoding import for_people, for_programs


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json` for what a program reads."""
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def emit(text: str) -> None:
    """Print text without control characters; those that the encoding lacks become question marks."""
    if sys.stdout is None:
        return
    sys.stdout.write(for_people(harmless(text), sys.stdout) + "\n")


def emit_json(document: Any) -> None:
    """Print one JSON document; infinities and NaN become null."""
    try:
        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    except UnicodeEncodeError:  # a path that is not UTF-8: escapes, from which Python has it back
        text = json.dumps(msgspec.to_builtins(document), indent=2)
    if sys.stdout is not None:
        sys.stdout.write(for_programs(harmless_json(text), sys.stdout) + "\n")


def on_terminal() -> bool:
    """Whether stdout is a terminal with cursor control."""
    stream = sys.stdout
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def show_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """A table with a line of heads; the columns named in `right` hold numbers."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    numbers = {heads.index(head) for head in right if head in heads}
    heads = [one_line(head) for head in heads]
    if on_terminal():
        _draw(heads, cells, numbers)
    else:
        emit(plain_table([heads, *cells], numbers))


def plain_table(lines: Sequence[Sequence[str]], numbers: set[int]) -> str:
    """Aligned columns, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _draw(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
