"""Two modules of one name: the script's, and that of the library which we and it need.

Only where the script's folders hide something: what is imported by a file of the library, of an
installed package or of ours then finds the library's, and everybody else the script's.
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

_KEPT: dict[str, ModuleType] = {}  # by name, what is ours and the library's


def keep_apart(hidden: set[str], library: Mapping[str, ModuleType], path: Sequence[str]) -> None:
    """From now on. `hidden`: top-level names. `library`: those of them that are loaded, of the
    library. `path`: on which the others are found."""
    kept = _KEPT
    kept.update(library)
    usual: Any = builtins.__import__

    def chosen(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:  # noqa: A002
        if level or name.partition(".")[0] not in hidden or not _is_no_script(globals):
            return usual(name, globals, locals, fromlist, level)
        theirs, before = _taken_off(hidden), list(sys.path)
        sys.modules.update(kept)
        sys.path[:] = path
        try:
            return usual(name, globals, locals, fromlist, level)
        finally:
            sys.path[:] = before
            kept.update(_taken_off(hidden))
            sys.modules.update(theirs)

    builtins.__import__ = chosen


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """`os.wait4`, which looks for the module `resource` each time: for the library's here."""
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


def _taken_off(hidden: set[str]) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in hidden}


def is_of_the_script(module: ModuleType) -> bool:
    """Whether a module that is named like one of the library is not that one."""
    file = vars(module).get("__file__")
    return isinstance(file, str) and not _is_no_script({"__file__": file})


def _is_no_script(importer: Any) -> bool:
    file = (importer or {}).get("__file__") or ""
    return isinstance(file, str) and (file.startswith(_ROOTS) or "-packages/" in file)
