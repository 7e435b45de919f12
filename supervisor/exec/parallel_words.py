"""A command line in the way of GNU parallel, `echo {} ::: a b`, and what it is here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import groupby

VALUES, FILE = ":::", "::::"
_OF_LINE = {"{}": "{line}", "{1}": "{line}", "{/}": "{name}", "{//}": "{parent}", "{/.}": "{stem}"}
_OF_LINE["{.}"] = "{parent}/{stem}"
_PLACE = re.compile(r"\{(?:/|//|/\.|\.|\d*)\}")
_NAMES = ("x", "y", "z")
_MORE_THAN_VALUES = re.compile(r",|\.\.")  # what --param would take apart


def command_line_for(words: Sequence[str]) -> str | None:
    """The command line of `longhaul exec` for these words, which have no `--`; None if what is meant is not clear."""
    if not words or words[0].startswith(("-", VALUES)):
        return None  # where the command begins is not known
    parts = [list(group) for _, group in groupby(words, _Separators())]
    command, sources = parts[0], [(part[0], part[1:]) for part in parts[1:]]
    if not sources:
        return _exec([], command)
    if not all(values for _, values in sources):
        return None
    if len(sources) == 1:
        kind, values = sources[0]
        if kind == FILE and len(values) == 1:
            return _exec(["--jobs", values[0]], _filled(command, _OF_LINE, ["{line}"]))
        places = set(_PLACE.findall(" ".join(command)))
        if kind == VALUES and (any(map(_MORE_THAN_VALUES.search, values)) or not places <= {"{}", "{1}"}):
            line = _exec(["--jobs", "-"], _filled(command, _OF_LINE, ["{line}"]))
            return f"printf '%s\\n' {shlex.join(values)} | {line}"
    if len(sources) > len(_NAMES) or any(
        kind != VALUES or any(map(_MORE_THAN_VALUES.search, values)) for kind, values in sources
    ):
        return None
    names = [f"{{{name}}}" for name in _NAMES[: len(sources)]]
    mapping = {f"{{{number}}}": name for number, name in enumerate(names, 1)} | {"{}": " ".join(names)}
    params = []
    for name, (_, values) in zip(_NAMES, sources, strict=False):
        params += ["--param", f"{name}={','.join(values)}"]
    filled = _filled(command, mapping, names)
    return None if filled is None else _exec(params, filled)


class _Separators:
    """The key by which a separator and what follows it are one group."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, word: str) -> int:
        self._number += word.startswith(VALUES) and not word.strip(":+")
        return self._number


def _filled(command: Sequence[str], mapping: dict[str, str], names: Sequence[str]) -> list[str] | None:
    """The words with our placeholders, the names behind them if there is no placeholder; None for an unknown one."""
    places = set(_PLACE.findall(" ".join(command)))
    if not places:
        return [*command, *names]
    if not places <= mapping.keys():
        return None
    words: list[str] = []
    for word in command:
        words += names if word == "{}" else [_PLACE.sub(lambda found: mapping[found[0]], word)]
    return words


def _exec(options: Sequence[str], command: Sequence[str] | None) -> str | None:
    if command is None:
        return None
    words = (word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in [*options, "--", *command])
    return f"longhaul exec {' '.join(words)}"


_PLAIN = re.compile(r"[\w@%+=:,./{}-]+")  # a shell leaves {x} as it is
