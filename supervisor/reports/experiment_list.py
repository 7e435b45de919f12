"""Which experiments a directory holds, the one that was saved last first.

Of the content of the files only the times are read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from supervisor.core.terms.errors import StorageError
from supervisor.core.terms.experiment_id import is_backup
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout

_FILE = re.compile(r"(?:checkpoint_(.+)\.json|journal_(.+)\.jsonl)")

_AT = re.compile(rb'"at":"([^"\\]+)"')

_TAIL = 64 << 10  # bytes at the end of a journal that are searched for a time


def experiments(directory: Path | str) -> list[str]:
    """The ids of the experiments in `directory`, that which was saved last first.

    Found by checkpoint or journal; backups do not count. The times are those that stand
    in the files: copying a directory changes the others. Raises StorageError.
    """
    logs = os.path.join(os.path.realpath(directory), "logs")
    try:
        names = os.listdir(logs)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(
            f"the directory {logs} cannot be read: {error.strerror or error}. Nothing was changed; "
            f"make it readable or fix the disk, then start again."
        ) from None
    found = {match.group(1) or match.group(2) for match in map(_FILE.fullmatch, names) if match}
    layouts = [Layout(directory, experiment_id) for experiment_id in found if not is_backup(experiment_id)]
    layouts.sort(key=lambda layout: (last_saved(layout), layout.experiment_id), reverse=True)
    return [layout.experiment_id for layout in layouts]


def last_saved(layout: Layout) -> str:
    """When something was last recorded, by the times in the files: ISO 8601; "" if there are none."""
    from supervisor.storage.checkpoint.checkpoint_format import peek

    header = peek(Disk(), layout.checkpoint)
    saved = header.saved_at if header is not None else ""
    try:
        with layout.journal.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            times = _AT.findall(file.read())
    except OSError:
        times = []
    # The records' own times: one inside a result could be anything, but hardly a later one.
    return max([saved, times[-1].decode(errors="replace") if times else ""])
