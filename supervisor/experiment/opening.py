"""Opening an experiment: a new one, or an earlier one where it stopped.

Everything that may be refused is looked at before anything is changed on disk: options,
plan, lock, what is left of earlier runs. Only then files are made or repaired.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import StorageError
from supervisor.core.terms.experiment_id import check_id
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import AnyRecord, RunStarted
from supervisor.core.terms.settings import Settings
from supervisor.core.terms.wording import count
from supervisor.experiment import code_changes, job_selection, provenance, resume_target
from supervisor.experiment.claim import Taken, claim, refuse_taken
from supervisor.experiment.code_changes import CodeHistory
from supervisor.experiment.deadline import Deadline, deadline_of
from supervisor.experiment.job_selection import Pick, _resets
from supervisor.experiment.plan_changes import refuse_changes, tell_changes
from supervisor.experiment.planning import Plan, build_plan
from supervisor.experiment.resume_target import Notice
from supervisor.options.request import Request, merge_options, merge_settings
from supervisor.options.script_options import namespace
from supervisor.storage.files.atomic_files import clear_temporaries, probe_directory
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from supervisor.storage.plan.plan_builder import EarlierPlan
from supervisor.storage.plan.plan_diff import compare
from supervisor.storage.store import Store
from supervisor.system.clock import utc_now
from supervisor.system.cpu_limits import usable_cores
from supervisor.system.signals import Signals
from workers.values.tracebacks import encodable


class OpenedExperiment(msgspec.Struct):
    """An experiment that is ours (locked), with everything that a run needs."""

    layout: Layout
    settings: Settings
    options: dict[str, Any]  # the script's own
    store: Store
    position: Position
    offered: int  # jobs that the script has; more than the plan with one per domain
    retry: list[int]  # failed jobs that get one more attempt
    selected: bytes
    notices: list[Notice]
    unselected: int = 0
    code: CodeHistory | None = None  # where it had to be compared
    resets: list[AnyRecord] = []  # the records of `retry` and other jobs that are to run again
    deadline: Deadline | None = None
    resumed: bool = False
    changes: list[str] = []  # of code and seed, in words
    survivors: list[tuple[int, float]] = []  # workers of earlier runs that may live: pid, start

    @property
    def table(self) -> JobTable:
        return self.store.table


def open_experiment(request: Request, directory: Path, signals: Signals) -> OpenedExperiment:
    """Find out what is asked for, and open it. Raises LonghaulError; Stopped if a signal
    comes while the script gives its jobs. `start_run` has to follow."""
    with _in_words(directory):
        layout, notices = _earlier(request, directory)
        if layout is not None:
            opened = _open_earlier(request, layout, Disk(), signals)
        else:
            opened = _open_new_or_just_made(request, directory, Disk(), signals)
        opened.notices[:0] = notices
        return opened


def start_run(request: Request, opened: OpenedExperiment) -> None:
    """Record that a run begins on it. Raises StorageError; the caller releases the store."""
    with _in_words(opened.layout.directory):
        history = opened.code or code_changes.first_run(
            provenance.code_of(request.function), opened.position.next_lease
        )
        started = RunStarted(
            run=opened.position.run,
            at=utc_now(),
            settings=msgspec.to_builtins(opened.settings),
            options=opened.options,
            argv=[encodable(word) for word in request.command_line or sys.orig_argv],
            host=provenance.host(),
            pid=os.getpid(),
            boot_id=provenance.boot_id(),
            process_start=provenance.process_start(),
            versions=provenance.versions(),
            code=history.code,
            codes=history.spans,
            accepted=history.accepted,
            entry=provenance.entry_of(request.function, request.setup),
            jobs=sum(opened.table.wanted),
            offered=opened.offered,
            told=list(opened.store.history.reported_conversions),
            chosen=opened.selected.count(1),
            cores=usable_cores(),
        )
        opened.store.append([started, *opened.resets])
        opened.unselected = job_selection.left_out(opened.table, opened.selected)


@contextlib.contextmanager
def _in_words(directory: Path) -> Iterator[None]:
    """A disk that fails is told in words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # no fault of the disk
            raise
        raise StorageError(
            f"the disk failed under {directory}: {error}. What was recorded is safe; see to the disk, "
            f"then start again or resume."
        ) from error


def _earlier(request: Request, directory: Path) -> tuple[Layout | None, list[Notice]]:
    """The experiment to go on with, None for a new one; and what there is to say."""
    if request.resume is None:
        return None, []
    if request.resume != "auto":
        layout = resume_target.earlier(request.resume, directory, request.name)
        return layout, resume_target.mention_larger(request, layout)
    if request.experiment_id is None:
        unfinished, notices = resume_target.latest_unfinished(request, directory)
        return unfinished, notices + resume_target.mention_larger(request, unfinished)
    named = Layout(directory, check_id(request.experiment_id))
    return named if named.exists() else None, []


def _plan(
    request: Request,
    settings: Settings,
    options: dict[str, Any],
    signals: Signals,
    earlier: EarlierPlan | None = None,
    known: JobTable | None = None,
) -> Plan:
    """`known`: jobs that stay in a plan that has not all of the script's."""
    arguments = namespace(request.parser, options)
    pick = Pick(all_tasks=settings.all_tasks, only=request.only, earlier=known)
    with signals.raising():
        return build_plan(
            request.function,
            request.jobs,
            arguments,
            all_tasks=settings.all_tasks,
            pick=pick,
            earlier=earlier,
        )


# -------------------------------------------------------------------------------- new


def _open_new_or_just_made(
    request: Request, directory: Path, disk: Disk, signals: Signals
) -> OpenedExperiment:
    """`--resume auto` with an id means that experiment, also if somebody has made it since we
    looked, as when the same command is given twice at once. Its lock tells whose it is."""
    try:
        return _open_new(request, directory, disk, signals)
    except Taken as taken:
        if request.resume != "auto" or isinstance(request.jobs, Iterator):  # it gives its jobs once
            raise
        return _open_earlier(request, taken.layout, disk, signals)


def _open_new(request: Request, directory: Path, disk: Disk, signals: Signals) -> OpenedExperiment:
    experiment_id = request.experiment_id
    settings = merge_settings(request, None)
    deadline = deadline_of(settings)
    options = merge_options(request, None)
    if experiment_id is not None:
        refuse_taken(Layout(directory, check_id(experiment_id)))
    plan = _plan(request, settings, options, signals)
    table = JobTable()
    plan.builder.fill(table)
    selected = job_selection.select(table, request.only)
    notices = resume_target.mention_unfinished(directory, request.name) if request.recording else []
    layout, lock = claim(directory, experiment_id, recording=request.recording)
    notices += [("warning", lock.notice)] if lock.notice else []
    try:
        place = layout.logs if request.recording else layout.results_directory
        probe_directory(disk, place, layout.experiment_id)
        store = Store.create(
            layout,
            name=request.name,
            plan=plan.builder,
            table=table,
            lock=lock,
            settings=msgspec.to_builtins(settings),
            options=options,
            ephemeral=not request.recording,
        )
        if request.recording:
            _clear_temporaries(layout)  # of a start that was killed before there was a journal
    except BaseException:
        lock.release()
        if not request.recording:
            with contextlib.suppress(OSError):  # it was our claim; not empty, it stays
                layout.results_directory.rmdir()
        raise
    return OpenedExperiment(
        layout=layout,
        settings=settings,
        options=options,
        store=store,
        position=Position(run=1),
        offered=plan.offered,
        retry=[],
        selected=selected,
        notices=notices,
        deadline=deadline,
    )


def _clear_temporaries(layout: Layout) -> None:
    """What a killed run left half written. The lock must be ours."""
    clear_temporaries(
        (
            layout.checkpoint,
            layout.index,
            layout.journal,
            layout.plan,
            layout.progress,
            layout.final,
            layout.statistics,
        )
    )


# ---------------------------------------------------------------------------- earlier


def _open_earlier(request: Request, layout: Layout, disk: Disk, signals: Signals) -> OpenedExperiment:
    lock = Lock.acquire(layout.lock, layout.experiment_id)
    try:
        probe_directory(disk, layout.logs, layout.experiment_id)
        return _go_on(request, layout, disk, lock, signals)
    except BaseException:
        lock.release()
        raise


def _go_on(request: Request, layout: Layout, disk: Disk, lock: Lock, signals: Signals) -> OpenedExperiment:
    from supervisor.experiment.results_by_code import MadeBy
    from supervisor.storage.recovery.survey import survey

    recovered = survey(layout, disk)
    settings = merge_settings(request, recovered.history.settings)
    deadline = deadline_of(settings)
    options = merge_options(request, recovered.history.options)
    earlier = recovered.plan.repeatable(recovered.table) if recovered.plan is not None else None
    # After all tasks, --no-all-tasks means one per domain again.
    known = recovered.table if recovered.settings.get("all_tasks") is False else None
    plan = _plan(request, settings, options, signals, earlier, known)
    comparison = compare(recovered.plan, recovered.table, plan.builder)
    refuse_changes(request, recovered, plan, comparison)
    started = recovered.history.run_started or RunStarted(0, "")
    code = provenance.code_of(request.function, started.code)
    made = MadeBy(recovered)
    settings_before = recovered.history.settings
    notices: list[Notice] = [("warning", finding) for finding in recovered.findings]
    notices += [("warning", lock.notice)] if lock.notice else []
    notices += tell_changes(comparison, plan, recovered)
    store = Store.open(
        layout,
        recovered,
        plan.builder,
        lock=lock,
        name=request.name,
        settings=msgspec.to_builtins(settings),
        options=options,
        comparison=comparison,
        keep_params=request.changed != "rerun",
    )
    _clear_temporaries(layout)
    table = store.table
    selected = job_selection.select(table, request.only)
    changed = [table.numbers[job.id] for job in comparison.changed] if request.changed == "rerun" else []
    retry_failed = settings.retry_failed and request.resume != "auto"
    again = job_selection.jobs_again(
        table,
        request,
        selected,
        changed=changed,
        retry_failed=retry_failed,
        more=plan.offered > plan.selected,
        made=made,
        version=code["version"],
    )
    position = store.history.position()
    position.run += 1
    opened = OpenedExperiment(
        layout=layout,
        settings=settings,
        options=options,
        store=store,
        position=position,
        offered=plan.offered,
        retry=again.retry,
        selected=selected,
        notices=notices,
        deadline=deadline,
        resumed=True,
        survivors=recovered.history.survivors(provenance.boot_id()),
    )
    anew = again.changed + again.rerun
    counts = made.counts(anew)
    opened.code = code_changes.go_on(
        started.code,
        started.codes,
        started.accepted,
        code,
        next_lease=position.next_lease,
        counts=counts,
        accept=request.accept_code,
    )
    seeds = provenance.seed_changed(settings_before, settings, sum(counts.values()))
    opened.changes = [*opened.code.warnings, *([seeds] if seeds else [])]
    notices += opened.code.notices
    notices += [("warning", seeds)] if seeds else []
    if again.changed:
        notices.append(
            ("info", f"other params than before: {count(len(again.changed), 'job')}, to be run again")
        )
    if anew:
        store.states.drop(table.ids[job] for job in anew)
    opened.resets = _resets(table, again)
    return opened
