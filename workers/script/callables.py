"""Sends functions to another process: by name if it can be imported there, else by value.

`describe` runs in the supervisor process, `load` in a worker. A function of the user's
script is named in the module `__mp_main__`, as multiprocessing does it; in the worker that is
`__main__` (`workers.script.main_module`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

import msgspec

from workers.job.current_job import PROCESS
from workers.process.surrogates import received, sendable
from workers.script.main_module import MAIN, main_source
from workers.script.module_lookup import file_to_execute, import_module, is_found_by_import, look_up
from workers.transport.messages import FunctionSpec
from workers.values.json_encoding import encode_plain

_MAIN_NAMES = ("__main__", MAIN)
_SENT_TWICE = 4 << 20  # bytes; a larger pickle is sent once, without references to `__main__`
_OUR_PACKAGES = ("supervisor", "workers")
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class CannotSend(ValueError):
    """A function cannot be sent to a worker."""


class CannotLoad(ImportError):
    """A worker does not find a function under the name that the supervisor sent."""


def describe(function: Callable[..., Any]) -> FunctionSpec:
    """How a worker finds this callable. Raises CannotSend."""
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    if isinstance(module, str) and isinstance(qualname, str):
        _refuse_name_clash(function, module)
    return by_name(function) or _by_value(function, str(module), str(qualname))


def by_name(function: Callable[..., Any]) -> FunctionSpec | None:
    """Where another process can import this callable from; None if it cannot."""
    if isinstance(function, functools.partial):
        return _partial_by_name(function)
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        return None
    if look_up(sys.modules.get(module), qualname) is not function:
        return None
    if module in _MAIN_NAMES:
        return FunctionSpec(MAIN, qualname) if any(main_source()) else None
    if is_found_by_import(module):
        return FunctionSpec(module, qualname)
    file = file_to_execute(sys.modules[module])
    return FunctionSpec(module, qualname, files={module: sendable(file)}) if file is not None else None


def load(spec: FunctionSpec) -> Callable[..., Any]:
    """The callable that `spec` names. Raises CannotLoad, or what its module raises."""
    for name, file in spec.files.items():
        import_module(name, received(file))
    if spec.pickled is not None:
        return _from_value(spec, spec.pickled)
    module = sys.modules["__main__"] if spec.module == MAIN else import_module(spec.module)
    function = look_up(module, spec.qualname)
    if function is not None and spec.constants:
        return functools.partial(function, *spec.constants)
    if function is None:
        file = getattr(module, "__file__", None) or spec.module
        raise CannotLoad(
            f"{file} has no {spec.qualname!r} when it is imported in a worker; define it at the top level "
            f'of the module, outside of `if __name__ == "__main__":`'
        )
    return function  # type: ignore[no-any-return]


def _partial_by_name(function: functools.partial[Any]) -> FunctionSpec | None:
    """Only with constants that are the same after JSON, and without keywords, which a job's params may replace."""
    spec = None if function.keywords else by_name(function.func)
    if spec is None or not function.args or encode_plain(list(function.args)) is None:
        return None
    return msgspec.structs.replace(spec, constants=list(function.args))


def _described(function: Callable[..., Any]) -> str:
    """`the function load.<locals>.<lambda> (model.py, line 10)`; of anything else its repr."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return repr(function)
    file = os.path.basename(code.co_filename)
    return f"the function {function.__qualname__} ({file}, line {code.co_firstlineno})"


def _by_value(function: Callable[..., Any], module: str, qualname: str) -> FunctionSpec:
    from workers.script import by_value

    files: dict[str, str] = {}
    try:
        pickled = by_value.dumps(function, referring=False, files=files)
        referring = None
        if any(main_source()) and len(pickled) < _SENT_TWICE:
            referring = by_value.dumps(function, referring=True, files=files)
    except ImportError:
        raise CannotSend(
            f"{_described(function)} cannot be imported by a worker: define it at the top level of a file, "
            f"or install cloudpickle (pip install cloudpickle)"
        ) from None
    except Exception as error:
        raise CannotSend(
            f"{_described(function)} cannot be sent to a worker ({type(error).__name__}: {error}): define it at the "
            f"top level of a file, and make what it needs in setup()"
        ) from error
    return FunctionSpec(
        module,
        qualname,
        pickled,
        referring=referring,
        files={name: sendable(file) for name, file in files.items()},
    )


def _from_value(spec: FunctionSpec, pickled: bytes) -> Callable[..., Any]:
    from workers.script import by_value

    function: Any = None
    if spec.referring is not None and PROCESS.imported_main is not None:
        with contextlib.suppress(AttributeError):  # it was defined where an import does not come
            function = by_value.loads(spec.referring)
    return by_value.loads(pickled) if function is None else function  # type: ignore[no-any-return]


def _refuse_name_clash(function: Callable[..., Any], module: str) -> None:
    """Raise CannotSend for a user's module that has the name of one of our packages: a worker would import
    ours."""
    package = module.partition(".")[0]
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    if package in _OUR_PACKAGES and file and not os.path.abspath(file).startswith(_ROOT + os.sep + package):
        raise CannotSend(
            f"{os.path.abspath(file)} is a module named {module!r}, and longhaul has a package of "
            f"that name ({os.path.join(_ROOT, package)}): rename the file"
        )
