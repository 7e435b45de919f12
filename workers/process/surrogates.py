"""Text that holds bytes of file names as they are, and a form of it that can be sent.

A path, an argument or a variable that is not UTF-8 is text with lone surrogates in Python
("surrogateescape"), which neither JSON nor msgpack has a form for.
"""

from __future__ import annotations


def sendable(text: str) -> str:
    """Any text as one that has a form in JSON and msgpack; `received` gives back exactly it."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def received(text: str) -> str:
    """What `sendable` was given."""
    return text.encode("latin-1").decode("utf-8", "surrogatepass")


def is_odd(text: str) -> bool:
    """Whether a text has lone surrogates, and so no form in JSON."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
