"""Writing to a terminal or pipe that blocks, breaks or is not there."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import time
from collections.abc import Iterator
from typing import TextIO

import pytest

from supervisor.views.console import LIMIT, ConsoleWriter, print_lines
from tests.experiment_fixture import PATIENCE


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reader, writer = os.pipe()
    stream = open(writer, "w", encoding="utf-8")  # noqa: SIM115
    yield reader, stream
    with contextlib.suppress(OSError):  # the test may have closed it
        os.close(reader)
    stream.close()


def read_until(reader: int, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = os.read(reader, 1 << 16)
        assert piece, "closed too early"
        data += piece
    return data


def test_what_is_written_arrives_in_order(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    stream.write("before ")
    outlet = ConsoleWriter(stream)
    for number in range(100):
        outlet.write(f"{number} ")
    outlet.end(10.0)
    assert read_until(reader, b"99 ").decode() == "before " + "".join(f"{n} " for n in range(100))


def test_a_reader_that_does_not_read_blocks_nobody_and_is_told_what_it_missed(
    pipe: tuple[int, TextIO],
) -> None:
    reader, stream = pipe
    outlet = ConsoleWriter(stream)
    line = "x" * 999 + "\n"
    began = time.monotonic()
    for _ in range(3 * LIMIT // 1000):
        outlet.write(line)
    assert not outlet.drain(0.05)
    assert time.monotonic() - began < PATIENCE
    data = b""
    while not outlet.drain(0.0):
        if select.select([reader], [], [], 0.05)[0]:
            data += os.read(reader, 1 << 16)
    outlet.write("the end\n")
    data += read_until(reader, b"the end\n")
    taken = data.decode().count(line)
    missed = [int(number.replace(",", "")) for number in re.findall(r"\.\.\. ([\d,]+) lines", data.decode())]
    assert missed
    assert taken + sum(missed) == 3 * LIMIT // 1000
    outlet.end(10.0)


def test_a_reader_that_is_gone_silences_the_outlet(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    os.close(reader)
    outlet = ConsoleWriter(stream)
    outlet.write("nobody")
    assert outlet.drain(10.0)
    assert outlet.broken
    assert outlet.write("listens") == 7
    outlet.end(0.0)


def test_streams_without_a_descriptor_are_written_to_directly() -> None:
    stream = io.StringIO()
    outlet = ConsoleWriter(stream)
    outlet.write("hello")
    assert stream.getvalue() == "hello"
    assert not outlet.isatty()
    with pytest.raises(io.UnsupportedOperation):
        outlet.fileno()
    stream.close()
    outlet.write("after close")
    assert outlet.broken


def test_characters_that_the_stream_does_not_know_are_replaced() -> None:
    reader, writer = os.pipe()
    with open(writer, "w", encoding="ascii") as stream:
        outlet = ConsoleWriter(stream)
        outlet.write("7 × …\n")
        outlet.end(10.0)
    assert os.read(reader, 100) == b"7 ? ?\n"
    os.close(reader)


def test_saying_something_to_nobody_is_no_error() -> None:
    print_lines(None, "text")
    closed = io.StringIO()
    closed.close()
    print_lines(closed, "text")
    said = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_lines(said, "7 × \ud800")
    assert said.buffer.getvalue() == b"7 ? ?\n"
