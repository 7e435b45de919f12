"""The initial state of this process's interpreter, before our modules were imported.

Our modules load a good part of the standard library. If the script shadows such a module (`random.py` beside
it), its `import random` must find its own file all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import Any

from workers.process.shadowed_modules import separate_imports

_OURS = ("workers", "supervisor")


class _InitialState:
    own_order: Sequence[str] = ()  # the path that our modules were found on
    path: list[str] | None = None  # sys.path without its first entry; None if `bootstrap` has not run
    loaded: frozenset[str] = frozenset()


_INITIAL = _InitialState()


def record_initial_state(path: list[str], loaded: frozenset[str]) -> None:
    """Remember path and modules of the fresh interpreter. `sys.path` is in our order already."""
    _INITIAL.path, _INITIAL.loaded, _INITIAL.own_order = path, loaded, list(sys.path)


def interpreter_command(entry: str) -> list[str]:
    """A command line that calls `entry` in another interpreter like this one; the numbers of its descriptors have
    to follow. To be called while this process has the arguments that `bootstrap` was started with."""
    options = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv)]
    bootstrap, _, root, *_ = sys.argv
    return [*options, bootstrap, entry, root]


def initial_path() -> list[str] | None:
    """`sys.path` as this interpreter has made it, without the script's folder; None if it was
    not started by us."""
    return None if _INITIAL.path is None else list(_INITIAL.path)


def drop_shadowing_modules(path: Sequence[object]) -> None:
    """Remove modules from `sys.modules` that were imported for us and that `path`, the script's, shadows.

    Our modules keep their references to them.
    """
    if _INITIAL.path is None:
        return
    hidden = _shadowed(path)
    if hidden:
        found = [name for name in sys.modules if name.partition(".")[0] in hidden]
        ours = {name: sys.modules[name] for name in found}
        for name in found:
            if name not in _INITIAL.loaded:
                del sys.modules[name]
        separate_imports(hidden, ours, _INITIAL.own_order)
    # The script may write modules into its folders later: forget their cached listings.
    for entry in path:
        if isinstance(entry, str) and entry not in _INITIAL.path:
            sys.path_importer_cache.pop(entry, None)


def _shadowed(path: Sequence[object]) -> set[str]:
    """Top-level names of the library, or of modules loaded for us, that files in `path` shadow."""
    entries = [entry for entry in path if isinstance(entry, str)]
    library = os.path.dirname(os.__file__)
    before = entries[: entries.index(library)] if library in entries else entries
    loaded = {name.partition(".")[0] for name in sys.modules.keys() - _INITIAL.loaded}
    known = (sys.stdlib_module_names | loaded) - set(sys.builtin_module_names)
    stems = {stem for entry in before for stem in _module_names(entry)}
    return {name for name in stems & known if name not in _OURS and _is_shadowed(name, entries)}


def _module_names(folder: str) -> set[str]:
    try:
        return {name.partition(".")[0] for name in os.listdir(folder or ".")}
    except OSError:
        return set()


def _is_shadowed(name: str, path: list[str]) -> bool:
    """Whether `path` finds another file for this name than ours."""
    spec: Any = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None:
        spec = PathFinder.find_spec(name, _INITIAL.own_order)
    if spec is None or not spec.has_location:  # built in or frozen: cannot be shadowed
        return False
    found = PathFinder.find_spec(name, path)
    if found is None or found.loader is None or found.origin == spec.origin:
        return False
    try:
        return not os.path.samefile(found.origin or "", spec.origin)
    except OSError:
        return True
