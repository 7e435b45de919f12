"""Pickles functions by value, with what they refer to, and unpickles them in a worker.

Functions that were defined in `__main__` get the globals of the worker's `__main__`, and their classes can be
looked up there. So a job can pickle them, as the script or the notebook can.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

from workers.script.module_lookup import file_to_execute, is_found_by_import, look_up, named


def dumps(function: Any, *, referring: bool, files: dict[str, str]) -> bytes:
    """Raises ImportError without cloudpickle, and whatever pickling raises.

    referring: pickle classes of `__main__` by reference, for a worker that has imported it.
    files: receives the modules that a worker has to execute first, with their files.
    """
    import cloudpickle  # type: ignore[import-untyped, unused-ignore]

    by_value: list[types.ModuleType] = []

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
        def reducer_override(self, found: Any) -> Any:
            if isinstance(found, (type, types.FunctionType)):
                name = getattr(found, "__module__", None)
                if name == "__main__":
                    class_wanted = isinstance(found, type) and referring
                    if class_wanted and look_up(sys.modules[name], found.__qualname__) is found:
                        place = (name, found.__qualname__)
                        return named, place, _functions_of(found), None, None, _ignore_state
                elif isinstance(name, str) and name in sys.modules:
                    self._register_module(name, sys.modules[name])
                    if name in files and look_up(sys.modules[name], found.__qualname__) is found:
                        return named, (name, found.__qualname__)  # pickle would import the name
            return super().reducer_override(found)

        def _register_module(self, name: str, module: types.ModuleType) -> None:
            if name in files or module in by_value or is_found_by_import(name):
                return
            file = file_to_execute(module)
            if file is not None:
                files[name] = file
            elif name not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                by_value.append(module)

    buffer = io.BytesIO()
    try:
        Pickler(buffer).dump(function)
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)
    return buffer.getvalue()


def _functions_of(found: type) -> list[Any]:
    """The functions and bases of a class pickled by reference. They are pickled by value, with the globals
    that they use."""
    values = [getattr(value, "__func__", value) for value in vars(found).values()]
    for value in values[:]:
        if isinstance(value, property):
            values += [value.fget, value.fset, value.fdel]
    functions = [value for value in values if isinstance(value, types.FunctionType)]
    return functions + [base for base in found.__mro__[1:] if base.__module__ == "__main__"]


def _ignore_state(found: type, functions: list[Any]) -> None:
    """The class has these functions already; only their globals were needed."""


def loads(pickled: bytes) -> Any:
    """Raises whatever unpickling raises: AttributeError if something is missing in `__main__`."""
    main = sys.modules["__main__"]
    before = vars(main).get("__builtins__")
    try:
        return _Unpickler(io.BytesIO(pickled)).load()
    finally:
        vars(main)["__builtins__"] = before  # cloudpickle puts a dict there


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module.partition(".")[0] == "cloudpickle":
            if name == "_make_function":
                return functools.partial(_function_of_main, found)
            if name in ("_make_skeleton_class", "_make_skeleton_enum"):
                return functools.partial(_class_of_main, found)
        return found


def _function_of_main(
    make: Callable[..., Any], code: types.CodeType, known: dict[str, Any], *others: Any
) -> Any:
    if known.get("__name__") != "__main__":
        return make(code, known, *others)
    main = vars(sys.modules["__main__"])
    for key, value in known.items():
        main.setdefault(key, value)
    same = main.get(code.co_qualname)
    if isinstance(same, types.FunctionType) and same.__code__ == code and not code.co_freevars:
        return same  # the script was imported here: use its function
    function = make(code, main, *others)
    if code.co_qualname.isidentifier():  # else it is a lambda, or was defined in another function
        main.setdefault(code.co_qualname, function)
    return function


def _class_of_main(make: Callable[..., Any], *arguments: Any) -> Any:
    made = make(*arguments)
    if made.__module__ == "__main__" and made.__qualname__ == made.__name__:
        vars(sys.modules["__main__"]).setdefault(made.__name__, made)
    return made
