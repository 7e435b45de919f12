"""An extension of griffe: the docstrings of this project in the form that mkdocstrings knows.

Here a section is a title over dashes, each of its items is `name: what it is` with further lines indented, and a
paragraph that is no item ends it:

    Parameters
    ----------
    jobs: an iterable of `Job`,
        or a function that returns one.

    Raises UsageError for a job that cannot be run.

mkdocstrings reads that as the style of Google: `Parameters:` with its items indented. Settings become a list, which
a section of Google cannot hold beside paragraphs.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SETTINGS = "Settings"
_TITLE = re.compile(r"^(\w[\w ]*)\n-{4,}\n", re.MULTILINE)
_ITEM = re.compile(r"[\w.]+(, [\w.]+)*: ")
_SETTING = re.compile(r"^(\w+)=(.+?): ", re.MULTILINE)


class DocstringSections(griffe.Extension):  # type: ignore[misc]
    """Turn the sections of each docstring into those of Google's style."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            is_struct = obj.is_class and "__init__" not in obj.members
            obj.docstring.value = in_google_style(obj.docstring.value, is_struct=is_struct)


def in_google_style(text: str, *, is_struct: bool = False) -> str:
    """A docstring with its sections as Google writes them; the text before the first one stays.

    is_struct: of a class whose parameters are its attributes.
    """
    first, *rest = _TITLE.split(text)
    parts = [first.strip()]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        if title == SETTINGS:
            parts.append(_settings(body))
        else:
            name = "Attributes" if is_struct and title == "Parameters" else title
            items, after = _items(body.strip().splitlines())
            parts += [f"{name}:\n{items}", after]
    return "\n\n".join(part for part in parts if part) + "\n"


def _items(lines: list[str]) -> tuple[str, str]:
    """The items of a section, indented; and the paragraphs that come after them."""
    for number, line in enumerate(lines):
        if line and not line.startswith(" ") and not _ITEM.match(line):
            return _indented(lines[:number]), "\n".join(lines[number:])
    return _indented(lines), ""


def _indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" if line else "" for line in lines).rstrip()


def _settings(body: str) -> str:
    """Paragraphs stay; `workers=6: how many` becomes an item of a list."""
    return f"**{SETTINGS}.** " + _SETTING.sub(r"- `\1=\2`: ", body.strip())
