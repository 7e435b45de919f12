"""The result of a program: the file that it has written, or the last line of its standard output.

Standard output and standard error go to one log, in the order in which they were written. Still the last line of
standard output is known: it has a description of its own of the log, opened for appending, and the position of such
a description is the end of what was last written through it.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any

import msgspec

from workers.program.program_end import ProgramFailed
from workers.transport.frames import MAX_FRAME

MOST_OF_FILE = MAX_FRAME // 2  # bytes
MOST_OF_LINE = 4 << 20  # bytes; of a longer log, so much of its end is always kept
_FIRST_READ = 4096
_BLANK = b" \t\r\n"


def read_result_file(path: str) -> tuple[bool, Any]:
    """Whether there is one, and its value. Raises ProgramFailed (`unencodable`) for anything but JSON."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False, None
    except OSError as error:
        raise _bad(f"the file LONGHAUL_RESULT cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _bad("LONGHAUL_RESULT is not a file")
        if status.st_size > MOST_OF_FILE:
            raise _bad(f"the file LONGHAUL_RESULT has {status.st_size} bytes, more than {MOST_OF_FILE}")
        with open(descriptor, "rb", closefd=False) as file:
            text = file.read()
    finally:
        os.close(descriptor)
    if not text.strip(_BLANK):
        raise _bad("the file LONGHAUL_RESULT is empty")
    try:
        return True, value_of(text)
    except ValueError as error:
        raise _bad(f"the file LONGHAUL_RESULT is not JSON: {error}", text) from None


def _bad(message: str, text: bytes = b"") -> ProgramFailed:
    return ProgramFailed("unencodable", "", message, output=text[:2000].decode(errors="replace"))


def value_of(text: bytes) -> Any:
    """The value of a JSON text, which may have NaN and infinities, as many programs write them. ValueError."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(str(error)) from None


def object_of(line: bytes) -> dict[str, Any] | None:
    """The JSON object that a line is; None for any other line. A progress bar may stand before it, which has ended
    with no newline: on the same line of the log, from a carriage return on."""
    _, bar, shown = line.rpartition(b"\r")
    if bar and b"{" in shown:
        line = shown[shown.index(b"{") :]
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return None
    try:
        value = value_of(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def last_line(descriptor: int, end: int) -> bytes:
    """The last line before position `end` that is not blank, without blanks around it; b"" if it is longer than
    `MOST_OF_LINE`. Only that line is read."""
    size = _FIRST_READ
    while True:
        start = max(0, end - size)
        text = os.pread(descriptor, end - start, start).rstrip(_BLANK)
        newline = text.rfind(b"\n")
        if newline >= 0 or start == 0:
            return text[newline + 1 :].strip(_BLANK)
        if size >= MOST_OF_LINE or (text and not text.endswith(b"}")):  # no object in any case
            return b""
        size *= 8


class Tail:
    """The end of a stream that is not kept anywhere."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, text: bytes) -> None:
        self._kept += text
        if len(self._kept) > 2 * MOST_OF_LINE:
            del self._kept[:-MOST_OF_LINE]

    def last_line(self) -> bytes:
        return bytes(self._kept).rstrip(_BLANK).rpartition(b"\n")[2].strip(_BLANK)
