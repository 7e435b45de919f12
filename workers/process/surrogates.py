"""Text with lone surrogates, in a form that JSON and msgpack can encode.

Python decodes paths, arguments and variables that are not UTF-8 to such text ("surrogateescape").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def sendable(text: str) -> str:
    """Text that JSON and msgpack can encode; `received` restores the original."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def received(text: str) -> str:
    """The original text, from what `sendable` returned."""
    return text.encode("latin-1").decode("utf-8", "surrogatepass")


def has_surrogates(text: str) -> bool:
    """Whether a text has lone surrogates, which JSON cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def encoded_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """How a run was started, for its record: its texts sendable, and marked so, if one of them has to be."""
    return {**_each_text(entry, sendable), "coded": True} if any(map(has_surrogates, _flat(entry))) else entry


def decoded_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """What `encoded_entry` was given, from a record: with file names as they are, whatever their bytes."""
    return _each_text(entry, received) if entry.get("coded") else entry


def _each_text(entry: dict[str, Any], form: Callable[[str], str]) -> dict[str, Any]:
    """The same with each text in another form."""
    return {
        key: form(value)
        if isinstance(value, str)
        else [form(item) for item in value]
        if isinstance(value, list)
        else value
        for key, value in entry.items()
    }


def _flat(entry: dict[str, Any]) -> list[str]:
    listed = (value if isinstance(value, list) else [value] for value in entry.values())
    return [text for texts in listed for text in texts if isinstance(text, str)]
