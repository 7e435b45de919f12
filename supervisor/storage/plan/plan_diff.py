"""How a script's plan differs from the one on disk: what is new, gone, changed."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.storage.plan.plan_builder import PlanBuilder
from supervisor.storage.plan.plan_file import PlanFile
from supervisor.storage.plan.plan_line import decode_line, own_settings_in


class Changed(NamedTuple):
    """A job whose parameters are not what they were under the same id."""

    id: str
    old: dict[str, Any]
    new: dict[str, Any]


class Comparison(msgspec.Struct):
    """How the script's present plan differs from the plan on disk.

    matching: number of ids in both. new, gone: ids in one of them only. changed: other parameters.
    relabelled: ids of which only the domain or the own settings changed. returned: ids that had been gone.
    """

    matching: int = 0
    new: list[str] = []
    gone: list[str] = []
    changed: list[Changed] = []
    relabelled: list[str] = []
    returned: list[str] = []


def compare(plan: PlanFile | None, table: JobTable, builder: PlanBuilder) -> Comparison:
    """Compare by id; fast if the lines are the same bytes in the same order.

    Ids whose line in the plan was lost are known from the journal and match without a comparison of parameters.
    """
    if plan is not None and plan.has_bytes_of(builder):
        return Comparison(matching=len(builder))
    result = Comparison()
    numbers, wanted = table.numbers, table.wanted
    for (job_id, domain), line in zip(builder.domains.items(), builder.lines(), strict=True):
        job = numbers.get(job_id)
        if job is None:
            result.new.append(job_id)
            continue
        result.matching += 1
        if not wanted[job]:
            result.returned.append(job_id)
        if plan is None or not plan.has(job):
            continue
        old = plan.line(job)
        if old != line[:-1]:
            _compare_lines(result, job_id, domain, old, line)
    result.gone = [
        job_id for job, job_id in enumerate(table.ids) if wanted[job] and job_id not in builder.domains
    ]
    return result


def _compare_lines(result: Comparison, job_id: str, domain: str | None, old: bytes, new: bytes) -> None:
    before, after = decode_line(old), decode_line(new)
    was, now = msgspec.json.decode(before.params), msgspec.json.decode(after.params)
    # Sorted text, not ==: 1, 1.0 and True are equal in Python, but not to the function.
    if _sorted_json(was) != _sorted_json(now):
        result.changed.append(Changed(job_id, was, now))
    elif before.domain != domain or own_settings_in(old) != own_settings_in(new):
        result.relabelled.append(job_id)


def _sorted_json(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")
