"""Modules that Ray imports and its clients hardly ever use: loaded when something of them is used first.

A third of what `import ray` costs is for these, and no job runs before it is done. (`importlib.util.LazyLoader` loads
a module when it is imported for the second time, as Ray does.) Where something is amiss with one of them, the usual
import says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

RARELY_USED = frozenset({"jsonschema", "requests"})  # each with what it imports in turn


def import_later(names: Iterable[str] = RARELY_USED) -> None:
    """Of modules that are not imported yet."""
    sys.meta_path.insert(0, _LaterFinder(frozenset(names)))


class _LaterFinder(MetaPathFinder):
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LaterLoader(spec.loader)
        return spec


class _LaterLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        def load(name: str) -> Any:
            """Of the module, when it lacks something: what it should have by now."""
            if name.startswith("__"):  # looked for by the import system
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            del vars(module)["__getattr__"]
            self._loader.exec_module(module)
            return getattr(module, name)

        vars(module)["__getattr__"] = load
