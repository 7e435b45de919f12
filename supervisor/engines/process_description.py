"""Describes this process, so that fresh interpreters can be set up in the same way."""

from __future__ import annotations

import os
import sys

from supervisor.system.script_start import command_line, environment_at_start, start_directory
from workers.process.surrogates import sendable
from workers.script.main_module import main_source
from workers.script.preparation import Preparation, ProgramContext


def prepare(modules: list[str], environment: dict[str, str], files: dict[str, str]) -> Preparation:
    """What a fresh interpreter needs to import `modules` as this one has, with `environment` set. `files`: paths
    of modules that no import finds."""
    main_name, main_path = main_source()
    now = ProgramContext.of_this_process()
    return Preparation(
        start=_at_start(now, main_name, main_path),
        now=now,
        orig_argv=[sendable(word) for word in sys.orig_argv],
        main_name=main_name,
        main_path=main_path and sendable(main_path),
        main_text=_main_text(),
        modules=modules,
        environment=environment,
        files=files,
    )


def _main_text() -> bytes | None:
    """The source of the script's file; None if it is in an archive, compiled, or cannot be read."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    try:
        with open(file, "rb") as script:
            return script.read()
    except OSError:
        return None


def _at_start(now: ProgramContext, main_name: str | None, main_path: str | None) -> ProgramContext | None:
    """The context of the script before its first line; None if another program runs it (a debugger, a notebook),
    which may have changed the context.

    The path lacks the entries that each interpreter adds by itself.
    """
    line = command_line(sys.orig_argv)
    if line is None:
        return None
    directory = start_directory() or (os.getcwd() if now.directory is not None else "")
    if line.kind == "script" and main_name == "__main__" and main_path is not None:
        if not _same_file(os.path.join(directory, line.what), os.path.dirname(main_path)):
            return None
        first = folder = line.what  # a directory or an archive
    elif line.kind == "script" and main_path is not None:
        if not _same_file(os.path.join(directory, line.what), main_path):
            return None
        first, folder = line.what, os.path.dirname(os.path.realpath(main_path))
    elif line.kind == "m" and main_name is not None and main_name in (line.what, f"{line.what}.__main__"):
        first, folder = getattr(sys.modules["__main__"], "__file__", "") or "", directory
    else:
        return None
    environment = environment_at_start()
    return ProgramContext(
        path=[] if sys.flags.safe_path else [("text", sendable(folder))],
        argv=[("text", sendable(word)) for word in (first, *line.arguments)],
        directory=sendable(directory) if directory else None,
        environment=now.environment
        if environment is None
        else {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in environment.items()
            if name != b"LONGHAUL_DETACHED"
        },
    )


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
