"""What an earlier run means for this one: which experiment, which settings, which jobs again.

Nothing here writes to the disk; `experiment` acts on what is decided here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from supervisor.core.errors import UsageError
from supervisor.core.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, PENDING
from supervisor.core.settings import Settings
from supervisor.core.table import JobTable
from supervisor.picking import matches
from supervisor.request import Request


class Again(msgspec.Struct):
    """Jobs (numbers) to be made pending, by reason."""

    rerun: list[int] = []
    retry: list[int] = []
    changed: list[int] = []

    def keep_selected(self, selected: bytes) -> None:
        """Each job under one reason only, and only if this run may run it: with --only, no
        result is given up for a job that will not be run."""
        changed, rerun = set(self.changed), set(self.rerun)
        self.rerun = [job for job in self.rerun if selected[job] and job not in changed]
        self.retry = [job for job in self.retry if selected[job] and job not in changed | rerun]


def merge_settings(request: Request, remembered: dict[str, Any] | None) -> Settings:
    """Flag now > remembered in the checkpoint > keyword in the script > default."""
    known = Settings.__struct_fields__
    kept = {key: value for key, value in (remembered or {}).items() if key in known}
    return msgspec.convert({**request.settings_script, **kept, **request.settings_now}, Settings)


def merge_options(request: Request, remembered: dict[str, Any] | None) -> dict[str, Any]:
    """The script's own options, by the same precedence; values as argparse gives them."""
    known = request.options_default
    kept = {key: value for key, value in (remembered or {}).items() if key in known}
    return {**known, **kept, **request.options_now}


def select(table: JobTable, only: list[str]) -> bytes:
    """A mask of the jobs this run may hand out. Raises UsageError if there are none."""
    if not only:
        return bytes(table.wanted)
    mask = bytearray(len(table))
    for job, job_id in enumerate(table.ids):
        mask[job] = table.wanted[job] and matches(job_id, only)
    if not any(mask):
        raise UsageError(f"--only {' '.join(only)}: no job of the script matches{_some_ids(table)}")
    return bytes(mask)


def left_out(table: JobTable, mask: bytes) -> int:
    """How many unfinished jobs of the plan this run does not hand out."""
    if mask.count(1) == len(mask):
        return 0
    unfinished = (PENDING, LEASED, INTERRUPTED)
    return sum(
        1
        for job, state in enumerate(table.state)
        if state in unfinished and table.wanted[job] and not mask[job]
    )


def jobs_again(
    table: JobTable,
    request: Request,
    selected: bytes,
    *,
    changed: list[int],
    retry_failed: bool,
    more: bool = False,
) -> Again:
    """Which completed or failed jobs, of those that are `selected`, run again: the changed ones, by
    name, and failed ones once more. `more`: the script has jobs that the experiment has not."""
    again = Again(changed=changed)
    if request.rerun:
        again.rerun = [
            job
            for job, job_id in enumerate(table.ids)
            if table.wanted[job]
            and table.state[job] in (COMPLETED, FAILED)
            and matches(job_id, request.rerun)
        ]
        if not again.rerun and not any(matches(job_id, request.rerun) for job_id in table.ids):
            hint = "; --only runs jobs that the pilot left out" if more else ""
            raise UsageError(
                f"--rerun {' '.join(request.rerun)}: no job of this experiment matches{_some_ids(table)}{hint}"
            )
    if retry_failed:
        named = set(again.rerun)
        again.retry = [
            job
            for job, state in enumerate(table.state)
            if state == FAILED
            and table.wanted[job]
            and job not in named
            and table.outcome.get(job) != "cancelled"
        ]
    again.keep_selected(selected)
    return again


def _some_ids(table: JobTable) -> str:
    names = ", ".join(repr(job_id) for job_id in table.ids[:3])
    return f"; ids look like {names}" if names else ""


def changes(
    code_before: dict[str, Any],
    code: dict[str, Any],
    settings_before: dict[str, Any],
    now: Settings,
    kept: int,
) -> list[str]:
    """What to say if function or seed are not what the `kept` results were made with."""
    said = (code_changed(code_before, code, kept), seed_changed(settings_before, now, kept))
    return [words for words in said if words]


def with_earlier(before: dict[str, Any], now: dict[str, Any], kept: int) -> dict[str, Any]:
    """`now`, what the function is, with `earlier`: what else it was in runs of which results may be
    kept. Of `kept` results from before none is known to be of one run or another."""
    was = [*before.get("earlier", ()), before.get("function_sha256")] if kept else []
    other = [known for known in dict.fromkeys(was) if known and known != now.get("function_sha256")]
    return {**now, "earlier": other} if other else now


def code_changed(before: dict[str, Any], now: dict[str, Any], kept: int) -> str | None:
    """What to say if the function's code is not what the `kept` results were made with, all of them
    or, after a change that was told in an earlier run, some.

    The whole module counts, because the function may call anything in it; if the function
    itself is the same, that is said as well.
    """
    if not kept or not before:
        return None
    name = str(now.get("function", "the function")).rpartition(".")[2]
    results = f"{kept} result{'s' if kept != 1 else ''}"
    mixed = (
        f"{name} has changed since some of the {results} were made; --rerun GLOB repeats those that you name"
    )
    if before.get("sha256") == now.get("sha256"):
        return mixed if now.get("earlier") else None
    own = before.get("function_sha256")
    if own is None or own != now.get("function_sha256"):
        return f"{name} changed after {results}; they are kept; --rerun '*' repeats them"
    if now.get("earlier"):
        return mixed
    file = str(now.get("file", "its module")).rpartition("/")[2]
    return f"{file} changed after {results}, {name} itself did not; they are kept; --rerun '*' repeats them"


def seed_changed(before: dict[str, Any], now: Settings, completed: int) -> str | None:
    """Results made with two seeds stand side by side: nobody should find that out later."""
    if not completed or before.get("seed", now.seed) == now.seed:
        return None
    return (
        f"the seed was {before['seed']} for the {completed} results so far, and is {now.seed} from here on; "
        f"--rerun '*' repeats them"
    )
