"""Whether a worker can import a module of this process by name, and how else it gets the module.

`sys.modules` may hold modules that no import finds: a test module that pytest has imported from its file, a
plugin, a module that was inserted by hand.
"""

from __future__ import annotations

import importlib
import importlib.util
import operator
import os
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any


def look_up(module: Any, qualname: str) -> Any:
    """The attribute of this dotted name; None if there is none."""
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def named(module: str, qualname: str) -> Any:
    """The attribute of a module that is imported already. Raises AttributeError."""
    return operator.attrgetter(qualname)(sys.modules[module])


def is_found_by_import(name: str) -> bool:
    """Whether a fresh interpreter with our `sys.path` would import this very module."""
    module = sys.modules.get(name)
    spec = _find_spec(name)
    if module is None or spec is None:
        return False
    ours: str | None = getattr(getattr(module, "__spec__", None), "origin", None) or getattr(
        module, "__file__", None
    )
    if ours is None or spec.origin is None:
        return ours is spec.origin
    return ours == spec.origin or os.path.realpath(ours) == os.path.realpath(spec.origin)


def _find_spec(name: str) -> ModuleSpec | None:
    """The spec that the finders return, whatever `sys.modules` holds."""
    spec: ModuleSpec | None = None
    path: Any = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        prefix = ".".join(parts[:count])
        spec = _ask_finders(prefix, path)
        if spec is None:
            return None
        path = getattr(sys.modules.get(prefix), "__path__", spec.submodule_search_locations)
        if path is None and count < len(parts):
            return None
    return spec


def _ask_finders(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, path) if find is not None else None
        if spec is not None:
            return spec
    return None


def file_to_execute(module: types.ModuleType) -> str | None:
    """The source file that a module was made from, if there is one."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or not os.path.isfile(file):
        return None
    return os.path.abspath(file)


def import_module(name: str, file: str | None = None) -> types.ModuleType:
    """Import it by name, or by executing this file. Raises whatever that raises."""
    if file is None or name in sys.modules:
        return importlib.import_module(name)
    parent, _, child = name.rpartition(".")
    if parent:
        folder = os.path.dirname(file)
        if os.path.basename(file) == "__init__.py":
            folder = os.path.dirname(folder)
        _import_parent(parent, folder)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no module {name!r} in {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    if parent:
        setattr(sys.modules[parent], child, module)
    return sys.modules[name]


def _import_parent(name: str, folder: str) -> None:
    """Import a package; if no import finds it, create one from this folder."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it was found, but something that it imports was not
        package = os.path.join(folder, "__init__.py")
        if os.path.isfile(package):
            import_module(name, package)
            return
        parent = name.rpartition(".")[0]
        if parent:
            _import_parent(parent, os.path.dirname(folder))
        module = types.ModuleType(name)
        module.__path__ = [folder]
        sys.modules[name] = module
