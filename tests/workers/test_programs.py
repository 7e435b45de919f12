"""Words of commands, results in logs, ends of programs: without any process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.job.job_exceptions import JobInterrupted
from workers.program.command_template import (
    BadTemplate,
    Template,
    as_bytes,
    as_param,
    as_text,
    names_in,
    texts_of,
)
from workers.program.program_end import ProgramFailed, failure_of_status
from workers.program.program_result import (
    MOST_OF_LINE,
    Tail,
    last_line,
    object_of,
    read_result_file,
    value_of,
)


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("{a}", "1"),
        ("{a}{b}{a}", "12{x}1"),
        ("{{a}}", "{a}"),
        ("{{{a}}}", "{1}"),
        ("a{{}}b", "a{}b"),
        ("", ""),
        ("{{{{{b}", "{{2{x}"),
        ("{my name}", "3"),
    ],
)
def test_names_are_replaced_once_and_doubled_braces_are_braces(word: str, filled: str) -> None:
    assert Template(word).filled({"a": "1", "b": "2{x}", "my name": "3"}) == filled


@pytest.mark.parametrize("word", ["{", "}", "{a", "a}", "{{a}", "{a}}", "{{{a}}", "{a{b}}"])
def test_a_single_brace_is_refused(word: str) -> None:
    with pytest.raises(BadTemplate, match=r"a single [{}] in "):
        Template(word)


@given(st.text())
def test_any_text_can_be_written_with_doubled_braces(text: str) -> None:
    doubled = Template(text.replace("{", "{{").replace("}", "}}"))
    assert doubled.filled({}) == text and doubled.names == []
    assert Template("{x}").filled({"x": text}) == text


@given(st.binary())
def test_any_bytes_survive_as_a_param(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    assert as_bytes(as_text(as_param(text))) == raw


@pytest.mark.parametrize(
    ("line", "name", "stem", "parent"),
    [
        ("a/b/c.tar.gz", "c.tar.gz", "c.tar", "a/b"),
        ("c", "c", "c", "."),
        ("dir/", "dir", "dir", "."),
        ("/c.txt", "c.txt", "c", "/"),
        (".bashrc", ".bashrc", ".bashrc", "."),
        ("a b/ c.d ", " c.d ", " c", "a b"),
    ],
)
def test_a_line_is_a_path_as_well(line: str, name: str, stem: str, parent: str) -> None:
    texts = texts_of({"line": line}, of_lines=True)
    assert texts == {"line": line, "name": name, "stem": stem, "parent": parent}
    assert texts_of({"line": line}, of_lines=False) == {"line": line}
    assert names_in([Template("{name}{line}"), Template("{line}")]) == ["name", "line"]


# --------------------------------------------------------------------------------- results


def written(path: Path, text: bytes) -> int:
    path.write_bytes(text)
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", b""),
        (b"\n\n", b""),
        (b"one", b"one"),
        (b"one\ntwo\n", b"two"),
        (b"one\n  two \r\n\n \n", b"two"),
        (b"x" * 10_000 + b"\n{" + b"y" * 20_000 + b"}\n", b"{" + b"y" * 20_000 + b"}"),
        (b"{" + b"y" * 9000 + b"}", b"{" + b"y" * 9000 + b"}"),
        (b"\n" * 10_000, b""),
        (b"first\n" + b"\n" * 10_000, b"first"),
        (b"{" + b"y" * MOST_OF_LINE * 9 + b"}", b""),
    ],
)
def test_the_last_line_is_found_without_reading_the_others(tmp_path: Path, text: bytes, line: bytes) -> None:
    descriptor = written(tmp_path / "log", text + b"written by somebody else")
    assert last_line(descriptor, len(text)) == line
    os.close(descriptor)
    end = Tail()
    for at in range(0, len(text), 7000):
        end.add(text[at : at + 7000])
    assert end.last_line() == line or len(text) > 2 * MOST_OF_LINE


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'{"a": NaN, "b": -Infinity}', {"a": "nan", "b": float("-inf")}),
        (b"[1]", None),
        (b"3", None),
        (b"{'a': 1}", None),
        (b'{"a": 1} done', None),
        (b'result: {"a": 1}', None),
        (b"{", None),
        (b"", None),
        (b'\r 10%|#         |\r100%|##########| 10/10{"a": {"b": 2}}', {"a": {"b": 2}}),
        (b'\r100%|###| {not "a": 1}', None),
        (b"{" * 100_000 + b"}", None),
    ],
)
def test_only_a_json_object_is_a_result(line: bytes, found: object) -> None:
    value = object_of(line)
    if value is not None and value.get("a") != value.get("a"):
        value["a"] = "nan"
    assert value == found


def test_a_result_file_may_hold_any_json(tmp_path: Path) -> None:
    path = tmp_path / "result"
    assert read_result_file(str(path)) == (False, None)
    for text, value in ((b"3\n", 3), (b"null", None), (b'\xef\xbb\xbf["x"]', ["x"]), (b'"\xc3\xa9"', "é")):
        path.write_bytes(text)
        assert read_result_file(str(path)) == (True, value)
    for text, said in ((b" \n", "is empty"), (b"{", "is not JSON"), (b"\xff", "is not JSON")):
        path.write_bytes(text)
        with pytest.raises(ProgramFailed, match=said):
            read_result_file(str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ProgramFailed, match="is not a file"):
        read_result_file(str(path))
    with pytest.raises(ValueError, match=r"."):
        value_of(b"nope")


# ------------------------------------------------------------------------------------ ends


def test_an_exit_code_is_final_unless_it_is_one_of_those_to_retry() -> None:
    failure = failure_of_status(3 << 8, "one\ntwo\n\n", None)
    assert isinstance(failure, ProgramFailed)
    assert (failure.outcome, failure.kind, failure.message, failure.wish, failure.exit_code) == (
        "raised", "exit code 3", "two", "", 3
    )  # fmt: skip
    for codes, wish in (([3], ""), ([75], "give_up"), ([], "give_up")):
        assert getattr(failure_of_status(3 << 8, "", codes), "wish", None) == wish
    assert str(failure_of_status(139 << 8, "", None)) == "exit code 139: as a shell says after SIGSEGV"
    assert str(failure_of_status(127 << 8, "sh: 1: x: not found", None)) == (
        "exit code 127: sh: 1: x: not found; a command was not found"
    )
    assert str(failure_of_status(255 << 8, "", None)) == "exit code 255"


@pytest.mark.parametrize(
    ("number", "outcome"),
    [(name, "crashed") for name in ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT")]
    + [(name, "raised") for name in ("SIGPIPE", "SIGUSR1", "SIGALRM", "SIGQUIT", "SIGXCPU")]
    + [(name, "interrupted") for name in ("SIGTERM", "SIGINT", "SIGHUP")],
)
def test_the_outcome_follows_from_the_signal(number: str, outcome: str) -> None:
    failure = failure_of_status(int(signal.Signals[number]), "", None)
    if outcome == "interrupted":
        assert isinstance(failure, JobInterrupted) and number in str(failure)
        return
    assert isinstance(failure, ProgramFailed)
    assert (failure.outcome, failure.kind, failure.signal) == (outcome, number, int(signal.Signals[number]))
