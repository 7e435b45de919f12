"""HTML from text that nobody vouches for: ids, parameters, errors and output of jobs. Pure.

Every text is escaped unless it is `Markup` already, which only this module makes.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

# What reorders or hides the text around it.
_REORDERS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_VOID: Final = frozenset(("meta", "link", "br", "input", "rect", "line", "path", "col"))
_ODD: Final = re.compile(r"[^\n\t -~\u00a1-\u05ff]")


class Markup(str):
    """HTML that may stand in a page as it is."""

    __slots__ = ()


def clean(text: str) -> str:
    """The same text without what a page cannot show or what would reorder it: replaced, so that it can be seen."""
    return _ODD.sub(lambda match: _seen(match.group()), text)


@lru_cache(4096)
def _seen(character: str) -> str:
    hidden = character in _REORDERS or unicodedata.category(character) in ("Cc", "Cs")
    return "\ufffd" if hidden else character


def text_of(value: object) -> Markup:
    """Any value as text."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(clean(str(value))))


def joined(parts: Iterable[object]) -> Markup:
    return Markup("".join(text_of(part) for part in parts if part is not None))


def tag(element: str, *children: object, **attributes: object) -> Markup:
    """An element. Attributes: `class_` for `class`, `_` for `-`; None leaves one out, True is its name alone."""
    words = [element]
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words.append(f'{name}="{text_of(value)}"')
    head = f"<{' '.join(words)}>"
    return Markup(f"{head[:-1]}/>") if element in _VOID else Markup(f"{head}{joined(children)}</{element}>")


def data_block(name: str, document: Any) -> Markup:
    """A script element with JSON that is no script. `<` is escaped: nothing in it can end the element."""
    encoded = msgspec.json.encode(document).replace(b"<", b"\\u003c")
    return Markup(f'<script type="application/json" id="{name}">{encoded.decode()}</script>')
