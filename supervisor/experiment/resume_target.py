"""Which of the experiments in a directory is meant: the latest one, the latest unfinished one.

Several scripts may share a directory (`--output`): each resumes experiments of its own
name. Nothing is changed here, and nothing is locked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.terms.errors import LonghaulError, UnusableCheckpoint, UsageError
from supervisor.core.terms.experiment_id import check_id
from supervisor.core.terms.jobs import Counts
from supervisor.options.request import Request, merge_settings
from supervisor.reports.experiment_list import experiments
from supervisor.reports.latest_experiment import larger_beside
from supervisor.storage.checkpoint.checkpoint_format import peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import is_held

Notice = tuple[str, str]  # level, text


class FilesState(msgspec.Struct):
    """The state of an experiment, as far as it decides whether to resume it."""

    name: str
    counts: Counts
    cancelled: int  # of the failed: a resume does not try these again
    settings: dict[str, Any]  # as remembered

    @property
    def left(self) -> int:
        return self.counts.left


def experiment_to_resume(request: Request, directory: Path) -> tuple[Layout | None, list[Notice]]:
    """The experiment to resume, None for a new one; and notices for the user."""
    if request.resume is None:
        return None, []
    if request.resume != "auto":
        layout = earlier(request.resume, directory, request.name)
        return layout, mention_larger(request, layout)
    if request.experiment_id is None:
        unfinished, notices = latest_unfinished(request, directory)
        return unfinished, notices + mention_larger(request, unfinished)
    named = Layout(directory, check_id(request.experiment_id))
    return named if named.exists() else None, []


def earlier(resume: str, directory: Path, name: str) -> Layout:
    """The experiment that `--resume ID` or `--resume latest` means: the latest of this
    `name`, where several scripts share a directory. Raises UsageError."""
    found = experiments(directory)
    if resume == "latest":
        if not found:
            raise UsageError(_nothing_to_resume(directory))
        layouts = [Layout(directory, experiment_id) for experiment_id in found]
        return next((layout for layout in layouts if _may_be_called(layout, name)), layouts[0])
    layout = Layout(directory, check_id(resume))
    if not layout.exists():
        hint = f"there are: {', '.join(found[:5])}" if found else _nothing_to_resume(directory)
        raise UsageError(f"no experiment {resume!r} in {layout.logs}; {hint}")
    return layout


def _may_be_called(layout: Layout, name: str) -> bool:
    """By its checkpoint, quickly; where that cannot be read, it is checked on opening."""
    header = peek(Disk(), layout.checkpoint)
    return header is None or header.name in ("", name)


def _nothing_to_resume(directory: Path) -> str:
    return f"No checkpoints found to resume from in {directory / 'logs'}"


def latest_unfinished(request: Request, directory: Path) -> tuple[Layout | None, list[Notice]]:
    """The experiment that `--resume auto` resumes. One of which it is not known whether it is finished
    is skipped with a warning: it must not block a command that nobody watches. Where there is none,
    a notice names the finished one, since all of its jobs are about to run again."""
    notices: list[Notice] = []
    finished: list[Notice] = []
    for experiment_id in experiments(directory):
        layout = Layout(directory, experiment_id)
        try:
            found = _state_of(layout)
        except UnusableCheckpoint as error:
            text = f"--resume auto skips {experiment_id}, which cannot be used: {error}"
            notices.append(("warning", text))
            continue
        if found.name not in ("", request.name):
            continue
        if found.left:
            return layout, notices
        if found.name and not finished:
            finished = [("info", _finished(request, experiment_id, found))]
    return None, notices + finished


def _finished(request: Request, experiment_id: str, found: FilesState) -> str:
    """`experiment_1 is finished (3 completed, 1 failed): ...`, and how to resume that one."""
    counts, tries_again = found.counts, found.counts.failed > found.cancelled
    more = tries_again and not merge_settings(request, found.settings).retry_failed
    if request.interactive:
        auto, named = "--resume auto", f"--resume {experiment_id}{' --retry-failed' if more else ''}"
    else:
        auto = 'resume="auto"'
        named = f'resume="{experiment_id}"{", retry_failed=True" if more else ""}'
    what = "continues that one and retries its failed jobs" if tries_again else "keeps its results"
    return (
        f"{experiment_id} is finished ({counts.completed:,} completed, {counts.failed:,} failed): "
        f"{auto} starts a new experiment; {named} {what}"
    )


def mention_unfinished(directory: Path, name: str) -> list[Notice]:
    """A plain start beside an unfinished experiment says so: perhaps a resume was meant."""
    for experiment_id in experiments(directory):
        try:
            found = _state_of(Layout(directory, experiment_id))
        except LonghaulError:
            continue  # a damaged experiment must not stop a new start
        if found.name not in ("", name):
            continue
        left, total = found.left, found.counts.total
        if left:
            if is_held(Layout(directory, experiment_id).lock):
                return [("info", f"{experiment_id} is also being run, {left:,} of {total:,} jobs are left")]
            return [_unfinished(experiment_id, left, total)]
        # It may be a small trial after which the unfinished one is not the latest any more.
        larger = larger_beside(Layout(directory, experiment_id))
        if larger is not None and (left := larger[1].left):
            return [_unfinished(larger[1].experiment_id, left, larger[1].counts.total)]
        break
    return []


def _unfinished(experiment_id: str, left: int, total: int) -> Notice:
    text = f"{experiment_id} is unfinished, {left:,} of {total:,} jobs are left"
    return "info", f"{text}; continue it with --resume {experiment_id}"


def mention_larger(request: Request, layout: Layout | None) -> list[Notice]:
    """`latest` and `auto` may have met a small trial: what else may have been meant."""
    found = larger_beside(layout) if layout is not None and request.resume in ("latest", "auto") else None
    if found is None:
        return []
    taken, other = found
    named = f"--resume {other.experiment_id}" if request.interactive else f'resume="{other.experiment_id}"'
    text = (
        f"{request.resume} is {taken.summary()}; there is also {other.summary()}: {named} continues that one"
    )
    return [("warning", text)]


def _state_of(layout: Layout) -> FilesState:
    """How an experiment stands, by all of its files. Raises LonghaulError if they cannot be used."""
    from supervisor.storage.recovery.survey import survey

    found = survey(layout)
    try:
        cancelled = sum(how == "cancelled" for how in found.table.outcome.values())
        return FilesState(found.name, found.table.counts(), cancelled, found.settings)
    finally:
        found.close()
