"""Which experiment a start continues: found once, before anything is changed or locked.

Several scripts may share a directory (`--output`): each resumes experiments of its own
name.
"""

from __future__ import annotations

import msgspec

from supervisor.core.terms.errors import LonghaulError, UnusableCheckpoint, UsageError
from supervisor.options.request import Request
from supervisor.reports.experiment_list import experiments
from supervisor.reports.latest_experiment import KnownExperiment, known_exactly, larger_beside, may_be_called
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import is_held

Notice = tuple[str, str]  # level, text


class ResumeTarget(msgspec.Struct, frozen=True):
    """layout: of the experiment to go on with; None: a new one is made. notices: what else may have been meant."""

    layout: Layout | None
    notices: list[Notice] = []


def resume_target(request: Request) -> ResumeTarget:
    """What `--resume` means, or its absence. Raises UsageError if there is no such experiment, StorageError if the
    directory cannot be read."""
    ids = experiments(request.directory) if request.recording else []
    if request.resume == "auto":
        return _auto(request, ids)
    if request.resume == "latest":
        latest = _latest(request, ids)
        return ResumeTarget(latest, _larger(request, latest, ids))
    if request.resume is not None:
        return ResumeTarget(_named(request, request.resume, ids))
    return ResumeTarget(None, _unfinished(request, ids))


def _auto(request: Request, ids: list[str]) -> ResumeTarget:
    """The experiment that was named, if it is there; else the latest unfinished one; else a new one."""
    if request.experiment_id is not None:
        named = Layout(request.directory, request.experiment_id)
        return ResumeTarget(named) if named.exists() else ResumeTarget(None, _unfinished(request, ids))
    unfinished, notices = _latest_unfinished(request, ids)
    if unfinished is None:
        return ResumeTarget(None, notices + _unfinished(request, ids))
    return ResumeTarget(unfinished, notices + _larger(request, unfinished, ids))


def _named(request: Request, experiment_id: str, ids: list[str]) -> Layout:
    layout = Layout(request.directory, experiment_id)
    if not layout.exists():
        hint = f"there are: {', '.join(ids[:5])}" if ids else f"there are none. {_without_resume(request)}"
        raise UsageError(f"no experiment {experiment_id!r} in {layout.logs}; {hint}")
    return layout


def _latest(request: Request, ids: list[str]) -> Layout:
    """The one of this name, where several scripts share a directory."""
    layouts = [Layout(request.directory, one) for one in ids]
    if not layouts:
        logs = Layout(request.directory, "").logs
        raise UsageError(f"No checkpoints found to resume from in {logs}. {_without_resume(request)}")
    return next((layout for layout in layouts if may_be_called(layout, request.name)), layouts[0])


def _without_resume(request: Request) -> str:
    """What to do where there is nothing to resume."""
    if request.interactive:
        return "Start without --resume, or give the --output of the earlier start."
    return "Leave out resume=, or give the output= of the earlier start."


def _latest_unfinished(request: Request, ids: list[str]) -> tuple[Layout | None, list[Notice]]:
    """An experiment whose files cannot be used is skipped with a warning, so that it does not block an
    unattended command. If none is unfinished, a notice names the finished one, since all of its jobs are
    about to run again."""
    notices: list[Notice] = []
    finished: list[Notice] = []
    for experiment_id in ids:
        try:
            found = known_exactly(Layout(request.directory, experiment_id))
        except UnusableCheckpoint as error:
            text = f"--resume auto skips {experiment_id}, which cannot be used: {error}"
            notices.append(("warning", text))
            continue
        if found.name not in ("", request.name):
            continue
        if found.left:
            return found.layout, notices
        if found.name and not finished:
            finished = [("info", _finished(request, found))]
    return None, notices + finished


def _finished(request: Request, found: KnownExperiment) -> str:
    """`experiment_1 is finished (3 completed, 1 failed): ...`, and how to resume that one."""
    experiment_id, counts = found.experiment_id, found.counts
    tries_again = counts.failed > found.cancelled
    more = tries_again and not request.settings(found.settings).retry_failed
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


def _unfinished(request: Request, ids: list[str]) -> list[Notice]:
    """Notices of a start without --resume about unfinished experiments: perhaps a resume was meant."""
    for experiment_id in ids:
        try:
            found = known_exactly(Layout(request.directory, experiment_id))
        except LonghaulError:
            continue  # a damaged experiment must not stop a new start
        if found.name not in ("", request.name):
            continue
        if not found.left:
            # It may be a small trial after which the unfinished one is not the latest any more.
            larger = larger_beside(found.layout, ids)
            return [_continue_it(larger[1])] if larger is not None and larger[1].left else []
        if is_held(found.layout.lock):
            text = (
                f"{experiment_id} is also being run, with {found.left:,} of {found.counts.total:,} jobs left"
            )
            return [("info", text)]
        return [_continue_it(found)]
    return []


def _continue_it(found: KnownExperiment) -> Notice:
    text = f"{found.experiment_id} is unfinished, with {found.left:,} of {found.counts.total:,} jobs left"
    return "info", f"{text}; continue it with --resume {found.experiment_id}"


def _larger(request: Request, layout: Layout, ids: list[str]) -> list[Notice]:
    """A notice if `latest` or `auto` took a small trial: the larger experiment that may have been meant."""
    found = larger_beside(layout, ids)
    if found is None:
        return []
    taken, other = found
    named = f"--resume {other.experiment_id}" if request.interactive else f'resume="{other.experiment_id}"'
    text = (
        f"{request.resume} is {taken.summary()}; there is also {other.summary()}: {named} continues that one"
    )
    return [("warning", text)]
