"""Failed attempts, grouped by error and place. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from supervisor.core.state.snapshot import FailureSnapshot
from supervisor.core.terms.wording import one_line
from supervisor.views.failure_lines import kind, tail_lines

_TRACEBACK = "Traceback (most recent call last)"


class FailureGroup(msgspec.Struct):
    """Attempts that failed alike. jobs: have failed for good. again: ran again."""

    kind: str
    message: str
    jobs: list[str] = []
    again: list[str] = []
    first_at: str = ""
    last_at: str = ""
    peak_rss: int | None = None
    worker_peak_rss: int | None = None  # where the peak may be of an earlier job
    example: str = ""  # the job that traceback and output are from
    traceback: str = ""
    output_tail: list[str] = []

    @property
    def attempts(self) -> int:
        return len(self.jobs) + len(self.again)


class FailureGroups:
    """Groups that grow with each failure that is added: no failure is kept but the first of each group."""

    def __init__(self) -> None:
        self._groups: dict[str, FailureGroup] = {}

    def add(self, failure: FailureSnapshot) -> None:
        name = kind(failure)
        found = self._groups.get(name)
        if found is None:
            traceback, output_tail = _traceback_and_output(failure)
            found = self._groups[name] = FailureGroup(
                kind=name,
                message=one_line(failure.message),
                first_at=failure.at,
                example=failure.job,
                traceback=traceback,
                output_tail=output_tail,
            )
        (found.jobs if failure.final else found.again).append(failure.job)
        found.first_at, found.last_at = min(found.first_at, failure.at), max(found.last_at, failure.at)
        if failure.peak_rss is not None:
            found.peak_rss = max(found.peak_rss or 0, failure.peak_rss)
        elif failure.worker_peak_rss is not None:
            found.worker_peak_rss = max(found.worker_peak_rss or 0, failure.worker_peak_rss)

    def ordered(self) -> list[FailureGroup]:
        """The group with the most failed jobs first."""
        return sorted(self._groups.values(), key=lambda one: (-len(one.jobs), -len(one.again)))


def _traceback_and_output(failure: FailureSnapshot) -> tuple[str, list[str]]:
    """The record of a program that has failed has its last output in place of a traceback, which may be that of a
    program in Python."""
    is_program = failure.exit_code is not None or bool(failure.type and failure.outcome == "crashed")
    if not is_program or failure.output_tail or _TRACEBACK in failure.traceback:
        return failure.traceback, tail_lines(failure)
    return "", tail_lines(msgspec.structs.replace(failure, output_tail=failure.traceback))


def group(failures: Iterable[FailureSnapshot]) -> list[FailureGroup]:
    """Group by error and place, the group with the most failed jobs first."""
    groups = FailureGroups()
    for failure in failures:
        groups.add(failure)
    return groups.ordered()
