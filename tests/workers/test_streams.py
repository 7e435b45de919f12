"""In a process of its own: what is tried here would spoil the test runner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BEGINNING = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import io, os, pickle, resource, signal
from workers.isolation.streams import buffer_of, remember_writing
"""


def run(source: str, tmp_path: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", BEGINNING + source],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        check=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout.decode()


@pytest.mark.parametrize("options", [(), ("-u",)], ids=["buffered", "unbuffered"])
def test_streams_remember_that_something_was_written(options: tuple[str, ...], tmp_path: Path) -> None:
    source = """
remember_writing()
out = buffer_of(sys.stdout)
assert not out.wrote
print("part", end=""); assert out.wrote
out.wrote = False
sys.stdout.buffer.write(b" of a line\\n"); assert out.wrote
out.wrote = False
print("\\udc80 \\u20ac"); assert out.wrote  # never an error for a character
assert sys.stdout is sys.__stdout__ and sys.stdout.name == "<stdout>" and sys.stdout.mode == "w"
assert not sys.stdout.isatty() and sys.stdout.fileno() == 1
out.wrote = False
sys.stdout.close(); assert out.wrote
"""
    text = run(source, tmp_path, *options)
    assert text.startswith("part of a line\n\\udc80 ")


def test_streams_that_somebody_has_replaced_are_left_to_him(tmp_path: Path) -> None:
    source = """
sys.stdout = mine = io.StringIO()
remember_writing()
assert sys.stdout is mine and buffer_of(sys.stderr).wrote is False
other = buffer_of(io.TextIOWrapper(io.BytesIO()))
other.wrote = False
assert other.wrote is True
"""
    run(source, tmp_path)
