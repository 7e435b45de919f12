"""The attempts that failed, from the reports of jobs and the journal; and what a job printed last."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from supervisor.core.state.snapshot import FailureSnapshot, failure_of
from supervisor.reports.report import Report
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_reader import bad_ends
from supervisor.views.failure_lines import tail_lines
from workers.isolation.faulthandler_dumps import printed_tail
from workers.isolation.output_files import log_path

NOBODYS_FAULT = ("interrupted", "lost")


def failed_attempts(layout: Layout, report: Report) -> Iterable[FailureSnapshot]:
    """Attempts that failed for good, then those in the journal that ran again."""
    domains = report.domains()
    failures = report.failures()
    final = {(one.job, one.attempt) for one in failures}
    yield from failures
    for record in bad_ends(layout):
        if record.outcome in NOBODYS_FAULT or not record.state:
            continue
        if (record.job, record.attempt) not in final:
            yield msgspec.structs.replace(failure_of(record, domains.get(record.job)), final=False)


def printed(layout: Layout, job_id: str) -> list[str]:
    """The last lines in a job's log."""
    text = printed_tail(log_path(str(layout.output_directory), job_id))
    return tail_lines(FailureSnapshot(job_id, None, "", "", "", "", 0, False, output_tail=text))
