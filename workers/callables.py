"""Send a function to another process: by name if it can be found there, else by value.

`describe` runs in the supervisor process, `load` in a worker. A function of the user's
script is named in the module `__mp_main__`, as multiprocessing does it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from workers.main_module import MAIN, main_source
from workers.messages import FunctionSpec

_MAIN_NAMES = ("__main__", MAIN)
_OUR_PACKAGES = ("supervisor", "workers")
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class CannotSend(ValueError):
    """A function cannot be sent to a worker."""


class CannotLoad(ImportError):
    """A worker does not find a function where the supervisor has said it is."""


def describe(function: Callable[..., Any]) -> FunctionSpec:
    """Where a worker finds this callable. Raises CannotSend."""
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    if isinstance(module, str) and isinstance(qualname, str):
        _refuse_hidden(function, module)
    return by_name(function) or FunctionSpec(str(module), str(qualname), _by_value(function))


def by_name(function: Callable[..., Any]) -> FunctionSpec | None:
    """Where another process can import this callable from; None if it cannot."""
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        return None
    importable = module not in _MAIN_NAMES or any(main_source())
    if not importable or _look_up(sys.modules.get(module), qualname) is not function:
        return None
    return FunctionSpec(MAIN if module in _MAIN_NAMES else module, qualname)


def load(spec: FunctionSpec) -> Callable[..., Any]:
    """The callable that `spec` names. Raises CannotLoad, or what its module raises."""
    function: Any
    if spec.pickled is not None:
        import cloudpickle

        function = cloudpickle.loads(spec.pickled)
        return function  # type: ignore[no-any-return]
    module = importlib.import_module(spec.module)
    function = _look_up(module, spec.qualname)
    if function is None:
        file = getattr(module, "__file__", None) or spec.module
        raise CannotLoad(
            f"{file} has no {spec.qualname!r} when it is imported in a worker; define it at the top level "
            f'of the module, outside of `if __name__ == "__main__":`'
        )
    return function  # type: ignore[no-any-return]


def _look_up(module: Any, qualname: str) -> Any:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _by_value(function: Callable[..., Any]) -> bytes:
    try:
        import cloudpickle  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise CannotSend(
            f"{function!r} cannot be imported by a worker: define it at the top level of a file, "
            f"or install cloudpickle (pip install cloudpickle)"
        ) from None
    try:
        pickled: bytes = cloudpickle.dumps(function)
    except Exception as error:
        raise CannotSend(
            f"{function!r} cannot be sent to a worker ({type(error).__name__}: {error}): define it at the "
            f"top level of a file, and make what it needs in setup()"
        ) from error
    return pickled


def _refuse_hidden(function: Callable[..., Any], module: str) -> None:
    """A module of the user that is named like one of our packages cannot be imported in a
    worker, where that name is ours."""
    package = module.partition(".")[0]
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    if package in _OUR_PACKAGES and file and not os.path.abspath(file).startswith(_ROOT + os.sep + package):
        raise CannotSend(
            f"{os.path.abspath(file)} is a module named {module!r}, and longhaul has a package of "
            f"that name ({os.path.join(_ROOT, package)}): rename the file"
        )
