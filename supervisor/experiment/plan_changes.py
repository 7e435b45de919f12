"""How the script's jobs differ from those of the experiment: which differences are refused, which are
reported."""

from __future__ import annotations

from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.wording import count
from supervisor.experiment.planning import Plan
from supervisor.experiment.resume_target import Notice
from supervisor.options.request import Request
from supervisor.storage.plan.plan_diff import Changed, Comparison
from supervisor.storage.recovery.recovered_experiment import Recovered


def judge_changes(request: Request, recovered: Recovered, plan: Plan, comparison: Comparison) -> list[Notice]:
    """Notices about new and missing jobs; UsageError for jobs of another experiment, and for params that changed
    under an id. To be called before `recovered` takes the plan over."""
    _refuse(request, recovered, plan, comparison)
    return _notices(comparison, plan, recovered)


def _refuse(request: Request, recovered: Recovered, plan: Plan, comparison: Comparison) -> None:
    if recovered.name and recovered.name != request.name:
        raise UsageError(
            f"experiment {recovered.layout.experiment_id} is called {recovered.name!r}, this script's is "
            f"{request.name!r}: this looks like another experiment. Start a new one without --resume."
        )
    if not comparison.matching and len(recovered.table):
        raise UsageError(
            f"none of the {plan.selected} jobs is one of the {len(recovered.table)} jobs of "
            f"{recovered.layout.experiment_id}: this looks like another experiment. Start a new one without --resume."
        )
    if comparison.changed and request.changed == "refuse":
        first = comparison.changed[0]
        raise UsageError(
            f"{len(comparison.changed)} jobs have other params than before under the same id, first "
            f"{first.id!r}: {_difference(first)}. Give them new ids, or give --changed keep (the old results "
            f"and params stay) or --changed rerun (they run again)."
        )


def _difference(changed: Changed) -> str:
    parts = []
    for key in {**changed.old, **changed.new}:
        before, after = changed.old.get(key, "(none)"), changed.new.get(key, "(none)")
        if before != after or type(before) is not type(after):
            parts.append(f"{key} was {before!r}, is {after!r}")
    return "; ".join(parts)[:300]


def _notices(comparison: Comparison, plan: Plan, recovered: Recovered) -> list[Notice]:
    """Jobs that the script had before, and a pilot left out, are not new."""
    notices: list[Notice] = []
    new = len(comparison.new) + len(comparison.returned)
    left_out = min(new, _left_out(comparison, plan, recovered))
    if left_out:
        notices.append(("info", f"now in the plan: {count(left_out, 'job')} that the pilot left out"))
    if new > left_out:
        notices.append(("info", f"new in the plan: {count(new - left_out, 'job')}"))
    if comparison.gone:
        text = f"no longer in the plan: {count(len(comparison.gone), 'job')}, first {comparison.gone[0]!r}"
        notices.append(("warning", f"{text}; their results are kept and counted apart"))
    return notices


def _left_out(comparison: Comparison, plan: Plan, recovered: Recovered) -> int:
    """How many of the new jobs the script may have had in the last run, judged by their number."""
    started = recovered.history.run_started
    if started is None or recovered.settings.get("all_tasks", True) or not started.offered:
        return 0
    grown = max(0, plan.offered - started.offered)
    return max(0, len(comparison.new) + len(comparison.returned) - grown)
