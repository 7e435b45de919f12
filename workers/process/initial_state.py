"""How the interpreter of this process was before anything of ours was imported into it.

Ours come from their own files (`bootstrap`), and with them a good part of the standard library is
loaded. Where the script has a module of such a name in front of the standard library
(`random.py` beside it), it is the script's module that its `import random` has to find.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import Any

from workers.process.shadowed_modules import keep_apart

_OURS = ("workers", "supervisor")


class _Beginning:
    own_order: Sequence[str] = ()  # the path on which ours were found
    path: list[str] | None = None  # sys.path without its first entry; None if we did not start it
    loaded: frozenset[str] = frozenset()


_BEGINNING = _Beginning()


def note(path: list[str], loaded: frozenset[str]) -> None:
    """Remember what the interpreter had by itself. `sys.path` is in our order by now."""
    _BEGINNING.path, _BEGINNING.loaded, _BEGINNING.own_order = path, loaded, list(sys.path)


def own_path() -> list[str] | None:
    """`sys.path` as this interpreter has made it, without the script's folder; None if it was
    not started by us."""
    return None if _BEGINNING.path is None else list(_BEGINNING.path)


def uncover(path: Sequence[object]) -> None:
    """Forget modules that were imported for us where `path`, the script's, has others of that name.

    Ours keep theirs: a module that is imported stays what it is to whoever has it.
    """
    if _BEGINNING.path is None:
        return
    hidden = _hidden(path)
    if hidden:
        found = [name for name in sys.modules if name.partition(".")[0] in hidden]
        ours = {name: sys.modules[name] for name in found}
        for name in found:
            if name not in _BEGINNING.loaded:
                del sys.modules[name]
        keep_apart(hidden, ours, _BEGINNING.own_order)
    # What was looked up in the script's folders is not to be believed later: it may write there.
    for entry in path:
        if isinstance(entry, str) and entry not in _BEGINNING.path:
            sys.path_importer_cache.pop(entry, None)


def _hidden(path: Sequence[object]) -> set[str]:
    """Top-level names of the library, or of what we have loaded, that stand in `path` before those."""
    entries = [entry for entry in path if isinstance(entry, str)]
    library = os.path.dirname(os.__file__)
    before = entries[: entries.index(library)] if library in entries else entries
    loaded = {name.partition(".")[0] for name in sys.modules.keys() - _BEGINNING.loaded}
    known = (sys.stdlib_module_names | loaded) - set(sys.builtin_module_names)
    stems = {stem for entry in before for stem in _stems(entry)}
    return {name for name in stems & known if name not in _OURS and _is_hidden(name, entries)}


def _stems(folder: str) -> set[str]:
    try:
        return {name.partition(".")[0] for name in os.listdir(folder or ".")}
    except OSError:
        return set()


def _is_hidden(name: str, path: list[str]) -> bool:
    """Whether another file of this name stands in `path` before the one that is ours."""
    spec: Any = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None:
        spec = PathFinder.find_spec(name, _BEGINNING.own_order)
    if spec is None or not spec.has_location:  # built in or frozen: nothing stands before these
        return False
    found = PathFinder.find_spec(name, path)
    if found is None or found.loader is None or found.origin == spec.origin:
        return False
    try:
        return not os.path.samefile(found.origin or "", spec.origin)
    except OSError:
        return True
