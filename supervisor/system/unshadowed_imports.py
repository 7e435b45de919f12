"""Imports of our modules when files of the script shadow modules that we need.

A module beside the script may have the name of one of the standard library, or of a dependency. The script's
`import random` finds its own, as it does without us. Our modules, and those of the library that we use, need the
other one. So if there is such a name, all our modules are imported at once with the standard library in front;
then the names are the script's again.

Nothing but `os` and `sys` may be imported before that.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

_DEPENDENCIES = ("cloudpickle", "loguru", "msgspec", "psutil", "rich")


def import_own_modules() -> None:
    """Import all our modules now, if the script's folders shadow something that they need."""
    library = os.path.dirname(os.__file__)
    entries = [entry for entry in sys.path if isinstance(entry, str)]
    before = entries[: entries.index(library)] if library in entries else []
    first = [entry for entry in entries if entry.startswith(library) and "-packages" not in entry]
    rest = [entry for entry in entries if entry not in first and entry not in before]
    # Folders of PYTHONPATH are in front of the library as well, and may contain our dependencies.
    own_path = [*first, *rest, *before[1:], *before[:1]]
    found = {name for entry in before for name in _modules_in(entry)}
    hidden = {name for name in found & sys.stdlib_module_names if name not in sys.builtin_module_names}
    for name in found.intersection(_DEPENDENCIES):
        if _first_with(name, entries) != _first_with(name, own_path):
            hidden.add(name)
    if hidden:
        _import_all(hidden, own_path)


def _first_with(name: str, folders: list[str]) -> str | None:
    return next((folder for folder in folders if name in _modules_in(folder)), None)


def _modules_in(folder: str) -> list[str]:
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return []
    stems = [name.partition(".")[0] for name in names if name.endswith((".py", ".so"))]
    plain = [name for name in names if "." not in name]
    return stems + [name for name in plain if os.path.exists(os.path.join(folder, name, "__init__.py"))]


def _import_all(hidden: set[str], own_path: list[str]) -> None:
    path = list(sys.path)
    theirs = {name: sys.modules.pop(name) for name in list(sys.modules) if _belongs(name, hidden)}
    library = {name: module for name, module in theirs.items() if _is_of_the_library(module)}
    sys.modules.update(library)  # loaded before the script's folder was in the path
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path[:] = own_path
    try:
        for name in _ours(root):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                if not _is_of_an_extra(error.name or ""):
                    raise
        from workers.process.shadowed_modules import separate_imports
    finally:
        sys.path[:] = path
        loaded = {name: sys.modules.pop(name) for name in list(sys.modules) if _belongs(name, hidden)}
        sys.modules.update(theirs)
    separate_imports(hidden, loaded, own_path)
    if "psutil" in loaded:
        _bind_psutil(loaded)


def _is_of_an_extra(name: str) -> bool:
    """Whether a module that is missing comes with an extra (web, ray), which need not be installed."""
    top = name.partition(".")[0]
    return top not in (*_DEPENDENCIES, "supervisor", "workers") and top not in sys.stdlib_module_names


def _bind_psutil(loaded: dict[str, ModuleType]) -> None:
    """psutil looks itself up in `sys.modules`, which has the script's module of that name now."""
    for name in ("psutil._common", "psutil._pslinux"):
        if hasattr(loaded.get(name), "get_procfs_path"):
            vars(loaded[name])["get_procfs_path"] = lambda: vars(loaded["psutil"])["PROCFS_PATH"]


def _belongs(name: str, hidden: set[str]) -> bool:
    return name.partition(".")[0] in hidden


def _is_of_the_library(module: object) -> bool:
    file = getattr(module, "__dict__", {}).get("__file__") or ""
    return not file or file.startswith(os.path.dirname(os.__file__) + os.sep)


def _ours(root: str) -> list[str]:
    """All our modules but the commands of `longhaul`, which a script does not need."""
    found = []
    for package in ("workers", "supervisor"):
        for folder, _, files in os.walk(os.path.join(root, package)):
            parts = os.path.relpath(folder, root).split(os.sep)
            if "commands" not in parts:
                names = [file[:-3] for file in files if file.endswith(".py") and not file.startswith("__")]
                found += [".".join([*parts, name]) for name in sorted(names)]
    return found
