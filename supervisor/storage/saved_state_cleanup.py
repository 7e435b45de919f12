"""What jobs have saved of themselves (`workers.job.saved_state`): dropped when it is not needed any more.

Nobody keeps account of who has saved something: jobs that save nothing cost nothing. Every few
seconds the directory, if there is one, is looked through, and the states of completed jobs go
once their results are on the disk. What a kill leaves behind, the next look finds.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote_to_bytes

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import COMPLETED
from supervisor.storage.files.disk import Disk
from workers.job.file_names import file_name

LOOK_EVERY = 5.0  # seconds
_BUDGET = 0.005  # seconds in which a look begins to remove files
_NAME = re.compile(r"\.?(.+?)(?:~|~damaged)?\.json(\.\d+\.tmp)?")
_HEAD = re.compile(rb'\{"save":\d+,"job":("(?:[^"\\]|\\.)*")')
_HEAD_SIZE = 1 << 16  # bytes in which an id ends


class SavedStateCleanup:
    """The files in `directory`, of the jobs in `table`. The caller holds the lock."""

    def __init__(self, directory: Path | str, table: JobTable, disk: Disk | None = None) -> None:
        self._directory = os.fspath(directory)
        self._table = table
        self._disk = disk or Disk()
        self._next_look = 0.0
        self._doomed: list[str] = []
        self._after = 0  # the record that has to be on the disk before the doomed go

    def look(self, now: float, last_n: int, synced: int) -> None:
        """Drop the states of jobs that were completed at the look before, if since then all
        that had been recorded is synced. `last_n` and `synced` are numbers of records."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        if self._doomed and synced < self._after:
            return
        self._remove(self._doomed, time.monotonic() + _BUDGET)
        self._doomed = self._of_completed()
        self._after = last_n

    def end(self) -> None:
        """The run is over and everything is synced."""
        self._remove(self._of_completed(), None)
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(self._directory)

    def drop(self, job_ids: Iterable[str]) -> None:
        """These jobs are about to start anew; durable, so that it stays so after a power cut."""
        bases = {file_name(job_id) for job_id in job_ids}
        found = [path for base, paths in self._files().items() if base in bases for path in paths]
        if found:
            self._remove(found, None)
            with contextlib.suppress(OSError):
                self._disk.sync_directory(self._directory)

    def drop_all(self) -> None:
        """Nobody will go on with this experiment (--no-resume)."""
        self._remove([path for paths in self._files().values() for path in paths], None)
        self.end()

    def clear_temporaries(self) -> None:
        """What killed jobs were about to save. None may be running."""
        paths = [path for paths in self._files().values() for path in paths if path.endswith(".tmp")]
        self._remove(paths, None)

    def _files(self) -> dict[str, list[str]]:
        """Paths by the job's file name; the newest come last."""
        found: dict[str, list[str]] = {}
        try:
            names = os.listdir(self._directory)
        except OSError:  # nothing was saved, or nobody may look
            return {}
        for name in names:
            if match := _NAME.fullmatch(name):
                found.setdefault(match.group(1), []).append(os.path.join(self._directory, name))
        return found

    def _of_completed(self) -> list[str]:
        table = self._table
        doomed: list[str] = []
        for base, paths in self._files().items():
            number = table.numbers.get(_job_of(base, paths))
            if number is not None and table.state[number] == COMPLETED:
                doomed += paths
        return doomed

    def _remove(self, paths: list[str], until: float | None) -> None:
        for path in paths:
            with contextlib.suppress(OSError):
                self._disk.remove(path)
            if until is not None and time.monotonic() >= until:
                return  # the next look finds the others


def _job_of(base: str, paths: list[str]) -> str:
    """The id of the job whose file name this is: that of a long id stands in the files only."""
    if "~" not in base:
        return unquote_to_bytes("" if base == "%" else base).decode(errors="surrogatepass")
    for path in paths:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            with open(path, "rb") as file:
                match = _HEAD.match(file.read(_HEAD_SIZE))
            if match:
                return msgspec.json.decode(match.group(1), type=str)
    return ""
