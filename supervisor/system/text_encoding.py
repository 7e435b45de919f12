"""Terminals, pipes and command lines that are not UTF-8: nothing that is printed fails there, and a
job is found by its name.

Text for people gets a question mark for a character that the encoding lacks, as wide as what it
stands for; such an id still works as a pattern. What programs read loses nothing: `\\u6f22`, which
JSON reads as the character. A path that is not UTF-8 is printed as its own bytes.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from typing import TextIO

_TEXT, _JSON = "longhaul-text", "longhaul-json"
_WIDE = ("utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")  # no byte stands alone


def replace_unencodable(stream: TextIO | None) -> None:
    """From here on no character makes a write to `stream` fail."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        stream.reconfigure(errors=_TEXT)  # type: ignore[union-attr]


def for_people(text: str, stream: TextIO) -> str:
    """The text as it can be written to `stream`."""
    return _fitted(text, stream, "replace")


def for_programs(text: str, stream: TextIO) -> str:
    """JSON, or a table, of which nothing gets lost."""
    return _fitted(text, stream, _JSON)


def as_typed(word: str) -> str:
    """A word of the command line as it was typed, in a locale that is not UTF-8: Python has then made
    surrogates of bytes that it did not understand."""
    try:
        return os.fsencode(word).decode() if word.isprintable() is False else word
    except UnicodeError:
        return word


def _fitted(text: str, stream: TextIO, errors: str) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors).decode(encoding)


def _question_marks(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start]
    if "\udc80" <= bad <= "\udcff" and error.encoding not in _WIDE:  # a byte of a path
        return bytes([ord(bad) - 0xDC00]), error.start + 1
    return "?", error.start + 1


def _json_escapes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)), error.end


codecs.register_error(_TEXT, _question_marks)
codecs.register_error(_JSON, _json_escapes)
