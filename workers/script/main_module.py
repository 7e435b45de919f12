"""`__main__` in a worker: the user's script, executed with its guard false.

A script with source is executed as `__main__`, with its guards made false in the syntax tree
(`workers.script.guards`). Where that is impossible (no source, an unusual guard), it is executed as
`__mp_main__`, and what it has defined is renamed to `__main__` afterwards.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib.util
import io
import marshal
import os
import pkgutil
import sys
import sysconfig
import types
from importlib.machinery import BuiltinImporter, ModuleSpec, SourceFileLoader, SourcelessFileLoader
from typing import Any

from workers.job.current_job import PROCESS
from workers.script.user_modules import USER_CODE

MAIN = "__mp_main__"  # the name of the script in specs and guards, as in multiprocessing
_MAX_SOURCE = 4 << 20  # bytes; a syntax tree takes a hundred times as much
_HEADER = 16  # bytes of a .pyc before its code


class _Script:
    """Source or code to execute, and attributes of the module."""

    def __init__(self, path: str, source: bytes | str | None, code: types.CodeType | None) -> None:
        self.path = path
        self.source = source
        self.code = code
        self.attributes: dict[str, Any] = {}

    def compiled(self) -> types.CodeType:
        if self.code is None:
            assert self.source is not None
            self.code = compile(self.source, self.path, "exec", dont_inherit=True)
        return self.code


def main_source() -> tuple[str | None, str | None]:
    """(module name, path) that `__main__` can be imported from again.

    A name for `python -m name`, a path for `python path`; both, the name being "__main__", for a
    directory or an archive that holds a `__main__.py`. None for notebooks, `python -c` and the
    interactive prompt.
    """
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name and name not in ("__main__", MAIN):
        return name, None
    path = getattr(main, "__file__", None)
    if not isinstance(path, str) or path.startswith(("/dev/", "/proc/")):  # `python /dev/stdin`
        return None, None
    path = os.path.abspath(path) if not os.path.isabs(path) else str(path)  # pdb has a type of its own
    if name == "__main__" and os.path.exists(os.path.dirname(path)):
        return name, path
    return (None, path) if os.path.isfile(path) else (None, None)


def import_main(name: str | None, path: str | None, text: bytes | None = None) -> None:
    """Execute the user's script as `__main__` with its guard false; once in a process.

    text: the source to execute instead of the file's present content.
    """
    done = PROCESS.imported_main
    if (done is not None and sys.modules.get("__main__") is done) or not (name or path):
        return
    script = _script(name, path, text)
    PROCESS.imported_main = _execute_as_main(script) or _execute_as_mp_main(script)


def import_main_if_guarded(name: str | None, path: str | None, text: bytes | None = None) -> None:
    """Import the script of a job whose function is in another module, or was sent by value.

    Only a script with a guard is imported, since it was written to be. Perhaps nothing needs it: if it raises,
    or has no guard, `__main__` is an empty module, as for a notebook.
    """
    try:
        if _is_of_the_user(name, path):
            PROCESS.imported_main = _execute_as_main(_script(name, path, text), guarded=True)
    except (Exception, SystemExit):
        PROCESS.imported_main = None
    if PROCESS.imported_main is None:
        _module(_Script("", None, None))


def _script(name: str | None, path: str | None, text: bytes | None) -> _Script:
    script = _of_name(name, path) if name is not None else _of_path(path or "")
    if text is not None and script.source is not None:
        script.source = text
        _cache_source_lines(script.path, text)
        USER_CODE.executed(script.path, text)
    return script


def _is_of_the_user(name: str | None, path: str | None) -> bool:
    """False for pytest, say, or another program of an installed package, and for `longhaul` itself."""
    if name is not None and name.partition(".")[0] == "supervisor":
        return False
    if path is None and name is not None:
        spec = importlib.util.find_spec(name.partition(".")[0])
        path = spec.origin if spec is not None else None
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    places = tuple(os.path.join(paths[name], "") for name in names if paths.get(name))
    return path is not None and not path.startswith(places)


# --------------------------------------------------------------------- what is executed


def _of_path(path: str) -> _Script:
    """`python path`."""
    with io.open_code(path) as file:
        content = file.read()
    if content[:4] == importlib.util.MAGIC_NUMBER:
        script = _Script(path, None, marshal.loads(content[_HEADER:]))
        loader: Any = SourcelessFileLoader("__main__", path)
    else:
        script, loader = _Script(path, content, None), SourceFileLoader("__main__", path)
    script.attributes = {"__loader__": loader, "__file__": path, "__cached__": None}
    return script


def _of_name(name: str, path: str | None) -> _Script:
    """`python -m name`; `python directory`, `python archive` if there is a path too."""
    spec = _found_beside(path) if path is not None else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        missing = f"no module named {name!r}, which `python -m` was started with"
        raise ModuleNotFoundError(f"{path} is not there any more" if path is not None else missing)
    loader: Any = spec.loader
    source = loader.get_source(spec.name) if hasattr(loader, "get_source") else None
    script = _Script(spec.origin or name, source, loader.get_code(spec.name) if source is None else None)
    script.attributes = {
        "__package__": spec.parent,
        "__loader__": loader,
        "__spec__": spec,
        "__file__": spec.origin,
        "__cached__": spec.cached,
    }
    return script


def _cache_source_lines(path: str, text: bytes) -> None:
    """Let tracebacks and `inspect` show the executed source, also if the file has changed."""
    import linecache

    with contextlib.suppress(SyntaxError, UnicodeError):
        source = importlib.util.decode_source(text)
        linecache.cache[path] = (len(text), None, source.splitlines(keepends=True), path)


def _found_beside(path: str) -> ModuleSpec | None:
    finder: Any = pkgutil.get_importer(os.path.dirname(path))
    found: ModuleSpec | None = finder.find_spec("__main__") if finder is not None else None
    return found


# ------------------------------------------------------------------------- its execution


def _execute_as_main(script: _Script, *, guarded: bool = False) -> types.ModuleType | None:
    """None if it has to be executed as `__mp_main__`. With `guarded`, None if there is no guard."""
    if script.source is None or len(script.source) > _MAX_SOURCE:
        return None
    from workers.script.guards import IMPORTED_AS, compile_without_guards

    try:
        code, has_guard = compile_without_guards(script.source, script.path)
    except (RecursionError, MemoryError):
        return None
    if guarded and not has_guard:
        return None
    module = _module(script)
    vars(module)[IMPORTED_AS] = MAIN
    try:
        _execute(code, module)
    except BaseException:
        # `main` was called, so perhaps a guard was not recognised: in a library that checks the
        # `__module__` of what it decorates, say.
        if PROCESS.called_at_import:
            return None
        raise
    finally:
        vars(module).pop(IMPORTED_AS, None)
    return module


def _execute_as_mp_main(script: _Script) -> types.ModuleType:
    """Execute it as `__mp_main__`, then rename the module, its functions and classes to `__main__`."""
    module = _module(script)
    module.__name__ = MAIN
    sys.modules[MAIN] = module
    try:
        _execute(script.compiled(), module)
    finally:
        sys.modules.pop(MAIN, None)
    for found in gc.get_objects():
        if type(found) is types.FunctionType:
            if found.__module__ == MAIN:
                found.__module__ = "__main__"
        elif (
            issubclass(type(found), type)
            and type.__getattribute__(found, "__dict__").get("__module__") == MAIN
        ):
            type.__setattr__(found, "__module__", "__main__")
    module.__name__ = "__main__"
    return module


def _execute(code: types.CodeType, module: types.ModuleType) -> None:
    PROCESS.importing_main, PROCESS.called_at_import = True, False
    try:
        exec(code, vars(module))
    finally:
        PROCESS.importing_main = False


def _module(script: _Script) -> types.ModuleType:
    """A new module `__main__`, with the attributes that Python gives it."""
    before = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    module = types.ModuleType("__main__")
    known = vars(module)
    known["__loader__"] = BuiltinImporter
    if sys.version_info < (3, 14) or "__annotations__" in before:
        known["__annotations__"] = {}
    known["__builtins__"] = builtins
    known.update(script.attributes)
    sys.modules["__main__"] = module
    if _MpMainFinder not in sys.meta_path:
        sys.meta_path.append(_MpMainFinder)
    return module


class _MpMainFinder:
    """Finds `__main__` under the name `__mp_main__`, which is in pickles of earlier versions, and in those made
    while a script is executed under that name. Until it is imported, `sys.modules` has no such module."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(MAIN, cls) if name == MAIN and "__main__" in sys.modules else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Default creation; `exec_module` replaces the module in `sys.modules`."""

    @staticmethod
    def exec_module(module: types.ModuleType) -> None:
        sys.modules[MAIN] = sys.modules["__main__"]
