"""Words with names in braces, and what becomes of them when the names have values: `--lr {lr}`.

`{{` and `}}` stand for braces. A value may be text that is not UTF-8, such as the name of a file: JSON cannot hold
it, so parameters have it as an object with one key (`NOT_UTF8`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from workers.process.surrogates import has_surrogates, received, sendable

NOT_UTF8 = "text that is not UTF-8"
LINE = "line"  # the parameter of a job that is a line of a list
NUMBER = "#"  # the parameter with the number of the job
OF_PATH = ("name", "stem", "parent")  # what a line has as well, as the path of a file

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class BadTemplate(ValueError):
    """A word has a brace that is neither doubled nor one of a pair around a name."""


class Template:
    """One word. `names`: the names in it, in their order."""

    def __init__(self, word: str) -> None:
        """Raises BadTemplate."""
        self.word = word
        self._pieces: list[tuple[bool, str]] = []  # whether it is a name, and the text
        at = 0
        for found in _PIECE.finditer(word):
            self._pieces.append((False, word[at : found.start()]))
            at = found.end()
            if found.group() in ("{{", "}}"):
                self._pieces.append((False, found.group()[0]))
            elif len(found.group()) == 1:
                raise BadTemplate(
                    f"a single {found.group()} in {word!r}: write {found.group() * 2} for a brace"
                )
            else:
                self._pieces.append((True, found.group(1)))
        self._pieces.append((False, word[at:]))
        self.names = [text for is_name, text in self._pieces if is_name]

    def filled(self, values: Mapping[str, str]) -> str:
        """The word with values in place of names. Raises KeyError for a name without one."""
        if not self.names:
            return "".join(text for _, text in self._pieces)
        return "".join(values[text] if is_name else text for is_name, text in self._pieces)


def names_in(templates: Iterable[Template]) -> list[str]:
    return list(dict.fromkeys(name for template in templates for name in template.names))


def as_bytes(text: str) -> bytes:
    """The bytes of a word, whatever the encoding of this process is: words are UTF-8, or else surrogates."""
    return text.encode("utf-8", "surrogateescape")


def as_param(text: str) -> str | dict[str, str]:
    """A value in a form that JSON can hold."""
    return {NOT_UTF8: sendable(text)} if has_surrogates(text) else text


def as_text(value: Any) -> str:
    """What `as_param` was given."""
    if isinstance(value, dict) and value.keys() == {NOT_UTF8}:
        return received(str(value[NOT_UTF8]))
    return value if isinstance(value, str) else str(value)


def texts_of(params: Mapping[str, Any], *, of_lines: bool) -> dict[str, str]:
    """The values that names in braces have. `of_lines`: the job is a line of a list, and has `OF_PATH` as well."""
    texts = {name: as_text(value) for name, value in params.items()}
    if of_lines and LINE in texts:
        parent, name = os.path.split(texts[LINE].rstrip("/"))
        texts["name"], texts["stem"], texts["parent"] = name, os.path.splitext(name)[0], parent or "."
    return texts
