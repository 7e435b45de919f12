"""Output to terminals and pipes that are not UTF-8, and words of such command lines.

In text for people, a character that the encoding lacks becomes a question mark; an id printed so still works as a
pattern. In output for programs it becomes an escape of JSON (`\\u6f22`), so nothing is lost. A path that is not
UTF-8 is printed as its own bytes.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from typing import TextIO

_TEXT, _JSON = "longhaul-text", "longhaul-json"
_WIDE = (
    "utf-16",
    "utf-32",
    "utf-16-le",
    "utf-16-be",
    "utf-32-le",
    "utf-32-be",
)  # single bytes cannot be written


def replace_unencodable(stream: TextIO | None) -> None:
    """From now on no character makes a write to `stream` fail."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        stream.reconfigure(errors=_TEXT)  # type: ignore[union-attr]


def for_people(text: str, stream: TextIO) -> str:
    """The text with question marks for characters that `stream` cannot encode."""
    return _fitted(text, stream, "replace")


def for_programs(text: str, stream: TextIO) -> str:
    """JSON, or a table, with escapes for characters that `stream` cannot encode."""
    return _fitted(text, stream, _JSON)


def as_typed(word: str) -> str:
    """A word of the command line as it was typed, in a locale that is not UTF-8: Python decodes its bytes to
    surrogates."""
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
