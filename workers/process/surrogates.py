"""Text with lone surrogates, in a form that JSON and msgpack can encode.

Python decodes paths, arguments and variables that are not UTF-8 to such text ("surrogateescape").
"""

from __future__ import annotations


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
