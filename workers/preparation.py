"""Make a fresh interpreter look like the user's program: path, arguments, main module.

The same as multiprocessing's spawn does, with differences: the main module is `__main__` alone, with
its guard shut (`workers.main_module`), and a package's `__main__` is imported too.
"""

from __future__ import annotations

import importlib
import os
import sys

import msgspec

from workers.main_module import MAIN, empty_main, import_main, main_source


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
        if MAIN not in self.modules:
            empty_main()
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
