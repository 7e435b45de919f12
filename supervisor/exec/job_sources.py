"""Where the values of jobs come from: `--param`, a CSV file, JSON lines, or plain lines. All values are text."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from supervisor.core.terms.wording import cut, one_line
from supervisor.options.script_options import OwnOptionError
from workers.program.command_template import LINE, NUMBER

STDIN = "-"
MOST_JOBS = 10_000_000
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\Z")
_NEARLY_RANGE = re.compile(r"[-+]?[\d.eE]+\.\.[-+]?[\d.eE]+(\.\.\S*)?\Z")
_TSV, _CSV, _JSON = (".tsv", ".tab"), (".csv", *(".tsv", ".tab")), (".jsonl", ".ndjson", ".jsonlines")
_LONGEST_CELL = 64 << 20  # characters


class SourceRow(NamedTuple):
    """The values of a job. number: of its line in the file, from 1 on."""

    number: int
    values: dict[str, str]


# ------------------------------------------------------------------------------- --param


class Params:
    """The values of all `--param`. Raises UsageError."""

    def __init__(self, words: Sequence[str]) -> None:
        self.values: dict[str, Sequence[str]] = {}
        for word in words:
            name, equals, text = word.partition("=")
            if not equals or not name:
                raise OwnOptionError(
                    f"--param {_said(word)}: expected NAME=VALUES, such as lr=0.1,0.01 or seed=1..5"
                )
            check_name(name, f"--param {_said(word)}")
            if name in self.values:
                raise OwnOptionError(
                    f"--param {name} is given twice: give all values at once: {name}=0.1,0.01"
                )
            self.values[name] = _values(text, f"--param {_said(word)}")
        if math.prod(map(len, self.values.values())) > MOST_JOBS:
            raise OwnOptionError(f"--param: these are more than {MOST_JOBS:,} jobs")

    def combinations(self) -> Iterator[dict[str, str]]:
        """All combinations; the last name changes first. One without values if there is no `--param`."""
        for values in itertools.product(*self.values.values()):
            yield dict(zip(self.values, values, strict=True))


def check_name(name: str, where: str) -> None:
    """Raises UsageError for a name that cannot stand in braces."""
    if set(name) & set("{}=") or name == NUMBER or name != name.strip() or not name:
        raise OwnOptionError(f"{where}: {name!r} cannot be the name of a value")


def _values(text: str, where: str) -> Sequence[str]:
    if found := _RANGE.match(text):
        return _range(found, where)
    if _NEARLY_RANGE.match(text):
        raise OwnOptionError(
            f"{where}: a range has whole numbers: 1..5, or 1..10..3 for every third; name others by comma"
        )
    values = text.split(",")
    if "" in values:
        what = "one of the values is empty" if text else "there is no value after the ="
        raise OwnOptionError(f"{where}: {what}")
    return values


def _range(found: re.Match[str], where: str) -> Sequence[str]:
    first, last, step = found.groups()
    size = int(step) if step is not None else 1
    if not size:
        raise OwnOptionError(f"{where}: a range cannot have steps of 0")
    down = int(last) < int(first)
    size = -abs(size) if down else abs(size)
    numbers = range(int(first), int(last) + (-1 if down else 1), size)
    if len(numbers) > MOST_JOBS:
        raise OwnOptionError(f"{where}: these are more than {MOST_JOBS:,} jobs")
    padded = any(len(end.lstrip("-")) > 1 and end.lstrip("-").startswith("0") for end in (first, last))
    width = max(len(first), len(last)) if padded else 0  # 01..10, as shells have it
    return [f"{number:0{width}d}" for number in numbers]


# -------------------------------------------------------------------------------- --jobs


class JobList:
    """The lines of `--jobs`. of_lines: they are plain lines, with the only value `{line}`."""

    def __init__(self, name: str, text: str, kind: str) -> None:
        """`name`: of the file, for people. `kind`: csv, tsv, jsonl, lines."""
        self.name = name
        self.of_lines = kind == "lines"
        self._text = text
        self._kind = kind

    @classmethod
    def of_file(cls, path: str) -> JobList:
        """Raises UsageError if it cannot be read."""
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except FileNotFoundError:
            raise OwnOptionError(
                f"--jobs {path}: there is no such file{_hint_at_what_is_meant(os.path.basename(path))}"
            ) from None
        except IsADirectoryError:
            raise OwnOptionError(
                f"--jobs {path} is a directory: list its files with ls, and give that: --jobs -"
            ) from None
        except OSError as error:
            raise OwnOptionError(f"--jobs {path} cannot be read: {error.strerror}") from None
        ending = os.path.splitext(path)[1].lower()
        kind = (
            "tsv" if ending in _TSV else "csv" if ending in _CSV else "jsonl" if ending in _JSON else "lines"
        )
        return cls(
            os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path, text_of(raw, path), kind
        )

    def rows(self) -> Iterator[SourceRow]:
        """Raises UsageError that names the line."""
        rows = {"lines": self._lines, "jsonl": self._objects}.get(self._kind, self._records)()
        nothing = True
        for row in rows:
            nothing = False
            yield row
        if nothing:
            raise OwnOptionError(f"{self.name} has no jobs: {_NOTHING_IN[self._kind]}")

    def _lines(self) -> Iterator[SourceRow]:
        # find -print0: a name may hold any other character.
        ends_with_zero = "\0" in self._text
        for number, line in enumerate(self._text.split("\0" if ends_with_zero else "\n"), 1):
            text = line if ends_with_zero else line.removesuffix("\r")
            if text:
                yield SourceRow(number, {LINE: text})

    def _objects(self) -> Iterator[SourceRow]:
        decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
        for number, line in enumerate(self._text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                found = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeError) as error:
                each = (
                    ", one a line: jq -c '.[]' makes lines of a list" if line.lstrip().startswith("[") else ""
                )
                raise self._wrong(number, f"expected a JSON object{each} ({error})") from None
            values = {name: _text_of_json(bytes(raw)) for name, raw in found.items()}
            for name in values:
                check_name(name, f"line {number} of {self.name}")
            yield SourceRow(number, {name: text for name, text in values.items() if text is not None})

    def _records(self) -> Iterator[SourceRow]:
        csv.field_size_limit(_LONGEST_CELL)
        reader = csv.reader(
            io.StringIO(self._text, newline=""), strict=True, delimiter="\t" if self._kind == "tsv" else ","
        )
        names: list[str] | None = None
        before = 0
        try:
            for cells in reader:
                number, before = before + 1, reader.line_num
                if not any(cell.strip() for cell in cells) and len(cells) < 2:
                    continue
                if names is None:
                    names = self._header([cell.strip() for cell in cells], number)
                    continue
                if len(cells) != len(names):
                    raise self._wrong(
                        number, f"{len(cells)} values for the {len(names)} names {', '.join(names)}"
                    )
                yield SourceRow(number, dict(zip(names, cells, strict=True)))
        except csv.Error as error:
            raise self._wrong(reader.line_num, str(error)) from None

    def _header(self, names: list[str], number: int) -> list[str]:
        for name in names:
            check_name(name, f"line {number} of {self.name}, which has the names of the values")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._wrong(number, f"the name {twice!r} stands there twice")
        return names

    def _wrong(self, number: int, what: str) -> OwnOptionError:
        return OwnOptionError(f"line {number} of {self.name}: {cut(one_line(what), 300)}")


_NOTHING_IN = {
    "lines": "it is empty",
    "jsonl": "it has no line with an object",
    "csv": "there is no line after that with the names",
    "tsv": "there is no line after that with the names",
}


def text_of(raw: bytes, name: str) -> str:
    """Text with lone surrogates for what is not UTF-8. Raises UsageError for UTF-16."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise OwnOptionError(f"--jobs {name} is in UTF-16; save it as UTF-8")
    return raw.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")


def _text_of_json(raw: bytes) -> str | None:
    """Text as it is, any other value as it is written; None for null: there is no value."""
    if raw == b"null":
        return None
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()


def read_stdin() -> bytes:
    """Raises UsageError if there is nothing to read."""
    if sys.stdin is None or sys.stdin.isatty():
        what = "closed" if sys.stdin is None else "the terminal"
        raise OwnOptionError(
            f"--jobs - reads from standard input, which is {what} here: ls | longhaul exec ..."
        )
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise OwnOptionError(f"--jobs -: standard input cannot be read: {error.strerror}") from None


def _hint_at_what_is_meant(word: str) -> str:
    if "*" in word:
        return f"; for a job for each file, it is ls {word} | longhaul exec --jobs - -- COMMAND {{line}}"
    return f"; for {word} at the same time, it is --workers {word}" if word.isdigit() else ""


def _said(word: str) -> str:
    return cut(one_line(word), 80)
