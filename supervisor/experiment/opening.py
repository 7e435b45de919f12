"""Opening an experiment: a new one, or an earlier one where it stopped.

Everything that may be refused is checked before anything is changed on disk: options, plan, lock, files of
earlier runs. Only then are files made or repaired.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import StorageError
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import AnyRecord, RunStarted, WorkerStarted
from supervisor.core.terms.settings import Settings, name_needs
from supervisor.core.terms.wording import count
from supervisor.experiment import code_changes, job_selection, provenance
from supervisor.experiment.code_changes import CodeHistory
from supervisor.experiment.deadline import Deadline, deadline_of
from supervisor.experiment.fitting.machine_totals import Machine, MachineFor, this_machine
from supervisor.experiment.job_selection import JobsToRerun, PilotSelection
from supervisor.experiment.plan_changes import judge_changes
from supervisor.experiment.planning import Plan, build_plan
from supervisor.experiment.reservation import ExperimentExists, refuse_existing, reserve
from supervisor.experiment.resume_target import Notice, resume_target
from supervisor.options.request import Request
from supervisor.options.script_options import namespace
from supervisor.storage.files.atomic_files import clear_temporaries, probe_directory
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from supervisor.storage.plan.plan_builder import EarlierPlan
from supervisor.storage.plan.plan_diff import Comparison, compare
from supervisor.storage.store import Store
from supervisor.system.capacity.cpu_limits import usable_cores
from supervisor.system.clock import utc_now
from supervisor.system.processes import boot_id
from supervisor.system.signals import Signals
from workers.values.tracebacks import encodable

if TYPE_CHECKING:
    from supervisor.experiment.fitting.unfit_jobs import Offer
    from supervisor.experiment.results_by_code import MadeBy
    from supervisor.storage.recovery.recovered_experiment import Recovered


class OpenedExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment that is ours (locked), with everything that a run needs. Nothing is added later.

    offered: jobs that the script has; more than the plan has with one per domain. mask: 1 for each job
    of the plan that this run may hand out. unselected: how many unfinished jobs it leaves out.
    offer: what there is for the jobs; None if none of them says what it needs.
    """

    layout: Layout
    settings: Settings
    options: dict[str, Any]  # the script's own
    store: Store
    position: Position
    offered: int
    mask: bytes
    unselected: int
    notices: list[Notice]
    deadline: Deadline | None = None
    offer: Offer | None = None
    resumed: bool = False
    retry: list[int] = []  # failed jobs that get one more attempt
    resets: list[AnyRecord] = []  # the records of `retry` and other jobs that are to run again
    code: CodeHistory | None = None  # None: a new experiment, with nothing to compare
    changes: list[str] = []  # of code and seed, in words
    survivors: list[tuple[int, float]] = []  # workers of earlier runs that may live: pid, start
    elsewhere: dict[int, WorkerStarted] = {}  # those that may live on other hosts, by incarnation

    @property
    def table(self) -> JobTable:
        return self.store.table


def open_experiment(
    request: Request, signals: Signals, machine_for: MachineFor = this_machine
) -> OpenedExperiment:
    """Find the experiment that is requested, or make it. `machine_for`: what there is for its jobs, by the settings;
    it may refuse them, and is asked before anything is on disk. Raises LonghaulError; Stopped if a signal
    comes while the script generates its jobs. `start_run` has to follow."""
    with _disk_errors_in_words(request.directory):
        target = resume_target(request)
        if target.layout is not None:
            return _open_earlier(request, target.layout, target.notices, signals, machine_for)
        try:
            return _open_new(request, target.notices, signals, machine_for)
        except ExperimentExists as taken:
            # `--resume auto` with an id means that experiment, also if another process has made it since the
            # last check: the same command may be started twice at once. The lock decides between the two.
            if request.resume != "auto" or isinstance(
                request.jobs, Iterator
            ):  # an iterator gives its jobs once
                raise
            return _open_earlier(request, taken.layout, [], signals, machine_for)


def start_run(request: Request, opened: OpenedExperiment) -> None:
    """Record that a run begins on it. Raises StorageError; the caller releases the store."""
    with _disk_errors_in_words(opened.layout.directory):
        opened.store.append([_run_started(request, opened), *opened.resets])


def _run_started(request: Request, opened: OpenedExperiment) -> RunStarted:
    history = opened.code or code_changes.first_run(
        provenance.code_of(request.function, setup=request.setup), opened.position.next_lease
    )
    return RunStarted(
        run=opened.position.run,
        at=utc_now(),
        settings=msgspec.to_builtins(opened.settings),
        options=opened.options,
        argv=[encodable(word) for word in request.command_line],
        host=provenance.host(),
        pid=os.getpid(),
        boot_id=boot_id(),
        process_start=provenance.process_start(),
        versions=provenance.versions(),
        code=history.code,
        codes=history.spans,
        accepted=history.accepted,
        entry=provenance.entry_of(request.function, request.setup),
        jobs=opened.table.wanted.count(1),
        offered=opened.offered,
        told=list(opened.store.history.reported_conversions),
        chosen=opened.mask.count(1),
        cores=usable_cores(),
        nodes=opened.settings.engine != "local" or opened.store.history.of_nodes,
    )


@contextlib.contextmanager
def _disk_errors_in_words(directory: Path) -> Iterator[None]:
    """An OSError becomes a StorageError that says what is safe and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # no fault of the disk
            raise
        failure = f"the disk failed under {directory}: {error}"
        raise StorageError.with_advice(failure, "start again or resume") from error


class _Terms(NamedTuple):
    """What this run goes by: settings and options of the request, over the remembered ones."""

    settings: Settings
    options: dict[str, Any]  # the script's own
    deadline: Deadline | None


def _terms(request: Request, settings: Mapping[str, Any], options: Mapping[str, Any]) -> _Terms:
    """`settings`, `options`: as remembered. Raises UsageError or TooLate for a deadline that leaves no time."""
    merged = request.settings(settings)
    return _Terms(merged, request.options(options), deadline_of(merged))


def _plan(
    request: Request,
    terms: _Terms,
    signals: Signals,
    earlier: EarlierPlan | None = None,
    known: JobTable | None = None,
) -> Plan:
    """`known`: jobs that stay in a plan that has not all of the script's."""
    all_tasks = terms.settings.all_tasks
    arguments = namespace(request.parser, terms.options)
    pick = PilotSelection(all_tasks=all_tasks, only=request.only, earlier=known)
    with signals.raising():
        return build_plan(
            request.function, request.jobs, arguments, all_tasks=all_tasks, pick=pick, earlier=earlier
        )


# -------------------------------------------------------------------------------- new


def _open_new(
    request: Request, notices: list[Notice], signals: Signals, machine_for: MachineFor
) -> OpenedExperiment:
    """Raises ExperimentExists if there is one of the id that was asked for."""
    terms = _terms(request, {}, {})
    if request.experiment_id is not None:
        refuse_existing(Layout(request.directory, request.experiment_id))
    plan = _plan(request, terms, signals)
    table = JobTable()
    plan.builder.fill(table)
    mask = job_selection.select(table, request.only)
    with signals.raising():
        machine = machine_for(terms.settings, needed=True)
    offer = _offer(table, terms.settings, machine, mask)
    layout, lock = reserve(request.directory, request.experiment_id, recording=request.recording)
    store = _create_store(request, terms, layout, lock, plan, table)
    return OpenedExperiment(
        layout=layout,
        settings=terms.settings,
        options=terms.options,
        store=store,
        position=Position(run=1),
        offered=plan.offered,
        mask=mask,
        unselected=job_selection.left_out(table, mask),
        notices=[*notices, *_warnings_of(lock)],
        deadline=terms.deadline,
        offer=offer,
    )


def _offer(table: JobTable, settings: Settings, machine: Machine, first: bytes | None = None) -> Offer | None:
    """What there is for the jobs; None if none of them says what it needs. `first`: the mask of a first start,
    where UsageError is raised for what can never be given."""
    if not table.own and not name_needs(settings):
        return None
    from supervisor.experiment.fitting import unfit_jobs

    if first is not None:
        return unfit_jobs.first_offer(table, first, settings, machine)
    return unfit_jobs.later_offer(table, settings, machine)


def _create_store(
    request: Request, terms: _Terms, layout: Layout, lock: Lock, plan: Plan, table: JobTable
) -> Store:
    """The files of a new experiment; if they cannot be made, the reservation of its id is given up."""
    disk = Disk()
    try:
        place = layout.logs if request.recording else layout.results_directory
        probe_directory(disk, place, layout.experiment_id)
        store = Store.create(
            layout,
            name=request.name,
            plan=plan.builder,
            table=table,
            lock=lock,
            settings=msgspec.to_builtins(terms.settings),
            options=terms.options,
            ephemeral=not request.recording,
        )
        if request.recording:
            clear_temporaries(layout.replaced)  # of a start that was killed before there was a journal
    except BaseException:
        lock.release()
        if not request.recording:
            with contextlib.suppress(OSError):  # it was our reservation; not empty, it stays
                layout.results_directory.rmdir()
        raise
    return store


def _warnings_of(lock: Lock) -> list[Notice]:
    return [("warning", lock.notice)] if lock.notice else []


# ---------------------------------------------------------------------------- earlier


class _Earlier(NamedTuple):
    """An earlier experiment, and the script's present plan and code. Nothing on disk is changed yet."""

    recovered: Recovered
    terms: _Terms
    machine: Machine
    plan: Plan
    comparison: Comparison
    last_run: RunStarted
    seed: Any  # of that run; None if it is not known
    code: dict[str, Any]  # as it is now
    made_by: MadeBy
    damage: list[Notice]  # of its files
    changes: list[Notice]  # of the plan


def _open_earlier(
    request: Request, layout: Layout, notices: list[Notice], signals: Signals, machine_for: MachineFor
) -> OpenedExperiment:
    """Check everything that may be refused, then repair and extend the files."""
    disk = Disk()
    lock = Lock.acquire(layout.lock, layout.experiment_id)
    try:
        probe_directory(disk, layout.logs, layout.experiment_id)
        earlier = _survey_and_compare(request, layout, disk, signals, machine_for)
        store = _open_store(request, earlier, lock)
        return _resumed(
            request, earlier, store, [*notices, *earlier.damage, *_warnings_of(lock), *earlier.changes]
        )
    except BaseException:
        lock.release()
        raise


def _survey_and_compare(
    request: Request, layout: Layout, disk: Disk, signals: Signals, machine_for: MachineFor
) -> _Earlier:
    """Raises UsageError if the script's jobs do not fit those of the experiment."""
    from supervisor.experiment.results_by_code import MadeBy
    from supervisor.storage.recovery.survey import survey

    recovered = survey(layout, disk)
    terms = _terms(request, recovered.settings, recovered.options)
    repeatable = recovered.plan.repeatable(recovered.table) if recovered.plan is not None else None
    # After all tasks, --no-all-tasks means one per domain again.
    known = recovered.table if recovered.settings.get("all_tasks") is False else None
    plan = _plan(request, terms, signals, repeatable, known)
    comparison = compare(recovered.plan, recovered.table, plan.builder)
    changes = judge_changes(request, recovered, plan, comparison)
    with signals.raising():
        machine = machine_for(
            terms.settings, needed=not _is_done(request, recovered, comparison, terms.settings)
        )
    if "gpus" in request.settings_now:
        from supervisor.experiment.fitting.unfit_jobs import refuse_missing_devices

        refuse_missing_devices(terms.settings, machine)
    last_run = recovered.history.run_started or RunStarted(0, "")
    return _Earlier(
        recovered=recovered,
        terms=terms,
        machine=machine,
        plan=plan,
        comparison=comparison,
        last_run=last_run,
        seed=recovered.history.settings.get("seed"),
        code=provenance.code_of(request.function, last_run.code, request.setup),
        made_by=MadeBy(recovered),
        damage=[("warning", finding) for finding in recovered.findings],
        changes=changes,
    )


def _is_done(request: Request, recovered: Recovered, comparison: Comparison, settings: Settings) -> bool:
    """Whether certainly nothing is left to run: then nobody needs what it would run on."""
    if request.rerun or comparison.new or comparison.returned or comparison.changed:
        return False
    counts = recovered.table.counts()
    return counts.completed + (0 if _retries_failed(request, settings) else counts.failed) == counts.total


def _retries_failed(request: Request, settings: Settings) -> bool:
    return settings.retry_failed and request.resume != "auto"


def _open_store(request: Request, earlier: _Earlier, lock: Lock) -> Store:
    layout = earlier.recovered.layout
    store = Store.open(
        layout,
        earlier.recovered,
        earlier.plan.builder,
        lock=lock,
        name=request.name,
        settings=msgspec.to_builtins(earlier.terms.settings),
        options=earlier.terms.options,
        comparison=earlier.comparison,
        keep_params=request.changed != "rerun",
    )
    clear_temporaries(layout.replaced)
    return store


def _resumed(request: Request, earlier: _Earlier, store: Store, notices: list[Notice]) -> OpenedExperiment:
    """Which jobs this run hands out, and what has changed since the last one."""
    table, terms = store.table, earlier.terms
    mask = job_selection.select(table, request.only)
    again = _jobs_again(request, earlier, table, mask)
    position = store.history.position()
    position.run += 1
    anew = again.changed + again.rerun
    counts = earlier.made_by.counts(anew)
    code = code_changes.go_on(
        earlier.last_run.code,
        earlier.last_run.codes,
        earlier.last_run.accepted,
        earlier.code,
        next_lease=position.next_lease,
        counts=counts,
        accept=request.accept_code,
    )
    seeds = provenance.seed_changed(earlier.seed, terms.settings, sum(counts.values()))
    if anew:
        store.states.drop(table.ids[job] for job in anew)
    resets = job_selection.reset_jobs(table, again)
    offer = _offer(table, terms.settings, earlier.machine)
    return OpenedExperiment(
        layout=store.layout,
        settings=terms.settings,
        options=terms.options,
        store=store,
        position=position,
        offered=earlier.plan.offered,
        mask=mask,
        unselected=job_selection.left_out(table, mask),
        notices=[
            *notices,
            *code.notices,
            *(("warning", text) for text in seeds),
            *_params_changed(again),
            *([("warning", offer.missing)] if offer is not None and offer.missing else []),
        ],
        deadline=terms.deadline,
        offer=offer,
        resumed=True,
        retry=again.retry,
        resets=resets,
        code=code,
        changes=[*code.warnings, *seeds],
        survivors=store.history.survivors(boot_id()),
        elsewhere=store.history.elsewhere(boot_id()),
    )


def _jobs_again(request: Request, earlier: _Earlier, table: JobTable, mask: bytes) -> JobsToRerun:
    rerun_changed = request.changed == "rerun"
    return job_selection.jobs_again(
        table,
        mask,
        rerun=request.rerun,
        changed=[table.numbers[job.id] for job in earlier.comparison.changed] if rerun_changed else [],
        retry_failed=_retries_failed(request, earlier.terms.settings),
        more=earlier.plan.offered > earlier.plan.selected,
        made=earlier.made_by,
        version=earlier.code["version"],
    )


def _params_changed(again: JobsToRerun) -> list[Notice]:
    if not again.changed:
        return []
    return [("info", f"other params than before: {count(len(again.changed), 'job')}, to be run again")]
