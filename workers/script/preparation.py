"""Makes a fresh interpreter look like the user's program: path, arguments, directory, main module.

multiprocessing's spawn does the same, with differences. Here the main module is `__main__`, with its guard
false (`workers.script.main_module`), and a package's `__main__` is imported as well. The import runs in the
directory that the script was started in, jobs in the one where it is now.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from workers.job.current_job import WORKER_VARIABLES
from workers.process.initial_state import drop_shadowing_modules, initial_path
from workers.process.surrogates import received, sendable
from workers.script.main_module import MAIN, import_main, import_main_if_guarded
from workers.script.module_lookup import import_module


class ProgramContext(msgspec.Struct, array_like=True):
    """Path, arguments, directory, environment and settings of a program. Every text is `sendable`.

    path: entries of `sys.path`, each with its type in front.
    settings: of the interpreter, by the names of `_SETTINGS`.
    """

    path: list[tuple[str, str]]
    argv: list[tuple[str, str]]
    directory: str | None  # None if it was deleted, or is not known
    environment: dict[str, str]
    settings: dict[str, Any] = {}
    time_zone: list[str] = []  # time.tzname

    @classmethod
    def of_this_process(cls) -> ProgramContext:
        """The current ones."""
        try:
            directory = sendable(os.getcwd())
        except OSError:
            directory = None
        return cls(
            [_described(entry) for entry in sys.path],
            [_described(word) for word in sys.argv],
            directory,
            {name.decode("latin-1"): value.decode("latin-1") for name, value in os.environb.items()},
            {name: get() for name, (get, _) in _SETTINGS.items()},
            [sendable(name) for name in time.tzname],
        )

    def enter(self, kept: dict[str, str]) -> None:
        """Apply them to this process, except for the variables in `kept`. Raises OSError if the directory
        does not exist."""
        sys.path[:] = [_restored(*entry) for entry in self.path]
        sys.argv[:] = [_restored(*word) for word in self.argv]
        wanted = {os.fsencode(name): os.fsencode(value) for name, value in kept.items()}
        for name, value in self.environment.items():
            wanted.setdefault(name.encode("latin-1"), value.encode("latin-1"))
        for variable in os.environb.keys() - wanted.keys():
            del os.environb[variable]
        for variable, content in wanted.items():
            if os.environb.get(variable) != content:
                os.environb[variable] = content
        if self.time_zone and [sendable(name) for name in time.tzname] != self.time_zone:
            time.tzset()
        for name, setting in self.settings.items():
            get, put = _SETTINGS[name]
            if get() != setting:
                put(setting)
        if self.directory is not None:
            os.chdir(received(self.directory))


class Preparation(msgspec.Struct, kw_only=True):
    """What a fresh interpreter needs before it can import the user's code."""

    start: ProgramContext | None  # before the script's first line; None if unknown
    now: ProgramContext  # when workers were asked for
    orig_argv: list[str]  # sendable
    main_name: str | None  # of `python -m name`
    main_path: str | None  # of `python path`; sendable
    main_text: bytes | None  # the script's; None where it has none: one text for the whole run
    modules: list[str]  # that define the user's functions; "__mp_main__" is the main module
    environment: dict[str, str]  # set in addition, and preferred
    files: dict[str, str] = {}  # modules that are executed from a file, since no import finds them; sendable

    def apply(self) -> None:
        """Set path, arguments, environment and directory as they were at the script's start: its import will
        change them again. If they are unknown, as they are now. Imports nothing of the user's."""
        sys.orig_argv[:] = map(received, self.orig_argv)
        own, again = initial_path(), self.start
        if again is not None and own is not None:
            again.path += [("text", sendable(entry)) for entry in own]
        else:
            again = None
        try:
            self._enter(again or self.now)
        except OSError:
            if again is None:
                raise
            self._enter(self.now)  # the directory that the script has left is gone
        drop_shadowing_modules(sys.path)

    def import_modules(self) -> None:
        """Import the user's code, then set everything as it is in the script now. Raises whatever the import
        raises, SystemExit included."""
        wanted = import_main if MAIN in self.modules else import_main_if_guarded
        wanted(self.main_name, self.main_path and received(self.main_path), self.main_text)
        self._enter(self.now)
        for name, file in self.files.items():
            import_module(name, received(file))
        for module in self.modules:
            if module != MAIN:
                import_module(module)
        self._enter(self.now)

    def _enter(self, context: ProgramContext) -> None:
        kept = {name: os.environ[name] for name in WORKER_VARIABLES if name in os.environ}
        context.enter({**self.environment, **kept})


# Of the interpreter, where the script's own lines under the guard may have changed them.
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "digits": (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    "switch interval": (sys.getswitchinterval, sys.setswitchinterval),
    "no bytecode": (lambda: sys.dont_write_bytecode, partial(setattr, sys, "dont_write_bytecode")),
    "pycache": (
        lambda: sys.pycache_prefix and sendable(sys.pycache_prefix),
        lambda text: setattr(sys, "pycache_prefix", text and received(text)),
    ),
}


def _described(entry: object) -> tuple[str, str]:
    """An entry of `sys.path` or `sys.argv`: what it is, and its text."""
    if isinstance(entry, str):
        return "text", sendable(entry)
    if isinstance(entry, bytes):
        return "bytes", entry.decode("latin-1")
    if isinstance(entry, os.PathLike):
        return "path", sendable(os.fsdecode(entry))
    return "other", sendable(repr(entry))  # an import passes over it


def _restored(kind: str, text: str) -> Any:
    if kind == "text":
        return received(text)
    if kind == "bytes":
        return text.encode("latin-1")
    if kind == "path":
        from pathlib import Path

        return Path(received(text))
    import ast

    try:
        return ast.literal_eval(received(text))  # None, numbers, tuples
    except (ValueError, SyntaxError):
        return None
