"""The code of an experiment: the user's files that this process has imported, and one version for all of
them.

The version depends on content alone, not on times or paths of files: the same code always has the same
version. Data files are not code.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from supervisor.core.terms.code_spans import DIGITS
from workers.process.surrogates import received, sendable
from workers.script.user_modules import users_modules

VERSION_DIGITS = 8
MAINS = ("__main__", "__mp_main__")


def modules_now(but: str) -> dict[str, list[str]]:
    """File and hash of each of the user's modules here, by name. The file `but` and modules without a
    readable file are left out."""
    found: dict[str, list[str]] = {}
    digests: dict[str, str] = {}
    own = os.path.basename(but)
    for name, file in users_modules(sys.modules):
        path = os.path.abspath(file)
        if own and os.path.basename(path) == own and os.path.realpath(path) == but:
            continue
        if path not in digests:
            digests[path] = _digest(path, sys.modules.get(name))
        if digests[path]:
            found[sendable("__main__" if name in MAINS else name)] = [sendable(file), digests[path]]
    return found


def known_now(
    here: dict[str, list[str]], before: dict[str, Any]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The modules that the code of an experiment has: those that the script had imported when it began,
    with file and hash; and what came later, or is imported by workers alone, with file, hash at first
    and hash now. `here`: those of this process, `before`: what the last run recorded.

    A module that is not imported here is read from its file; if the file is gone, it counts as unchanged.
    """
    if "modules" not in before:
        return here, {}
    first: dict[str, list[str]] = before["modules"]
    later: dict[str, list[str]] = before.get("late", {})
    known = {name: here.get(name) or _from_file(name, *entry) for name, entry in first.items()}
    late = {}
    for name, (file, text, last) in later.items():
        place, now = here.get(name) or _from_file(name, file, last)
        late[name] = [place, text, now]
    for name, (file, digest) in here.items():
        if name not in known and name not in late:
            late[name] = [file, digest, digest]
    return known, late


def _from_file(name: str, file: str, digest: str) -> list[str]:
    path = _place_of(received(name), received(file))
    return [sendable(path), _digest(path, None) or digest]


def _place_of(name: str, file: str) -> str:
    """Where the module would be imported from now, if that can be found without importing anything; else
    `file`."""
    if "." not in name:
        with contextlib.suppress(Exception):
            from importlib.util import find_spec

            spec = find_spec(name)
            if spec is not None and spec.origin and os.path.isfile(spec.origin):
                return spec.origin
    return file


def version_of(own: str, modules: dict[str, list[str]], late: dict[str, list[str]]) -> str:
    """A short name of the code. `own`: hash of the function's file, or of the function. For the others
    see `known_now`; of what came later only changes count: it may be that it was only not seen before.
    """
    parts = [("", own[:DIGITS])]
    parts += [(name, digest) for name, (_, digest) in modules.items()]
    parts += [(name, last) for name, (_, first, last) in late.items() if last != first]
    text = "".join(f"{name}\0{digest}\n" for name, digest in sorted(parts))
    return hashlib.sha256(text.encode()).hexdigest()[:VERSION_DIGITS]


def changed_since(code: dict[str, Any]) -> list[str]:
    """The modules in a run's record whose files have changed since. The file is the one that this process has
    imported, else the recorded one. Files that are gone are left out."""
    found: list[str] = []
    for name, (file, digest) in module_texts(code).items():
        imported = getattr(sys.modules.get(received(name)), "__file__", None) if name not in MAINS else None
        path = imported if isinstance(imported, str) else _place_of(received(name), received(file))
        if (_digest(path, None) or digest) != digest:
            found.append(shown(sendable(path)))
    return list(dict.fromkeys(found))


def module_texts(code: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """File and hash of each module in a record of `code_of`, by name."""
    late = {name: (file, last) for name, (file, _, last) in code.get("late", {}).items()}
    return late | {name: (file, digest) for name, (file, digest) in code.get("modules", {}).items()}


def shown(file: str) -> str:
    """A file in few words: its name, with its package's if that says more."""
    folder, name = os.path.split(received(file))
    return os.path.join(os.path.basename(folder), name) if name == "__init__.py" else name


def listed(names: Iterable[str], most: int = 3) -> str:
    """`a`, `a and b`, `a, b and c`, `a, b, c and 4 more`."""
    words = list(names)
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _digest(path: str, module: Any) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:DIGITS]
    except OSError:
        pass
    with contextlib.suppress(Exception):  # in an archive
        text: bytes = module.__loader__.get_data(path)
        return hashlib.sha256(text).hexdigest()[:DIGITS]
    return ""
