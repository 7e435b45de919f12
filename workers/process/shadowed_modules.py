"""Two modules of one name: the script's own, and the library's, which other modules need.

Used only if files of the script shadow modules of the library. Then an import in a file of the library, of an
installed package or of ours finds the library's module; any other import finds the script's.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_FOLDERS = (os.path.dirname(os.__file__), _OURS, os.path.join(os.path.dirname(_OURS), "supervisor"))
_ROOTS = tuple(folder + os.sep for folder in _FOLDERS)

_KEPT: dict[str, ModuleType] = {}  # the library's modules of these names


def separate_imports(hidden: set[str], library: Mapping[str, ModuleType], path: Sequence[str]) -> None:
    """Replace `__import__` by one that chooses by the importing file.

    hidden: top-level names that the script shadows. library: the library's modules of these names that are
    loaded. path: where the others are found.
    """
    kept = _KEPT
    kept.update(library)
    original: Any = builtins.__import__

    def choose(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:  # noqa: A002
        if level or name.partition(".")[0] not in hidden or not _is_no_script(globals):
            return original(name, globals, locals, fromlist, level)
        theirs, before = _remove(hidden), list(sys.path)
        sys.modules.update(kept)
        sys.path[:] = path
        try:
            return original(name, globals, locals, fromlist, level)
        finally:
            sys.path[:] = before
            kept.update(_remove(hidden))
            sys.modules.update(theirs)

    builtins.__import__ = choose


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """`os.wait4` with the library's module `resource`, which it imports at each call."""
    own = _KEPT.get("resource")
    if own is None:
        return os.wait4(pid, options)
    theirs = sys.modules.get("resource")
    sys.modules["resource"] = own
    try:
        return os.wait4(pid, options)
    finally:
        del sys.modules["resource"]
        if theirs is not None:
            sys.modules["resource"] = theirs


def _remove(hidden: set[str]) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in hidden}


def is_of_the_script(module: ModuleType) -> bool:
    """Whether a module with a name of the library is the script's own."""
    file = vars(module).get("__file__")
    return isinstance(file, str) and not _is_no_script({"__file__": file})


def _is_no_script(importer: Any) -> bool:
    file = (importer or {}).get("__file__") or ""
    return isinstance(file, str) and (file.startswith(_ROOTS) or "-packages/" in file)
