"""Reserves an id for a new experiment. Nothing that exists is overwritten."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from supervisor.core.terms.errors import BeingRun, CannotCreate, UsageError
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock, refuse_held


class ExperimentExists(UsageError):
    """The id is in use."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        super().__init__(
            f"experiment {layout.experiment_id!r} exists in {layout.directory}; nothing is overwritten. "
            f"Continue it with --resume {layout.experiment_id}, or choose another --experiment-id."
        )


def refuse_existing(layout: Layout) -> None:
    """Raises BeingRun (with its pid and host) or UsageError (how to resume) if this id is in use."""
    if layout.exists():
        refuse_held(layout.lock, layout.experiment_id)
    _refuse_files_of(layout)


def _refuse_files_of(layout: Layout) -> None:
    if layout.exists():
        raise ExperimentExists(layout)
    if layout.taken():
        raise UsageError(
            f"{layout.results_directory} exists, from a run with --no-resume, which cannot be resumed; nothing is "
            f"overwritten. Choose another --experiment-id, or move that directory away."
        )


def reserve(directory: Path, wanted: str | None, *, recording: bool) -> tuple[Layout, Lock]:
    """A layout with an id that no other process has, with a suffix if the wanted one is in use. It is
    reserved by its lock or, without `recording`, by creating the directory of its results."""
    stem = wanted or datetime.now().strftime("experiment_%Y%m%d_%H%M%S")
    for number in range(1, 1000):
        layout = Layout(directory, stem if number == 1 else f"{stem}_{number}")
        if wanted is None and (layout.taken() or layout.lock.exists()):
            continue
        try:
            return layout, _reserve_recorded(layout) if recording else _reserve_unrecorded(layout)
        except (BeingRun, UsageError):
            if wanted is not None:
                raise
    raise UsageError(f"no free experiment id near {stem} in {directory}; give one with --experiment-id")


def _reserve_recorded(layout: Layout) -> Lock:
    lock = Lock.acquire(layout.lock, layout.experiment_id)
    try:
        _refuse_files_of(layout)  # another process may have made it since the last check
    except BaseException:
        lock.release()
        raise
    return lock


def _reserve_unrecorded(layout: Layout) -> Lock:
    try:
        layout.directory.mkdir(parents=True, exist_ok=True)
        layout.results_directory.mkdir()
    except OSError as error:
        if layout.directory.is_dir():
            refuse_existing(layout)
        raise CannotCreate(
            f"the directory {layout.results_directory} cannot be created: {error.strerror}. "
            f"Choose another one with --output DIR, or make this one writable."
        ) from None
    return Lock.none()
