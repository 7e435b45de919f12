"""Removes the saved states of jobs (`workers.job.saved_state`) that are not needed any more.

Which jobs have saved something is not tracked, so jobs that save nothing cost nothing. Every few seconds
the directory, if there is one, is listed, and the states of completed jobs are removed once their results are
on the disk. Files that a kill leaves behind are found by the next listing.
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

CLEAN_EVERY = 5.0  # seconds
_BUDGET = 0.005  # seconds that one call may spend on removing files
# A program keeps its state in a file that ends in .state; its worker removes it when the job is completed.
_NAME = re.compile(r"\.?(.+?)(?:(?:~|~damaged)?\.json(\.\d+\.tmp)?|\.state)")
_HEAD = re.compile(rb'\{"save":\d+,"job":("(?:[^"\\]|\\.)*")')
_HEAD_SIZE = 1 << 16  # bytes in which an id ends


class SavedStateCleanup:
    """The files in `directory`, of the jobs in `table`. The caller holds the lock."""

    def __init__(self, directory: Path | str, table: JobTable, disk: Disk | None = None) -> None:
        self._directory = os.fspath(directory)
        self._table = table
        self._disk = disk or Disk()
        self._next_check = 0.0
        self._obsolete: list[str] = []
        self._after = 0  # the record that must be synced before `_obsolete` is removed

    def clean_up(self, now: float, last_n: int, synced: int) -> None:
        """Remove the states of jobs that were completed at the previous cleanup, if all records written until
        then are synced. `last_n`, `synced`: numbers of the last record written and synced."""
        if now < self._next_check:
            return
        self._next_check = now + CLEAN_EVERY
        if self._obsolete and synced < self._after:
            return
        self._remove(self._obsolete, time.monotonic() + _BUDGET)
        self._obsolete = self._of_completed()
        self._after = last_n

    def end(self) -> None:
        """Remove the states of completed jobs at the end of a run, when everything is synced."""
        self._remove(self._of_completed(), None)
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(self._directory)

    def drop(self, job_ids: Iterable[str]) -> None:
        """Remove the states of jobs that will start from the beginning; durable, also over a power cut."""
        bases = {file_name(job_id) for job_id in job_ids}
        found = [path for base, paths in self._files().items() if base in bases for path in paths]
        if found:
            self._remove(found, None)
            with contextlib.suppress(OSError):
                self._disk.sync_directory(self._directory)

    def drop_all(self) -> None:
        """Remove all states: this experiment cannot be resumed (--no-resume)."""
        self._remove([path for paths in self._files().values() for path in paths], None)
        self.end()

    def clear_temporaries(self) -> None:
        """Remove temporary files of killed jobs. No job may be running."""
        paths = [path for paths in self._files().values() for path in paths if path.endswith(".tmp")]
        self._remove(paths, None)

    def _files(self) -> dict[str, list[str]]:
        """Paths by the job's file name; the newest come last."""
        found: dict[str, list[str]] = {}
        try:
            names = os.listdir(self._directory)
        except OSError:  # nothing was saved, or the directory is not readable
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
                return  # the next cleanup removes the others


def _job_of(base: str, paths: list[str]) -> str:
    """The id of the job with this file name; a long id is read from the files themselves."""
    if "~" not in base:
        return unquote_to_bytes("" if base == "%" else base).decode(errors="surrogatepass")
    for path in paths:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            with open(path, "rb") as file:
                match = _HEAD.match(file.read(_HEAD_SIZE))
            if match:
                return msgspec.json.decode(match.group(1), type=str)
    return ""
