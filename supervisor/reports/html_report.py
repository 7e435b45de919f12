"""Gathers what a report shows, from the files of an experiment, and writes it as one HTML file."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from supervisor.core.state.columns import indices_of
from supervisor.core.state.snapshot import failure_of
from supervisor.core.terms.errors import CannotCreate
from supervisor.core.terms.jobs import FAILED, PENDING
from supervisor.core.terms.records import Ended, RunStarted
from supervisor.core.terms.wording import count, one_line
from supervisor.page.duration_summary import durations_by_domain
from supervisor.page.failure_groups import FailureGroup, FailureGroups
from supervisor.page.report_page import MOST_GROUPS, ReportFacts, report_page
from supervisor.page.timeline import Timeline
from supervisor.page.timeline_document import lanes_document, timeline_document
from supervisor.page.typed_columns import columns_of
from supervisor.page.verdict import Situation, judge
from supervisor.reports.failed_attempts import NOBODYS_FAULT, printed
from supervisor.reports.progress_file import OVER, read_progress, seconds_since
from supervisor.reports.result_reader import Results
from supervisor.storage.files.atomic_files import write_atomically
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.lock import is_held
from supervisor.storage.journal.journal_follower import JournalFollower
from supervisor.storage.journal.journal_format import LineHead, decode_record
from supervisor.system.clock import utc_now
from supervisor.views.suggested_commands import longhaul_command, pasted, resume_command
from workers.process.surrogates import decoded_entry
from workers.program.recorded_command import is_of_program, recorded_command

if TYPE_CHECKING:
    from supervisor.reports.report import Report

MOST_ROWS = 5_000  # of the results table; beyond that the failures and a sample
MOST_CELLS = 1_000_000  # rows times columns
LEAST_ROWS = 500
_LOOK = 50  # rows by which the number of columns is judged
_STALE = 60.0  # seconds after which a progress file tells of nobody
_WINDOW = 600.0  # seconds over which the pace is averaged


def save_html_report(report: Report, results: Results, path: str | os.PathLike[str]) -> None:
    """Write the report, replacing what is there. Raises CannotCreate."""
    facts = gather(report, results)
    target = os.path.abspath(os.fspath(path))
    try:
        if os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target):
            with open(target, "wb") as device:
                device.writelines(report_page(facts))
            return
        write_atomically(Disk(), target, report_page(facts), durable=False)
    except OSError as error:
        why = error.strerror or error
        raise CannotCreate(
            f"{target} cannot be written: {why}. Choose another file for the report."
        ) from None


def gather(report: Report, results: Results) -> ReportFacts:
    """Everything that the report of an experiment shows, as it stands now."""
    layout, table = results.layout, results.table
    groups = FailureGroups()
    final = set()
    for failure in report.each_failure():
        final.add((failure.job, failure.attempt))
        groups.add(failure)
    timeline, damage = _follow(results, groups, final)
    ordered = groups.ordered()
    for one in ordered[:MOST_GROUPS]:
        one.output_tail = one.output_tail or printed(layout, one.example)
    live = _live_state(results, timeline)
    now = time.time()
    if live:
        _place_running(results, timeline, now)
    elif table.open_leases and timeline.runs:
        _place_running(results, timeline, timeline.runs[-1].end)
    jobs, row_words = chosen_jobs(results)
    rows = list(report.rows_of(jobs))
    wanted = table.wanted
    states = (
        table.state if wanted.count(1) == len(wanted) else bytes(map(_state_if_wanted, table.state, wanted))
    )
    durations = durations_by_domain(table.domains, table.domain_of, states, table.seconds)
    commands = _Commands(results)
    situation = _situation(report, results, timeline, live, damage, ordered, commands)
    return ReportFacts(
        experiment_id=layout.experiment_id,
        name=one_line(report.name),
        verdict=judge(situation, ordered),
        counts=report.counts,
        groups=ordered,
        timeline=timeline_document(timeline, now if live else None),
        lanes=lanes_document(timeline),
        durations=durations,
        ids_of_longest=[table.ids[one.longest_job] for one in durations],
        columns=columns_of(rows),
        rows=len(rows),
        row_words=row_words,
        csv_command=situation.results,
        failures_command=commands.longhaul("failures", "--all"),
        directory=commands.directory,
        active_seconds=report.statistics.active_seconds,
        attempts=report.statistics.attempts,
        written=now,
        about=_about(results),
    )


def _state_if_wanted(state: int, wanted: int) -> int:
    return state if wanted else PENDING


# --------------------------------------------------------------------------- over time


def _follow(
    results: Results, groups: FailureGroups, final: set[tuple[str, int]]
) -> tuple[Timeline, list[str]]:
    """One pass over the journal: the timeline, and into `groups` the failed attempts that ran again."""
    timeline, follower = Timeline(), JournalFollower(results.layout)

    def bad_end(head: LineHead, line: bytes) -> None:
        if not head.state or head.outcome in NOBODYS_FAULT or (head.job, head.attempt) in final:
            return
        record = decode_record(line)
        if isinstance(record, Ended):
            groups.add(msgspec.structs.replace(failure_of(record, None), final=False))

    for heads, lines in follower.read():
        timeline.take(heads, lines, decode_record, bad_end)
    timeline.finish()
    damage = []
    if follower.damaged or follower.lost:
        places = count(follower.damaged, "place") if follower.damaged else "the numbers of its lines"
        lost = f", {count(follower.lost, 'line')} of it missing" if follower.lost else ""
        damage.append(f"The journal is damaged ({places}{lost}): what stood there is not in the timeline.")
    if timeline.unread:
        damage.append(f"{count(timeline.unread, 'line')} of the journal cannot be read by this version.")
    return timeline, damage


def _place_running(results: Results, timeline: Timeline, until: float) -> None:
    table, workers = results.table, results.history.workers
    for incarnation, leases in table.open_leases.items():
        worker = workers.get(incarnation)
        for lease, job in list(leases.items())[:1]:
            if worker is not None:
                timeline.running(worker.worker, lease, table.ids[job], until)


def _live_state(results: Results, timeline: Timeline) -> str:
    """What the supervisor is doing that owns the experiment now; "" if nobody does."""
    layout = results.layout
    held = is_held(layout.lock)
    over = bool(timeline.runs and timeline.runs[-1].state not in ("", "rewritten"))
    if held is False or over or not results.table.counts().left:
        return ""
    try:
        progress = read_progress(layout)
    except Exception:  # an onlooker's file: without it the lock alone tells
        progress = None
    at_work = progress is not None and progress.state not in OVER
    if held is None:
        age = None if progress is None else seconds_since(progress.saved_at, utc_now())
        if not at_work or age is None or age > _STALE:
            return ""
    if progress is not None and at_work:
        return progress.state.replace("_", " ")
    return "running"


def _situation(
    report: Report,
    results: Results,
    timeline: Timeline,
    live: str,
    damage: list[str],
    groups: Sequence[FailureGroup],
    commands: _Commands,
) -> Situation:
    counts, started = report.counts, results.history.run_started
    last = timeline.runs[-1] if timeline.runs else None
    state = live or (last.state if last is not None else "")
    if state in ("", "rewritten"):
        state = "died" if counts.left and last is not None else "finished"
    pilot = started is not None and not results.history.settings.get("all_tasks", True)
    # A cancelled job, and one whose function lives in a notebook, cannot be replayed.
    example = next((one.example for one in groups if one.jobs and one.kind != "cancelled"), "")
    shown = next((one.example for one in groups if one.jobs), "")
    entry = started.entry if started is not None and started.entry else {"function": [""]}
    return Situation(
        counts=counts,
        state=state,
        runs=len(timeline.runs),
        offered=started.offered if started is not None and pilot else 0,
        ended=None if last is None else last.end,
        eta=_eta(timeline, counts.left),
        stopped_by=_stopped_by(timeline),
        findings=[*results.findings, *damage],
        resume=commands.resume(),
        resume_failed=commands.resume(
            *([] if results.history.settings.get("retry_failed", True) else ["--retry-failed"])
        ),
        resume_all=commands.resume("--all-tasks"),
        show=commands.of_job("show", shown) if shown else "",
        replay=commands.of_job("replay", example, *([] if is_of_program(entry) else ["--pdb"]))
        if example and "function" in entry
        else "",
        verify=commands.longhaul("verify"),
        status=commands.longhaul("status", "--watch"),
        results=commands.longhaul("results", "--format", "csv", "-o", f"{report.experiment_id}.csv"),
    )


def _stopped_by(timeline: Timeline) -> str:
    """Why the last run was stopped, if it was."""
    if not timeline.runs or timeline.runs[-1].start is None:
        return ""
    since = timeline.runs[-1].start
    marks = [mark for mark in timeline.marks if mark.kind == "drain" and mark.at >= since]
    return marks[-1].text.partition(": ")[2] if marks else ""


def _eta(timeline: Timeline, left: int) -> float | None:
    """By the pace of the last ten minutes."""
    last = timeline.last
    if last is None or not timeline.runs or timeline.runs[-1].start is None:
        return None
    since = max(timeline.runs[-1].start, last - _WINDOW)
    ended = sum(one.ended for one in timeline.bins.together() if one.start >= since)
    return left * (last - since) / ended if ended and last > since else None


# ------------------------------------------------------------------------------- rows


def chosen_jobs(results: Results) -> tuple[Sequence[int], str]:
    """The jobs whose rows are shown, in plan order, and in words which these are; "" if all are.

    A sample is drawn at random, each time the same one: every hundredth job of a grid may have the same parameters.
    """
    jobs = results.jobs()
    most = _most_rows(results, jobs)
    if len(jobs) <= most:
        return jobs, ""
    wanted = results.table.wanted
    failed = [job for job in indices_of(results.table.state, FAILED) if wanted[job]]
    kept = _sample(failed, most)
    words = f"The table and the plot have {most:,} of {len(jobs):,} jobs, drawn at random, each time the same ones"
    if len(kept) < len(failed):
        words += f", and {len(kept):,} of the {len(failed):,} that failed"
    elif failed:
        words += f", and all {len(failed):,} that failed" if len(failed) > 1 else ", and the one that failed"
    return sorted({*_sample(jobs, most), *kept}), f"{words}."


def _sample(jobs: Sequence[int], most: int) -> Sequence[int]:
    return jobs if len(jobs) <= most else random.Random(0).sample(jobs, most)


def _most_rows(results: Results, jobs: Sequence[int]) -> int:
    """Fewer if each has many columns, so that the file can be opened."""
    if len(jobs) <= 1:
        return MOST_ROWS
    look = [jobs[len(jobs) * at // _LOOK] for at in range(min(_LOOK, len(jobs)))]
    columns = max(
        (
            bytes(planned.params).count(b'":') + (bytes(record.result).count(b'":') if record else 0)
            for _, planned, record in results.read(look)
        ),
        default=0,
    )
    return max(LEAST_ROWS, min(MOST_ROWS, MOST_CELLS // max(1, columns)))


# ---------------------------------------------------------------------------- commands


class _Commands:
    """Commands about this experiment, as they can be pasted where the script was started."""

    def __init__(self, results: Results) -> None:
        layout, started = results.layout, results.history.run_started
        self._started = started
        self._id = layout.experiment_id
        entry = _entry(started)
        self.directory = str(entry.get("start_directory") or entry.get("directory") or "")
        usual = os.path.join(self.directory, "data", "outputs")
        place = os.path.dirname(str(layout.directory))
        given = os.path.relpath(layout.directory, self.directory) if self.directory else str(layout.directory)
        given = given if not given.startswith("..") else str(layout.directory)
        self._words = [self._id] if os.path.realpath(usual) == place else [self._id, "-d", given]
        self._sys_argv = [str(word) for word in entry.get("sys_argv", ())]

    def longhaul(self, command: str, *options: str) -> str:
        return longhaul_command(command, [*self._words, *options])

    def of_job(self, command: str, job: str, *options: str) -> str:
        dashed = job.startswith("-")
        if dashed:
            return longhaul_command(command, [*self._words[1:], *options, "--", job, self._id])
        return longhaul_command(command, [*options, job, *self._words])

    def resume(self, *extra: str) -> str:
        started = self._started
        if started is None:
            return ""
        return resume_command(started.argv, self._sys_argv[1:], self._id, extra)


def _entry(started: RunStarted | None) -> dict[str, Any]:
    return decoded_entry(started.entry) if started is not None else {}


def _about(results: Results) -> list[tuple[str, str]]:
    started, layout = results.history.run_started, results.layout
    found = [("experiment", layout.experiment_id), ("name", results.name), ("files", str(layout.directory))]
    if started is None:
        return found
    found.append(("command", pasted(started.argv) if started.argv else "run() of a notebook or a program"))
    found.append(("program", pasted(recorded_command(_entry(started)))))
    found.append(
        (
            "machine",
            ", ".join(filter(None, [started.host, f"{started.cores} cores" if started.cores else ""])),
        )
    )
    found.append(("versions", ", ".join(f"{name} {version}" for name, version in started.versions.items())))
    code = started.code
    words = [
        f"{code.get('module', '')}.{code.get('function', '')}".strip("."),
        f"version {code.get('version', '')}",
    ]
    if code.get("git_commit"):
        words.append(f"git {code['git_commit'][:12]}{' with changes' if code.get('dirty') else ''}")
    found.append(("code", ", ".join(filter(None, words))))
    chosen = {name: value for name, value in started.settings.items() if value not in (None, False)}
    found.append(("settings", ", ".join(f"{name}={value}" for name, value in chosen.items())))
    return [(name, value) for name, value in found if value]
