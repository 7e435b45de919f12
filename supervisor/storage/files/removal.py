"""Which files are an experiment's, and their removal."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from supervisor.core.terms.errors import StorageError
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock


def files_of(layout: Layout) -> list[Path]:
    """The files of the experiment, in the order in which they are removed."""
    name = re.escape(layout.experiment_id)
    files = (
        r"(?:journal|plan|jobs|checkpoint|index|stretches|progress)_"
        + name
        + r"(?:\.backup(?:-\d+)?)?\.jsonl?"
    )
    files = rf"(?:{files}|console_{name}\.log)"
    ours = re.compile(rf"{files}|\.{files}\.\d+\.tmp|\.{{1,2}}probe_{name}(?:\.\d+\.tmp)?")
    last = [layout.plan, layout.checkpoint, layout.journal, layout.lock]
    try:
        names = sorted(os.listdir(layout.logs))
    except OSError as error:
        raise StorageError(
            f"{layout.logs} cannot be read: {error.strerror}. Nothing was removed; make it readable, then try again."
        ) from None
    others = [layout.logs / name for name in names if ours.fullmatch(name)]
    found = [layout.results_directory, *(path for path in others if path not in last), *last]
    return [path for path in found if os.path.lexists(path)]


def remove(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"{error.filename or path} cannot be removed: {error.strerror or error}. What is left can be "
                f"removed by the same command when this is fixed."
            ) from None


def remove_new(layout: Layout) -> None:
    """Remove an experiment that has just been made, and the directories that were made for it."""
    if layout.logs.is_dir():
        lock = Lock.acquire(layout.lock, layout.experiment_id)
        try:
            remove(files_of(layout))
        finally:
            lock.release()
    elif layout.results_directory.exists():
        remove([layout.results_directory])
    for directory in (layout.logs, layout.directory):
        with contextlib.suppress(OSError):  # others are in it
            directory.rmdir()
