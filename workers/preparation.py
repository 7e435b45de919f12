"""Make a fresh interpreter look like the user's program: path, arguments, main module.

The same as multiprocessing's spawn does, with two differences: the main module runs in its
own namespace (there is one copy of its globals), and a package's `__main__` is imported too.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
import types

import msgspec

from workers.callables import MAIN, main_source
from workers.current import PROCESS


class Preparation(msgspec.Struct, kw_only=True):
    """What a new interpreter has to know before it can import the user's code."""

    sys_path: list[str]
    sys_argv: list[str]
    directory: str | None  # None if the supervisor's own was deleted
    main_name: str | None  # of `python -m name`
    main_path: str | None  # of `python path`
    modules: list[str]  # where the user's functions are; "__mp_main__" is the main module
    environment: dict[str, str]

    def apply(self) -> None:
        """Path, arguments, environment, directory; nothing of the user's is imported."""
        sys.path[:] = self.sys_path
        sys.argv[:] = self.sys_argv
        os.environ.update(self.environment)
        if self.directory is not None:
            os.chdir(self.directory)

    def import_modules(self) -> None:
        """Import the user's code. Raises whatever that raises, SystemExit included."""
        for module in self.modules:
            if module == MAIN:
                import_main(self.main_name, self.main_path)
            else:
                importlib.import_module(module)


def prepare(modules: list[str], environment: dict[str, str]) -> Preparation:
    """Describe this process, for a worker that is to look like it."""
    main_name, main_path = main_source()
    directory: str | None
    try:
        directory = os.getcwd()
    except OSError:
        directory = None
    return Preparation(
        sys_path=[directory or "" if entry == "" else entry for entry in sys.path],
        sys_argv=list(sys.argv),
        directory=directory,
        main_name=main_name,
        main_path=main_path,
        modules=modules,
        environment=environment,
    )


def import_main(name: str | None, path: str | None) -> None:
    """Run the user's script as `__mp_main__`, which is `__main__` too from then on."""
    if getattr(sys.modules.get("__main__"), "__name__", "") == MAIN or not (name or path):
        return
    module = types.ModuleType(MAIN)
    code: types.CodeType
    if name is not None:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"no module named {name!r}, which `python -m` was started with")
        module.__spec__, module.__loader__ = spec, spec.loader
        module.__file__, module.__package__ = spec.origin, spec.parent
        code = spec.loader.get_code(name)  # type: ignore[attr-defined]
    else:
        assert path is not None
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec")
        module.__file__ = path
    sys.modules["__main__"] = sys.modules[MAIN] = module
    PROCESS.importing_main = True
    try:
        exec(code, module.__dict__)
    finally:
        PROCESS.importing_main = False
