"""Messages about a run as a whole: its first line, errors, the summary, the commands that may come next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from itertools import compress
from typing import TYPE_CHECKING

import msgspec

from supervisor.core.state.snapshot import FailureSnapshot, RunSnapshot
from supervisor.core.terms.errors import LonghaulError
from supervisor.core.terms.jobs import FAILED, INTERRUPTED, PENDING
from supervisor.core.terms.wording import count
from supervisor.options.request import Request
from supervisor.session.outcome import RunOutcome, cancelled, state_word
from supervisor.storage.files.layout import Layout
from supervisor.system.clock import utc_now
from supervisor.views.console import print_lines_until

if TYPE_CHECKING:
    from supervisor.core.scheduling.scheduler import Scheduler
    from supervisor.experiment.opening import OpenedExperiment
    from supervisor.reports.report import Report


_IS_UNFINISHED = bytes(state in (PENDING, INTERRUPTED) for state in range(256))


def opening_line(request: Request, opened: OpenedExperiment, slots: int) -> str:
    """How many jobs and workers, and what a resume keeps, in one line."""
    table, counts = opened.table, opened.table.counts()
    workers = count(min(slots, max(1, opened.mask.count(1))), "worker")
    line = f"{request.name} {opened.layout.experiment_id}: {_chosen_jobs(request, opened)}, {workers}"
    if opened.resumed:
        left = counts.left - len(opened.retry) - opened.unselected
        line += f"; resuming: {counts.completed:,} completed, "
        line += f"{len(opened.retry):,} failed to try again, " if opened.retry else ""
        line += f"{left:,} to run" if left or opened.retry else "nothing left to run"
        called_off = cancelled(table)
        if kept := counts.failed - called_off:
            stays = "stays as it is" if kept == 1 else "stay as they are"
            again = _retry_failed(request, opened)
            why = f" ({again} tries again)" if again else " (left out by --only)" if request.only else ""
            line += f"; {kept:,} failed {stays}{why}"
        if called_off:
            line += f"; {called_off:,} cancelled (--rerun JOB tries again)"
    return line


def _retry_failed(request: Request, opened: OpenedExperiment) -> str:
    """The options of a resume that retries failed jobs: `auto` never does, whatever its other options."""
    options = {"--resume": opened.layout.experiment_id} if request.resume == "auto" else {}
    if not opened.settings.retry_failed:
        options["--retry-failed"] = ""
    if request.interactive:
        return " ".join(f"{option} {value}".strip() for option, value in options.items())
    named = [f'resume="{value}"' if value else "retry_failed=True" for value in options.values()]
    return ", ".join(named)


def workers_at_work(opened: OpenedExperiment, slots: int) -> int:
    """How many workers will be busy: not more than there are jobs to run."""
    unfinished: bytearray = opened.table.state.translate(_IS_UNFINISHED)
    if opened.mask.count(1) == len(unfinished):  # of a million jobs: 1 ms instead of 20
        return min(slots, unfinished.count(1))
    return min(slots, sum(compress(unfinished, opened.mask)))


def _chosen_jobs(request: Request, opened: OpenedExperiment) -> str:
    """How many of the script's jobs this run has, and which option selected them."""
    table, total = opened.table, opened.table.wanted.count(1)
    if request.only:
        return f"{opened.mask.count(1):,} of {count(opened.offered, 'job')}, chosen by --only"
    if not _is_pilot(opened):
        return count(total, "job")
    domains = [
        domain for domain, wanted in zip(table.domain_of, table.wanted, strict=True) if domain and wanted
    ]
    named = " and those that --only has named" if len(set(domains)) < len(domains) else ""
    return f"{total:,} of {opened.offered:,} tasks, one per domain{named}"


def _is_pilot(opened: OpenedExperiment) -> bool:
    """Whether the script has more jobs than the experiment, as `longhaul list` shows it."""
    return not opened.settings.all_tasks and opened.offered > opened.table.wanted.count(1)


def resume_with(request: Request, experiment_id: str, *extra: str) -> str:
    from supervisor.views.suggested_commands import resume_command

    command_line = request.command_line if request.interactive else []
    return resume_command(command_line, request.arguments, experiment_id, extra, taken=request.taken)


def resume_hint(request: Request, opened: OpenedExperiment) -> str:
    """How to resume a run that is being stopped."""
    if not request.recording:
        return "this run cannot be resumed (--no-resume): unfinished jobs have to be started again"
    return f"resume later with: {resume_with(request, opened.layout.experiment_id)}"


def after_finish(request: Request, outcome: RunOutcome, error: Exception) -> str:
    """The message after an error in the script's `finish`: the run itself was over by then."""
    report = outcome.report
    where = os.path.abspath(os.fsdecode(getattr(error, "filename", None) or ""))
    if isinstance(error, IsADirectoryError) and where == str(report.directory) and request.interactive:
        option = request.with_option_names("--output")
        return (
            f"{where} is the directory of longhaul's files, since it takes {option} as well: give main() the "
            f"script's parser (parser=...). {_results_and_next(request, report)}"
        )
    return _results_and_next(request, report)


def _results_and_next(request: Request, report: Report) -> str:
    text = f"The results are safe, in {Layout(report.directory, report.experiment_id).final}."
    if not request.recording:
        return text
    return f"{text} Fix finish(), then call it again with: {resume_with(request, report.experiment_id)}"


def no_workers(request: Request, opened: OpenedExperiment, failure: str) -> str:
    """The error when no worker could be started. `failure`: what the last one reported."""
    text = f"no worker could start; its last error:\n{failure}"
    if not request.recording:
        return f"{text}\nFix this, then start again."
    return f"{text}\nFix this, then resume with: {resume_with(request, opened.layout.experiment_id)}"


def print_summary(
    request: Request,
    opened: OpenedExperiment,
    snapshot: RunSnapshot,
    report: Report | None,
    retried: list[FailureSnapshot],
    given_up: Callable[[], bool],
    events: Sequence[str] = (),
) -> None:
    """At most 24 lines on stderr, where the run's own lines go. `retried`: crashes of this
    run whose jobs ran again; what failed for good is in the report. `given_up`: whether to stop waiting for a
    terminal that is blocked. `events`: what happened to the run as a whole."""
    from supervisor.views.summary import summary

    if snapshot.state == "finished" and _is_pilot(opened):
        snapshot = msgspec.structs.replace(snapshot, state="pilot done")
    text = summary(
        snapshot,
        [*_failures(report), *retried],
        commands=_commands(request, opened, snapshot),
        paths=_paths(request, opened),
        events=events,
        width=_width(),
    )
    print_lines_until(sys.stderr, request.with_option_names(text), given_up)


def _width() -> int:
    """Columns of the terminal; None if stderr is none."""
    try:
        has_width = sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        has_width = False
    return shutil.get_terminal_size((100, 24)).columns if has_width else sys.maxsize


def events_of(opened: OpenedExperiment, scheduler: Scheduler) -> list[str]:
    """What happened to this run as a whole, the most important first."""
    from supervisor.views.summary import overnight_lines

    drain = scheduler.drain
    stopped = drain.begun and state_word(scheduler, opened, None) == "stopped"
    early = [f"stopped early: {drain.reason}"] if stopped else []
    left = [f"left pending: {text}. Offer more when you resume"] if (text := unfit(scheduler)) else []
    return early + left + opened.changes + overnight_lines(opened.store.history.incidents, utc_now())


def unfit(scheduler: Scheduler) -> str:
    """Which jobs of this run cannot run with what there is, and why; "" if all can."""
    placement, jobs = scheduler.dispatcher.placement, scheduler.unfit_jobs()
    if placement is None or not jobs:
        return ""
    from supervisor.core.places.shortages import describe_unfit

    totals = placement.totals()
    return describe_unfit(scheduler.table, jobs, placement.kinds, *totals, of_nodes=placement.of_nodes)


def _failures(report: Report | None) -> list[FailureSnapshot]:
    """The failed jobs; none if they cannot be read because the disk has failed."""
    try:
        return report.failures() if report is not None else []
    except (OSError, LonghaulError):
        return []


def _paths(request: Request, opened: OpenedExperiment) -> list[tuple[str, str]]:
    from supervisor.views.suggested_commands import shown

    layout = opened.layout
    paths = [("results", shown(str(layout.final))), ("statistics", shown(str(layout.statistics)))]
    if request.recording:
        paths.append(("job output", shown(str(layout.output_directory))))
    return paths


def _command_for_failed(request: Request, opened: OpenedExperiment, job_id: str) -> tuple[str, str]:
    """(label, command) that runs a failed job again: `longhaul replay`, which imports the script as a worker
    does. With --debug the code under the guard has run, so a job that fails without it would succeed."""
    layout = opened.layout
    started = opened.store.history.run_started
    if started is None or "function" not in started.entry:  # a notebook, a prompt
        return "debug the first", resume_with(request, layout.experiment_id, "--debug", job_id)
    from supervisor.views.suggested_commands import longhaul_command

    arguments = [*(["--"] if job_id.startswith("-") else []), job_id, str(layout.results_directory)]
    return "replay the first", longhaul_command("replay", arguments)


def _commands(request: Request, opened: OpenedExperiment, snapshot: RunSnapshot) -> list[tuple[str, str]]:
    if not request.recording:
        return []
    experiment_id, counts, table = opened.layout.experiment_id, snapshot.counts, opened.table
    by_themselves = counts.failed > cancelled(table)
    commands = []
    if counts.left:
        commands.append(("resume", resume_with(request, experiment_id)))
    elif by_themselves:
        again = [] if opened.settings.retry_failed else ["--retry-failed"]
        commands.append(("try the failed again", resume_with(request, experiment_id, *again)))
    if by_themselves:
        first = next(
            table.ids[job]
            for job, state in enumerate(table.state)
            if state == FAILED and table.wanted[job] and table.outcome.get(job) != "cancelled"
        )
        commands.append(_command_for_failed(request, opened, first))
    if _is_pilot(opened):
        commands.append(("all tasks, keeping these", resume_with(request, experiment_id, "--all-tasks")))
    elif counts.completed and not commands:
        commands.append(("run some again", resume_with(request, experiment_id, "--rerun", "GLOB")))
    return commands[:3]
