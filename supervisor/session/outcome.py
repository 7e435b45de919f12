"""How one start of the supervisor ended. Data only; messages about it are made by the callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import BROKE_OFF, OK, SOME_FAILED, STOPPED_AS_ASKED, LonghaulError
from supervisor.core.terms.jobs import FAILED

if TYPE_CHECKING:
    from supervisor.core.scheduling.scheduler import Scheduler
    from supervisor.experiment.opening import OpenedExperiment


class RunOutcome(msgspec.Struct, frozen=True):
    """The end of one run.

    exit_code: 0 to 76, see `core.terms.errors`. signal: the one that stopped the run, of which
    a script then dies, so that its shell sees 130 or 143. report: the `Report` of the
    experiment, None when there is nothing to report (`--list-checkpoints`, `--debug`).
    options: the script's own, in their JSON form.
    """

    exit_code: int = 0
    signal: int | None = None
    report: Any = None
    options: dict[str, Any] = {}


def cancelled(table: JobTable) -> int:
    """How many jobs of the plan have failed because they were cancelled with `longhaul ctl`."""
    return sum(1 for job, how in table.outcome.items() if how == "cancelled" and table.wanted[job])


def state_word(scheduler: Scheduler, opened: OpenedExperiment, error: LonghaulError | None) -> str:
    """finished, interrupted (by a signal), stopped (early, without one), or unfinished: all that
    --only chose and that can run here is done, other jobs are left."""
    if scheduler.drain.signal is not None:
        return "interrupted"
    counts = opened.table.counts()
    left = counts.left
    if error is not None or left > opened.unselected + len(scheduler.unfit_jobs()):
        return "stopped"
    return "unfinished" if left else "finished"


def exit_of(
    scheduler: Scheduler, opened: OpenedExperiment, error: LonghaulError | None
) -> tuple[int, int | None]:
    """The exit code with which the run ends, and the signal that stopped it."""
    if error is not None:
        return error.exit_code, None
    signum = scheduler.drain.signal
    if signum is not None:
        return 128 + signum, signum
    if state_word(scheduler, opened, error) == "stopped":
        return (STOPPED_AS_ASKED if scheduler.drain.asked else BROKE_OFF), None
    if scheduler.unfit_jobs():
        return BROKE_OFF, None
    table, mask = opened.table, opened.mask
    failed = FAILED in table.state and any(
        state == FAILED and chosen for state, chosen in zip(table.state, mask, strict=True)
    )
    return (SOME_FAILED if failed else OK), None
