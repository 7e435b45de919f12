"""Which of the experiments in a directory is meant: the latest one, the latest unfinished one.

Several scripts may share a directory (`--output`): each goes on with experiments of its own
name. Nothing is changed here, and nothing is locked.
"""

from __future__ import annotations

from pathlib import Path

from supervisor.core.terms.errors import LonghaulError, UnusableCheckpoint, UsageError
from supervisor.core.terms.experiment_id import check_id
from supervisor.options.request import Request
from supervisor.reports.experiment_list import experiments
from supervisor.reports.latest_experiment import meant_instead
from supervisor.storage.checkpoint.checkpoint_format import peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import is_held

Notice = tuple[str, str]  # level, text


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
    """By its checkpoint, quickly; what cannot be told is found out when it is opened."""
    header = peek(Disk(), layout.checkpoint)
    return header is None or header.name in ("", name)


def _nothing_to_resume(directory: Path) -> str:
    return f"No checkpoints found to resume from in {directory / 'logs'}"


def latest_unfinished(directory: Path, name: str) -> tuple[Layout | None, list[Notice]]:
    """What `--resume auto` goes on with. One of which nobody can tell whether it is finished
    is passed over and told: it must not block a command that nobody watches."""
    passed_over: list[Notice] = []
    for experiment_id in experiments(directory):
        layout = Layout(directory, experiment_id)
        try:
            left, _, called = _left(layout)
        except UnusableCheckpoint as error:
            text = f"--resume auto passes over {experiment_id}, which cannot be used: {error}"
            passed_over.append(("warning", text))
            continue
        if left and called in ("", name):
            return layout, passed_over
    return None, passed_over


def mention_unfinished(directory: Path, name: str) -> list[Notice]:
    """A plain start beside an unfinished experiment says so: perhaps a resume was meant."""
    for experiment_id in experiments(directory):
        try:
            left, total, called = _left(Layout(directory, experiment_id))
        except LonghaulError:
            continue  # somebody else's damage must not stop a new start
        if called not in ("", name):
            continue
        if left:
            if is_held(Layout(directory, experiment_id).lock):
                return [
                    ("info", f"{experiment_id} is being run as well, {left:,} of {total:,} jobs are left")
                ]
            return [_unfinished(experiment_id, left, total)]
        # It may be a small trial after which the unfinished one is not the latest any more.
        found = meant_instead(Layout(directory, experiment_id))
        if found is not None and (left := found[1].left):
            return [_unfinished(found[1].experiment_id, left, found[1].counts.total)]
        break
    return []


def _unfinished(experiment_id: str, left: int, total: int) -> Notice:
    text = f"{experiment_id} is unfinished, {left:,} of {total:,} jobs are left"
    return "info", f"{text}; --resume {experiment_id} goes on with it"


def mention_larger(request: Request, layout: Layout | None) -> list[Notice]:
    """`latest` and `auto` may have met a small trial: what else may have been meant."""
    found = meant_instead(layout) if layout is not None and request.resume in ("latest", "auto") else None
    if found is None:
        return []
    taken, other = found
    named = f"--resume {other.experiment_id}" if request.interactive else f'resume="{other.experiment_id}"'
    text = (
        f"{request.resume} is {taken.words()}; there is also {other.words()}: {named} goes on with that one"
    )
    return [("warning", text)]


def _left(layout: Layout) -> tuple[int, int, str]:
    """How many jobs of an experiment are pending or in progress, how many there are, and
    what it is called."""
    from supervisor.storage.recovery.survey import survey

    found = survey(layout)
    counts, name = found.table.counts(), found.name
    found.close()
    return counts.pending + counts.in_progress, counts.total, name
