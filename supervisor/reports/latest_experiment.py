"""Whether the latest experiment is a stray trial: a small part of a larger one beside it.

After a trial of a few jobs, `latest` is the trial, though the user probably means the night's run.
The latest one is what `latest` means all the same; here is found out what else may have been meant.
"""

from __future__ import annotations

import msgspec

from supervisor.core.state.statistics import seconds_between
from supervisor.core.terms.errors import LonghaulError
from supervisor.core.terms.jobs import Counts
from supervisor.core.terms.records import RunStarted
from supervisor.reports.experiment_list import experiments
from supervisor.storage.checkpoint.checkpoint_format import peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout

_RECENT = 7 * 86_400.0  # seconds
_MOST = 100  # experiments that are looked at
_SMALL = 2  # so many times larger another one has to be


class ExperimentSize(msgspec.Struct):
    """How large an experiment is and how much of it is done."""

    experiment_id: str
    name: str
    counts: Counts
    saved_at: str
    asked: int  # jobs that its last run was asked for

    @property
    def done(self) -> int:
        return self.counts.completed + self.counts.failed

    @property
    def left(self) -> int:
        return self.counts.left

    @property
    def size(self) -> int:
        """Jobs that it was about: a trial by --only is small, however many the plan has."""
        return max(self.done, self.asked)

    def summary(self) -> str:
        """`experiment_1, 60 of 81 jobs done`."""
        jobs = "job" if self.counts.total == 1 else "jobs"
        return f"{self.experiment_id}, {self.done:,} of {self.counts.total:,} {jobs} done"


def larger_beside(taken: Layout) -> tuple[ExperimentSize, ExperimentSize] | None:
    """The one that was taken, and the larger one of the same name beside it that may have been
    meant: unfinished, or saved in the week before. None if there is none."""
    known = [one for one in experiments(taken.directory)[:_MOST] if one != taken.experiment_id]
    latest = _standing(taken) if known else None
    if latest is None:
        return None
    others = (_standing(Layout(taken.directory, one)) for one in known)
    larger = [
        other
        for other in others
        if other is not None
        and other.name == latest.name
        and other.size >= _SMALL * latest.size
        and (other.left or _is_recent(other, latest))
    ]
    return (latest, max(larger, key=lambda one: (one.size, one.saved_at))) if larger else None


def _is_recent(other: ExperimentSize, latest: ExperimentSize) -> bool:
    try:
        return seconds_between(other.saved_at, latest.saved_at) < _RECENT
    except (ValueError, TypeError):  # no time, or one without a zone
        return False


def _standing(layout: Layout) -> ExperimentSize | None:
    """By the checkpoint, quickly; None for an experiment that cannot be read."""
    header = peek(Disk(), layout.checkpoint)
    if header is not None:
        asked = _asked(header.run_started, header.counts)
        return ExperimentSize(layout.experiment_id, header.name, header.counts, header.saved_at, asked)
    from supervisor.storage.recovery.survey import survey

    try:
        found = survey(layout)
    except LonghaulError:
        return None
    counts = found.counts()
    asked = _asked(found.history.run_started, counts)
    found.close()
    return ExperimentSize(layout.experiment_id, found.name, counts, found.statistics.last_at, asked)


def _asked(started: RunStarted | None, counts: Counts) -> int:
    return started.chosen if started is not None and started.chosen else counts.total
