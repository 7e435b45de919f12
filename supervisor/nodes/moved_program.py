"""A program whose directory was copied to a node: its paths, as they are there."""

from __future__ import annotations

import os

import msgspec

from workers.process.surrogates import received, sendable
from workers.script.preparation import Preparation, ProgramContext

SHIPPED = "LONGHAUL_SHIPPED"  # in the environment of an agent: where the copy is


def moved_path(path: str, origin: str, copy: str) -> str:
    """Where a `sendable` path in `origin` is in `copy`; any other one as it is."""
    known = received(path)
    inside = os.path.relpath(known, origin) if os.path.isabs(known) else ".."
    if inside == ".." or inside.startswith("../"):
        return path
    return sendable(os.path.normpath(os.path.join(copy, inside)))


def moved(preparation: Preparation, origin: str, copy: str) -> Preparation:
    """The same program, with everything in the directory `origin` found in `copy`. It runs in the copy, if it ran
    elsewhere."""

    def there(path: str) -> str:
        return moved_path(path, origin, copy)

    def entered(context: ProgramContext) -> ProgramContext:
        directory = None if context.directory is None else there(context.directory)
        return msgspec.structs.replace(
            context,
            path=[(kind, there(text) if kind == "text" else text) for kind, text in context.path],
            argv=[(kind, there(text) if kind == "text" else text) for kind, text in context.argv],
            directory=directory if directory != context.directory else sendable(copy),
        )

    return msgspec.structs.replace(
        preparation,
        start=None if preparation.start is None else entered(preparation.start),
        now=entered(preparation.now),
        main_path=None if preparation.main_path is None else there(preparation.main_path),
        files={name: there(file) for name, file in preparation.files.items()},
    )
