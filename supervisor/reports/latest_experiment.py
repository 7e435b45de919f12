"""What is known of an experiment beside others, and whether the latest one is a stray trial: a small part of a
larger one.

After a trial of a few jobs, `latest` is the trial, though the user probably means the larger run before it.
`latest` still means the trial; this module finds the experiment that may have been meant instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
_MOST = 100  # experiments that are compared
_SMALL = 2  # times as large as the latest one


class KnownExperiment(msgspec.Struct, frozen=True):
    """What is known of an experiment that is not opened: how large it is, and how much of it is done.

    asked: jobs that its last run was asked for. settings: as remembered. cancelled: of the failed, those that a
    resume does not try again; 0 if only the checkpoint was read.
    """

    layout: Layout
    name: str
    counts: Counts
    saved_at: str
    asked: int
    settings: dict[str, Any]
    cancelled: int = 0

    @property
    def experiment_id(self) -> str:
        return self.layout.experiment_id

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


def larger_beside(
    taken: Layout, ids: Sequence[str] | None = None
) -> tuple[KnownExperiment, KnownExperiment] | None:
    """The latest experiment, and a larger one of the same name that may have been meant: unfinished, or saved
    in the week before it. None if there is none. `ids`: what `experiments` gave, if that is known."""
    beside = experiments(taken.directory) if ids is None else ids
    known = [one for one in beside[:_MOST] if one != taken.experiment_id]
    latest = _known(taken) if known else None
    if latest is None:
        return None
    others = (_known(Layout(taken.directory, one)) for one in known)
    larger = [
        other
        for other in others
        if other is not None
        and other.name == latest.name
        and other.size >= _SMALL * latest.size
        and (other.left or _is_recent(other, latest))
    ]
    return (latest, max(larger, key=lambda one: (one.size, one.saved_at))) if larger else None


def _is_recent(other: KnownExperiment, latest: KnownExperiment) -> bool:
    try:
        return seconds_between(other.saved_at, latest.saved_at) < _RECENT
    except (ValueError, TypeError):  # no time, or one without a zone
        return False


def _known(layout: Layout) -> KnownExperiment | None:
    """By the checkpoint, quickly; None for an experiment that cannot be read."""
    header = peek(Disk(), layout.checkpoint)
    if header is not None:
        asked = _asked(header.run_started, header.counts)
        return KnownExperiment(layout, header.name, header.counts, header.saved_at, asked, header.settings)
    try:
        return known_exactly(layout)
    except LonghaulError:
        return None


def known_exactly(layout: Layout) -> KnownExperiment:
    """By all of its files. Raises LonghaulError if they cannot be used."""
    from supervisor.storage.recovery.survey import survey

    found = survey(layout)
    try:
        counts, history = found.counts(), found.history
        asked = _asked(history.run_started, counts)
        cancelled = sum(how == "cancelled" for how in found.table.outcome.values())
        saved_at = found.statistics.last_at
        return KnownExperiment(layout, found.name, counts, saved_at, asked, history.settings, cancelled)
    finally:
        found.close()


def may_be_called(layout: Layout, name: str) -> bool:
    """By the checkpoint, quickly; where that cannot be read, the name is checked on opening."""
    header = peek(Disk(), layout.checkpoint)
    return header is None or header.name in ("", name)


def _asked(started: RunStarted | None, counts: Counts) -> int:
    return started.chosen if started is not None and started.chosen else counts.total
