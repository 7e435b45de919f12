"""The experiments that a page shows, by key: what a request names is looked up here and is never part of a path."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.terms.errors import LonghaulError
from supervisor.core.terms.jobs import Counts
from supervisor.experiment.experiment_status import experiment_row, is_running
from supervisor.reports.experiment_list import last_saved
from supervisor.reports.progress_file import OVER, Progress, read_progress
from supervisor.storage.checkpoint.checkpoint_format import peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.web.experiment_watch import ExperimentWatch

_LOOK_AGAIN = 2.0  # seconds after which the directory is read again
_SMALL = 16 << 20  # bytes of a journal that is read at once for the list
_MOST_WATCHED = 4  # experiments whose jobs are held in memory


class Listed(msgspec.Struct, omit_defaults=False):
    """One entry of the list. counted: the counts are those of the journal, or of a run that keeps them just now; else
    the journal may hold more. eta_seconds, waiting_for: of a live run."""

    key: str
    id: str
    name: str
    state: str
    counts: Counts
    saved_at: str = ""
    live: bool = False
    eta_seconds: float | None = None
    waiting_for: str = ""
    directory: str = ""
    counted: bool = True


class Catalogue:
    """find: what there is now. Entries keep their key for as long as the server runs."""

    def __init__(self, find: Callable[[], list[Layout]]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._layouts: dict[str, Layout] = {}
        self._found_at = -_LOOK_AGAIN
        self._rows: dict[str, tuple[Any, Listed]] = {}
        self._watches: dict[str, ExperimentWatch] = {}

    def layouts(self) -> dict[str, Layout]:
        """By key, the one that was saved last first."""
        with self._lock:
            if time.monotonic() - self._found_at >= _LOOK_AGAIN:
                try:
                    found = self._find()
                except LonghaulError:  # not there yet, or gone for a while
                    found = []
                found.sort(key=lambda layout: (last_saved(layout), layout.experiment_id), reverse=True)
                self._layouts = {key_of(layout): layout for layout in found}
                self._found_at = time.monotonic()
            return self._layouts

    def layout(self, key: str) -> Layout | None:
        with self._lock:
            known = self._layouts.get(key)
        return known or self.layouts().get(key)

    def watch(self, key: str, layout: Layout) -> ExperimentWatch:
        """What is known of an experiment; those that nobody has asked for for longest are forgotten."""
        with self._lock:
            found = self._watches.pop(key, None) or ExperimentWatch(layout)
            self._watches[key] = found
            gone = [self._watches.pop(one) for one in list(self._watches)[:-_MOST_WATCHED]]
        for one in gone:
            one.close()
        return found

    def listed(self) -> list[Listed]:
        """Raises nothing: a damaged experiment is listed as such."""
        return [self._listed(key, layout) for key, layout in self.layouts().items()]

    def _listed(self, key: str, layout: Layout) -> Listed:
        progress = progress_of(layout)
        live = is_running(layout)
        stamp = (live, _stamp(layout.journal), _stamp(layout.checkpoint), _stamp(layout.progress))
        known = self._rows.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        row = _row(key, layout, progress, live=live)
        self._rows[key] = stamp, row
        return row

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()


def key_of(layout: Layout) -> str:
    return hashlib.blake2b(os.fsencode(layout.lock), digest_size=8).hexdigest()


def progress_of(layout: Layout) -> Progress | None:
    """None also if it cannot be read."""
    try:
        return read_progress(layout)
    except LonghaulError:
        return None


def _row(key: str, layout: Layout, progress: Progress | None, *, live: bool) -> Listed:
    directory = str(layout.directory)
    if progress is not None and (live or progress.state in OVER):
        at_work = live and progress.state not in OVER
        return Listed(
            key,
            layout.experiment_id,
            progress.name,
            progress.state.replace("_", " ") if at_work or not live else "running",
            progress.counts,
            progress.saved_at,
            live,
            progress.eta_seconds if at_work else None,
            progress.waiting_for if at_work else "",
            directory,
        )
    stamp = _stamp(layout.journal)
    if stamp is not None and stamp[1] > _SMALL:
        header = peek(Disk(), layout.checkpoint)
        known = progress or header
        if known is not None:
            state = "died" if progress is not None else "unfinished" if known.counts.left else "finished"
            counted = not known.counts.left
            found = Listed(key, layout.experiment_id, known.name, state, known.counts, known.saved_at)
            return msgspec.structs.replace(found, directory=directory, counted=counted)
    row = experiment_row(layout)
    state = "died" if row.state == "unfinished" and progress is not None else row.state
    return Listed(
        key, layout.experiment_id, row.name, state, row.counts, row.saved_at or "", live, directory=directory
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
