"""Command lines in the way of GNU parallel: what is said instead works, and does the same."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from supervisor.__main__ import main
from supervisor.exec.parallel_words import command_line_for


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("echo ::: a b", "longhaul exec --param x=a,b -- echo {x}"),
        ("echo {} end ::: a b", "longhaul exec --param x=a,b -- echo {x} end"),
        ("echo ::: a b ::: 1 2", "longhaul exec --param x=a,b --param y=1,2 -- echo {x} {y}"),
        ("echo {2}-{1} ::: a ::: 1", "longhaul exec --param x=a --param y=1 -- echo {y}-{x}"),
        ("echo 'a b' ::: c", "longhaul exec --param x=c -- echo 'a b' {x}"),
        ("gzip -k {} :::: files.txt", "longhaul exec --jobs files.txt -- gzip -k {line}"),
        ("gzip -k :::: files.txt", "longhaul exec --jobs files.txt -- gzip -k {line}"),
        ("echo {.} ::: a.txt", "printf '%s\\n' a.txt | longhaul exec --jobs - -- echo {parent}/{stem}"),
        ("echo ::: a,b c", "printf '%s\\n' a,b c | longhaul exec --jobs - -- echo {line}"),
        ("echo hello", "longhaul exec -- echo hello"),
        ("echo ::: a :::+ b", None),
        ("echo {3} ::: a ::: b", None),
        ("--workers 2 echo ::: a", None),
        ("::: a b", None),
        ("echo :::", None),
        ("", None),
    ],
)
def test_what_is_meant(typed: str, meant: str | None) -> None:
    assert command_line_for(shlex.split(typed)) == meant


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("echo ::: a b", ["echo a", "echo b"]),
        ("echo {2}-{1} ::: a b ::: 1 2", ["echo 1-a", "echo 2-a", "echo 1-b", "echo 2-b"]),
    ],
)
def test_the_command_line_that_is_said_works(
    typed: str,
    printed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["longhaul"])
    assert main(["exec", *shlex.split(typed)]) == 2
    error = capsys.readouterr().err
    said = error.rpartition("try: longhaul exec ")[2].strip()
    assert error.count("\n") == 1 and said, error
    with pytest.raises(SystemExit, match="0"):
        main(["exec", "--dry-run", *shlex.split(said)])
    assert capsys.readouterr().out.splitlines()[: len(printed)] == printed


def test_values_without_a_clear_command_are_told_of_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["longhaul"])
    assert main(["exec", "--workers", "2", "echo", ":::", "a"]) == 2
    assert "--param x=a,b -- COMMAND {x}" in capsys.readouterr().err
