"""`__main__` in a worker: the user's script, as it would be if the script ran by itself.

Two ways. A script with a source is executed as `__main__`, with its guards shut in the syntax
tree (`workers.script.guards`). Where that does not reach (there is no source; a guard that is none of
the usual ones), it is executed as `__mp_main__`, and what it has defined is named anew
afterwards.
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

MAIN = "__mp_main__"  # what the script is called where it is not "__main__", as in multiprocessing
_MAX_SOURCE = 4 << 20  # bytes; a syntax tree takes a hundred times as much
_HEADER = 16  # bytes of a .pyc before its code


class _Script:
    """What is to be executed: source or code, and what the module says of itself."""

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
    """Execute the user's script as `__main__` with its guard shut; once in a process.

    `text`: what is to be executed, if not what the file holds by now."""
    done = PROCESS.imported_main
    if (done is not None and sys.modules.get("__main__") is done) or not (name or path):
        return
    script = _script(name, path, text)
    PROCESS.imported_main = _shut_in_tree(script) or _under_other_name(script)


def import_main_too(name: str | None, path: str | None, text: bytes | None = None) -> None:
    """The script of a job whose function is elsewhere, or was sent by value.

    It is imported if it has a guard, and so was written to be imported. Nothing needs it, perhaps:
    if it raises, or if it has no guard, there is an empty `__main__`, as for a notebook.
    """
    try:
        if _is_of_the_user(name, path):
            PROCESS.imported_main = _shut_in_tree(_script(name, path, text), guarded=True)
    except (Exception, SystemExit):
        PROCESS.imported_main = None
    if PROCESS.imported_main is None:
        _module(_Script("", None, None))


def _script(name: str | None, path: str | None, text: bytes | None) -> _Script:
    script = _of_name(name, path) if name is not None else _of_path(path or "")
    if text is not None and script.source is not None:
        script.source = text
        _show_lines(script.path, text)
        USER_CODE.executed(script.path, text)
    return script


def _is_of_the_user(name: str | None, path: str | None) -> bool:
    """Not pytest, say, or another program that has come with a package."""
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


def _show_lines(path: str, text: bytes) -> None:
    """Let tracebacks and `inspect` show what is executed, also when the file is another by now."""
    import linecache

    with contextlib.suppress(SyntaxError, UnicodeError):
        source = importlib.util.decode_source(text)
        linecache.cache[path] = (len(text), None, source.splitlines(keepends=True), path)


def _found_beside(path: str) -> ModuleSpec | None:
    finder: Any = pkgutil.get_importer(os.path.dirname(path))
    found: ModuleSpec | None = finder.find_spec("__main__") if finder is not None else None
    return found


# ------------------------------------------------------------------------- its execution


def _shut_in_tree(script: _Script, *, guarded: bool = False) -> types.ModuleType | None:
    """None where another way is needed. With `guarded`, not without a guard."""
    if script.source is None or len(script.source) > _MAX_SOURCE:
        return None
    from workers.script.guards import IMPORTED_AS, compile_shut

    try:
        code, has_guard = compile_shut(script.source, script.path)
    except (RecursionError, MemoryError):
        return None
    if guarded and not has_guard:
        return None
    module = _module(script)
    vars(module)[IMPORTED_AS] = MAIN
    try:
        _execute(code, module)
    except BaseException:
        # `main` was reached. Perhaps there is a guard, one that was not recognised: in a library
        # that looks at `__module__` of what it decorates, say.
        if PROCESS.called_at_import:
            return None
        raise
    finally:
        vars(module).pop(IMPORTED_AS, None)
    return module


def _under_other_name(script: _Script) -> types.ModuleType:
    """Execute it as `__mp_main__`; what it has defined, and will define, is of `__main__` then."""
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
    """A new `__main__`, with what Python puts into one."""
    before = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    module = types.ModuleType("__main__")
    known = vars(module)
    known["__loader__"] = BuiltinImporter
    if sys.version_info < (3, 14) or "__annotations__" in before:
        known["__annotations__"] = {}
    known["__builtins__"] = builtins
    known.update(script.attributes)
    sys.modules["__main__"] = module
    if _EarlierName not in sys.meta_path:
        sys.meta_path.append(_EarlierName)
    return module


class _EarlierName:
    """Finds `__main__` as `__mp_main__`: so jobs called it when they wrote pickles with an earlier version,
    and so pickles call it that are made while a script is executed under that name. Before somebody
    asks, `sys.modules` has no such module, as in the bare script."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(MAIN, cls) if name == MAIN and "__main__" in sys.modules else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """As usual; what counts is what stands in `sys.modules` afterwards."""

    @staticmethod
    def exec_module(module: types.ModuleType) -> None:
        sys.modules[MAIN] = sys.modules["__main__"]
