"""What the page's server answers about a run as it stands: the head of every page, a page of jobs, one job, groups of
failures. The shapes are those of docs/page.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from supervisor.commands.attempts import Attempt
from supervisor.commands.show import attempts_of
from supervisor.commands.status import resume_words
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.jobs import FAILED, Counts
from supervisor.core.terms.wording import cut
from supervisor.experiment.experiment_status import how_it_ended, is_finished_pilot, is_running
from supervisor.page.markup import clean
from supervisor.reports.failed_attempts import printed
from supervisor.reports.progress_file import OVER, Progress, seconds_since
from supervisor.reports.report import result_text
from supervisor.storage.checkpoint.checkpoint_format import Header, peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.recovery.first_jobs import first_jobs
from supervisor.system.clock import utc_now
from supervisor.web.experiment_catalogue import progress_of
from supervisor.web.experiment_watch import ExperimentWatch
from supervisor.web.job_pages import PER_PAGE, BegunJob, JobFilter, JobPage, pages_of, state_name
from workers.process.surrogates import decoded_entry

MOST_NAMED = 200  # ids with a group of failures, and names of domains
MOST_GROUPS = 500
MOST_DOMAINS = 100
_MOST_TEXT = 20_000  # characters of a traceback
_MOST_VALUE = 100_000  # characters of params, and of a result

_AT_WORK = ("rate", "eta_seconds", "waiting_for", "grace_left", "checkpoint_age", "disk_free", "memory_free")
_SUMS = ("elapsed_seconds", "retries", "crashes", "timeouts", "unselected", "memory_total")


def live_document(layout: Layout, key: str, watch: ExperimentWatch, *, may_steer: bool) -> dict[str, Any]:
    """state: as `longhaul status` says it. over: it will not change any more. complete: the counts are those of the
    journal, or of the run itself. orders: whether orders are taken now. resume: how jobs that are left are gone on
    with, when nobody runs it."""
    progress = progress_of(layout)
    live = is_running(layout)
    counted = watch.counts()
    known = progress if counted is not None else counts_at_hand(layout)
    counts = counted or (known.counts if known is not None else Counts())
    if progress is not None and (live or progress.state in OVER):
        counts = progress.counts  # the journal may be read a moment later
    state = _state(layout, progress, counts, live=live)
    if counted is None and known is None and not live:
        state = "unusable" if watch.trouble else "being read"
    document: dict[str, Any] = {
        "key": key,
        "id": layout.experiment_id,
        "name": known.name if known is not None else _name(watch),
        "state": state,
        "live": live,
        "over": not live,
        "counts": {**msgspec.to_builtins(counts), "left": counts.left},
        "saved_at": progress.saved_at if progress is not None else "",
        "directory": str(layout.directory),
        "complete": bool(live or counted is not None),
        "trouble": watch.trouble,
        "orders": may_steer and live and progress is not None and progress.control is not None,
        "supervisor": msgspec.to_builtins(progress.supervisor) if progress is not None else {},
        "resume": {} if live or not counts.left else _resume(layout, watch),
        "workers": [],
        "domains": _domains(watch),
        "domains_total": len(watch.domain_counts()),
    }
    if progress is not None:
        at_work = live and progress.state not in OVER
        document |= {name: getattr(progress, name) if at_work else None for name in _AT_WORK}
        document |= {name: getattr(progress, name) for name in _SUMS}
        if at_work:
            document["workers"] = _workers(layout, progress)
            if progress.nodes is not msgspec.UNSET:
                document["nodes"] = msgspec.to_builtins(progress.nodes)
            if progress.needs is not msgspec.UNSET:
                document["needs"] = msgspec.to_builtins(progress.needs)
    return document


def counts_at_hand(layout: Layout) -> Progress | Header | None:
    """What tells the counts of jobs without reading the journal: as the run kept them, or its checkpoint."""
    return progress_of(layout) or peek(Disk(), layout.checkpoint)


def _state(layout: Layout, progress: Progress | None, counts: Counts, *, live: bool) -> str:
    if progress is None:
        return "running" if live else "unfinished" if counts.left else "finished"
    if live:
        return progress.state.replace("_", " ") if progress.state not in OVER else "running"
    if progress.state not in OVER:
        return "died"
    if progress.state == "finished" and is_finished_pilot(layout):
        return "pilot done"
    return how_it_ended(layout, progress) or progress.state


def _resume(layout: Layout, watch: ExperimentWatch) -> dict[str, str]:
    """`command`, and the `directory` where it is to be typed."""
    started = None if watch.results is None else watch.results.history.run_started
    command = resume_words(layout, started)
    if started is None or not command:
        return {}
    entry = decoded_entry(started.entry)
    return {
        "command": command,
        "directory": str(entry.get("start_directory") or entry.get("directory") or ""),
    }


def _name(watch: ExperimentWatch) -> str:
    return "" if watch.results is None else watch.results.name


def _workers(layout: Layout, progress: Progress) -> list[dict[str, Any]]:
    """As the progress file has them, with what it does not read back: metrics of `report()`."""
    try:
        document = msgspec.json.decode(layout.progress.read_bytes())
        workers = document["workers"]
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        workers = [msgspec.to_builtins(one) for one in progress.workers]
    now = utc_now()
    for worker in workers:
        since = worker.get("since")
        worker["seconds"] = seconds_since(since, now) if since else None
    return list(workers)


def _domains(watch: ExperimentWatch) -> list[dict[str, Any]]:
    """Counts of jobs by domain, from the journal: those with the most failures, then with the most jobs, first."""
    found = [(name, counts) for name, counts in watch.domain_counts().items()]
    found.sort(key=lambda one: (-one[1].failed, -one[1].total, one[0]))
    return [{"domain": name, **msgspec.to_builtins(counts)} for name, counts in found[:MOST_DOMAINS]]


def running_jobs(layout: Layout, table: JobTable) -> dict[int, BegunJob]:
    """What workers have begun, by job number."""
    progress = progress_of(layout)
    if progress is None or progress.state in OVER or not is_running(layout):
        return {}
    return {
        number: BegunJob(worker.worker, worker.since, worker.attempt)
        for worker in progress.workers
        if worker.job is not None and (number := table.numbers.get(worker.job)) is not None
    }


def early_jobs_document(layout: Layout) -> dict[str, Any] | None:
    """The first page in the order of the script, of an experiment that has not been read; None if its index does not
    tell of it."""
    found = first_jobs(layout, PER_PAGE)
    if found is None:
        return None
    page = JobPage(range(len(found.table)), found.total, 1, pages_of(found.total))
    return jobs_document(found.table, page, JobFilter(), running_jobs(layout, found.table), complete=False)


def jobs_document(
    table: JobTable,
    found: JobPage,
    wanted: JobFilter,
    running: Mapping[int, BegunJob],
    *,
    complete: bool,
) -> dict[str, Any]:
    """total: jobs that the filter lets through. complete: nothing has ended that the table does not know of."""
    rows = [_job_row(table, job, running) for job in found.jobs]
    domains = [name for name in table.domains if name]
    return {
        "jobs": rows,
        "total": found.total,
        "page": found.page,
        "pages": found.pages,
        "sort": wanted.sort,
        "domains": domains[:MOST_NAMED],
        "domains_total": len(domains),
        "complete": complete,
    }


def _job_row(table: JobTable, job: int, running: Mapping[int, BegunJob]) -> dict[str, Any]:
    state = state_name(table, job, running)
    row: dict[str, Any] = {
        "id": table.ids[job],
        "domain": table.domains[table.domain_of[job]] or None,
        "state": state,
        "attempts_total": table.attempts[job],
        "seconds": round(table.seconds[job], 4) if table.attempts[job] else None,
        "outcome": table.outcome.get(job, ""),
    }
    if state == "in_progress" and (now := running.get(job)) is not None:
        row |= {
            "worker": now.worker,
            "since": now.since,
            "attempts_total": max(row["attempts_total"], now.attempt),
        }
    return row


def job_document(watch: ExperimentWatch, table: JobTable, job: int) -> dict[str, Any]:
    """Params, result and every attempt. Texts that are too long for a page are cut, and say so."""
    layout = watch.layout
    running = running_jobs(layout, table)
    job_id = table.ids[job]
    with watch.lock:
        planned = watch.results.planned([job])[0] if watch.results is not None else None
        document = _job_row(table, job, running)
        in_plan = bool(table.wanted[job])
    tries = attempts_of(layout, job_id, live=job in running, alone=True)
    last = next((one for one in reversed(tries) if one.outcome == "completed"), None)
    document |= {
        "params": _cut_json(bytes(planned.params)) if planned is not None else "{}",
        "in_plan": in_plan,
        "attempts": [_attempt(one) for one in tries],
        "result": None if last is None else cut(result_text(last.result or b"", last.nonfinite), _MOST_VALUE),
        "output_tail": []
        if tries and (tries[-1].error or {}).get("output_tail")
        else printed(layout, job_id),
        "complete": len({one.attempt for one in tries if one.attempt}) >= table.attempts[job],
        "total": len(tries),
    }
    return document


def _attempt(one: Attempt) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(one, result=None, nonfinite=[]))
    document.pop("result", None)
    document.pop("nonfinite", None)
    error = document.get("error")
    if isinstance(error, dict):
        document["error"] = {
            name: _tail(value) if isinstance(value, str) else value for name, value in error.items()
        }
    return document


def _tail(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"… {text[-_MOST_TEXT:]}"


def _cut_json(text: bytes) -> str:
    return cut(text.decode(errors="replace"), _MOST_VALUE)


def failures_document(watch: ExperimentWatch, table: JobTable) -> dict[str, Any]:
    """Groups, the one with the most failed jobs first. jobs: ids that have failed for good and still count as failed,
    at most `MOST_NAMED` of `failed`. again: attempts that ran again, or whose job has been tried again since."""
    groups: list[dict[str, Any]] = []
    numbers = table.numbers
    for one in watch.groups.ordered():
        named = dict.fromkeys(one.jobs)
        failed = [
            job for job in named if (number := numbers.get(job)) is not None and table.state[number] == FAILED
        ]
        groups.append(
            {
                "kind": clean(one.kind),
                "message": clean(one.message),
                "failed": len(failed),
                "again": one.attempts - len(failed),
                "attempts": one.attempts,
                "jobs": failed[:MOST_NAMED],
                "jobs_total": len(failed),
                "first_at": one.first_at,
                "last_at": one.last_at,
                "example": one.example,
                "traceback": _tail(clean(one.traceback)),
                "output_tail": [
                    clean(line) for line in one.output_tail or printed(watch.layout, one.example)
                ],
            }
        )
    groups.sort(key=lambda one: (-one["failed"], -one["again"]))
    shown = groups[:MOST_GROUPS]
    return {
        "groups": shown,
        "total": len(groups),
        "failed": table.counts().failed,
        "complete": not watch.behind and len(shown) == len(groups),
    }
