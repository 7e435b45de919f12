"""Values of `--param`, CSV, JSON lines and plain lines: all text, as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.exec.job_sources import JobList, Params


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("a=0.1,0.01", ["0.1", "0.01"]),
        ("a=1..5", ["1", "2", "3", "4", "5"]),
        ("a=1..10..3", ["1", "4", "7", "10"]),
        ("a=5..1", ["5", "4", "3", "2", "1"]),
        ("a=5..1..2", ["5", "3", "1"]),
        ("a=5..1..-2", ["5", "3", "1"]),
        ("a=-2..1", ["-2", "-1", "0", "1"]),
        ("a=08..11", ["08", "09", "10", "11"]),
        ("a=3..3", ["3"]),
        ("a=1..3,7", ["1..3", "7"]),  # a range is the whole value
        ("a=../data,x..y", ["../data", "x..y"]),
        ("a=1e-3", ["1e-3"]),
        ("a=007", ["007"]),
        ("a=b=c", ["b=c"]),
        ("a= x ", [" x "]),
        ("my a=1", ["1"]),
    ],
)
def test_values_of_a_parameter(word: str, values: list[str]) -> None:
    (name,) = Params([word]).values
    assert list(Params([word]).values[name]) == values


def test_all_combinations_the_last_name_first() -> None:
    found = Params(["a=1,2", "b=1..3"]).combinations()
    assert [row["a"] + row["b"] for row in found] == ["11", "12", "13", "21", "22", "23"]
    assert list(Params([]).combinations()) == [{}]
    first = next(Params(["a=1..9999", "b=1..999"]).combinations())
    assert first == {"a": "1", "b": "1"}


def rows(tmp_path: Path, name: str, content: bytes) -> list[tuple[int, dict[str, str]]]:
    path = tmp_path / name
    path.write_bytes(content)
    return [(row.number, row.values) for row in JobList.of_file(str(path)).rows()]


def test_a_table_as_spreadsheets_write_it(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbfa, b\r\n1,"x, ""y"""\r\n\r\n"two\r\nlines",\xff\r\n'
    assert rows(tmp_path, "t.csv", text) == [
        (2, {"a": "1", "b": 'x, "y"'}),
        (4, {"a": "two\r\nlines", "b": "\udcff"}),
    ]
    assert rows(tmp_path, "t.TSV", b"a\tb\n1,5\t 2\n") == [(2, {"a": "1,5", "b": " 2"})]
    assert rows(tmp_path, "one.csv", b"a\n1\n\n2") == [(2, {"a": "1"}), (4, {"a": "2"})]


def test_json_lines_keep_numbers_as_they_are_written(tmp_path: Path) -> None:
    text = '{"a": 1e-3, "b": "\u00fc\\n", "c": true, "d": null, "e": [1.0, {"f": 2}]}\n\n{"a": 12345678901234567890}\n'
    assert rows(tmp_path, "t.jsonl", text.encode()) == [
        (1, {"a": "1e-3", "b": "\u00fc\n", "c": "true", "e": '[1.0, {"f": 2}]'}),
        (3, {"a": "12345678901234567890"}),
    ]


def test_plain_lines_and_names_that_end_with_zero(tmp_path: Path) -> None:
    assert rows(tmp_path, "list", b"a b\r\n\n x\nlast") == [
        (1, {"line": "a b"}),
        (3, {"line": " x"}),
        (4, {"line": "last"}),
    ]
    assert rows(tmp_path, "list0", b"a\nb\0c\r\0") == [(1, {"line": "a\nb"}), (2, {"line": "c\r"})]
    assert rows(tmp_path, "vt.txt", "a\u2028b\x0bc\n".encode()) == [(1, {"line": "a\u2028b\x0bc"})]
