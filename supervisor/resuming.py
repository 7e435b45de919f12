"""What an earlier run means for this one: which experiment, which settings, which jobs again.

Nothing here writes to the disk; `experiment` acts on what is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from supervisor.code_history import CODE, named_versions
from supervisor.core.errors import UsageError
from supervisor.core.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, PENDING
from supervisor.core.settings import Settings
from supervisor.core.table import JobTable
from supervisor.picking import matches
from supervisor.request import Request

if TYPE_CHECKING:
    from supervisor.records.made_by import MadeBy


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
    made: MadeBy | None = None,
    version: str = "",
) -> Again:
    """Which completed or failed jobs, of those that are `selected`, run again: the changed ones, by
    name or by the code that `made` them, and failed ones once more. `more`: the script has jobs that
    the experiment has not. `version`: that of the code of now."""
    again = Again(changed=changed)
    if request.rerun:
        again.rerun = _rerun(table, request.rerun, more=more, made=made, version=version)
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


def _rerun(table: JobTable, words: list[str], *, more: bool, made: MadeBy | None, version: str) -> list[int]:
    """The finished jobs that any of the words names, by its id or by its code."""
    codes = [word for word in words if word.startswith(CODE) and not _matches_any(table, [word])]
    globs = [word for word in words if word not in codes]
    versions = named_versions(codes, version, made.counts()) if made is not None and codes else set()
    finished = [
        job for job, state in enumerate(table.state) if table.wanted[job] and state in (COMPLETED, FAILED)
    ]
    found = [
        job
        for job in finished
        if matches(table.ids[job], globs) or (made is not None and made.version(job) in versions)
    ]
    if not found and globs and not _matches_any(table, globs):
        hint = "; --only runs jobs that the pilot left out" if more else ""
        raise UsageError(
            f"--rerun {' '.join(globs)}: no job of this experiment matches{_some_ids(table)}{hint}"
        )
    return found


def _matches_any(table: JobTable, globs: list[str]) -> bool:
    return any(matches(job_id, globs) for job_id in table.ids)


def _some_ids(table: JobTable) -> str:
    names = ", ".join(repr(job_id) for job_id in table.ids[:3])
    return f"; ids look like {names}" if names else ""


def seed_changed(before: dict[str, Any], now: Settings, completed: int) -> str | None:
    """Results made with two seeds stand side by side: nobody should find that out later."""
    if not completed or before.get("seed", now.seed) == now.seed:
        return None
    return (
        f"the seed was {before['seed']} for the {completed} results so far, and is {now.seed} from here on; "
        f"--rerun '*' repeats them"
    )
