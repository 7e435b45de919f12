"""`longhaul failures`: failed attempts, grouped by error and place."""

from __future__ import annotations

import argparse

import msgspec

from supervisor.commands.lookup import add_experiment, experiment_words, the_experiment
from supervisor.commands.replay import entry_of_run
from supervisor.commands.show import clock
from supervisor.commands.tables import add_json, emit, emit_json
from supervisor.core.terms.wording import count, cut, one_line, size
from supervisor.page.failure_groups import FailureGroup, group
from supervisor.reports.failed_attempts import failed_attempts, printed
from supervisor.reports.report import load
from supervisor.storage.checkpoint.checkpoint_format import peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.views.failure_lines import worker_peak
from supervisor.views.suggested_commands import pasted
from workers.program.recorded_command import is_of_program

_JOBS = 5  # ids shown with a group
_WIDTH = 300
_CANCELLED = "cancelled"  # the kind of cancelled attempts


def describe(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    parser.add_argument("--all", action="store_true", help=f"name all jobs of a group, not only {_JOBS}")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    layout = the_experiment(arguments)
    with load(layout.directory, layout.experiment_id) as report:
        groups = group(failed_attempts(layout, report))
        counts = report.counts
    for one in groups:
        one.output_tail = one.output_tail or printed(layout, one.example)
    if arguments.json:
        emit_json([{**msgspec.structs.asdict(one), "attempts": one.attempts} for one in groups])
        return 0
    failed = f"{counts.failed:,} of {count(counts.total, 'job')} failed"
    again = sum(len(one.again) for one in groups)
    ran_again = f", {count(again, 'failed attempt')} ran again" if again else ""
    emit(f"{one_line(report.name)} {report.experiment_id}: {failed}{ran_again}".strip())
    for one in groups:
        _tell(one, most=len(one.jobs) + len(one.again) if arguments.all else _JOBS)
    if groups:
        _suggest(groups, arguments, layout)
    return 0


def _suggest(groups: list[FailureGroup], arguments: argparse.Namespace, layout: Layout) -> None:
    """Suggest `show` for the first job, and `replay` for the first that can be replayed: not a cancelled one, and
    not one whose function is defined in a notebook or a prompt."""

    def words(job: str) -> list[str]:
        return [*(["--"] if job.startswith("-") else []), job, *experiment_words(arguments, layout)]

    emit(f"\n{pasted(['longhaul', 'show', *words(groups[0].example)])}")
    header = peek(Disk(), layout.checkpoint)
    started = header.run_started if header is not None else None
    failed = next((one.example for one in groups if one.kind != _CANCELLED), None)
    entry = entry_of_run(started) if started is not None else {"function": ""}
    if failed is not None and "function" in entry:
        debugger = [] if is_of_program(entry) else ["--pdb"]
        emit(pasted(["longhaul", "replay", *debugger, *words(failed)]))


def _tell(one: FailureGroup, *, most: int) -> None:
    parts = [count(len(one.jobs), "job") + " failed"] if one.jobs else []
    parts += [f"{count(len(one.again), 'attempt')} ran again"] if one.again else []
    first, last = clock(one.first_at), clock(one.last_at)
    parts.append(first if first == last else f"{first} to {last}")
    if one.peak_rss:
        parts.append(f"peak memory {size(one.peak_rss)}")
    elif one.worker_peak_rss:
        parts.append(worker_peak(one.worker_peak_rss))
    emit(f"\n{one.kind}: {', '.join(parts)}")
    if one.message:
        emit(f"  {cut(one.message, _WIDTH)}")
    for word, jobs in (("failed", one.jobs), ("ran again", one.again)):
        if jobs:
            emit(f"  {word}: {_some(list(dict.fromkeys(jobs)), most)}")
    if frames := [line for line in one.traceback.splitlines() if line.startswith("  File ")]:
        emit(f"  {one_line(frames[-1])}")
    for line in one.output_tail:
        emit(f"  | {line}")


def _some(jobs: list[str], most: int) -> str:
    more = f" and {len(jobs) - most:,} more (--all)" if len(jobs) > most else ""
    return ", ".join(map(one_line, jobs[:most])) + more
