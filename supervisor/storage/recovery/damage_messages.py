"""Messages to the user about damaged files: what is damaged, where, and what follows.

Sentences only; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.wording import count
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_format import ended_jobs
from supervisor.storage.journal.record_locations import IN_CHECKPOINT, IN_JOURNAL

if TYPE_CHECKING:
    from supervisor.storage.recovery.recovered_experiment import Recovered

_SHOWN = 10


def some(ids: Sequence[str]) -> str:
    """The first few ids, and how many more there are."""
    shown = ", ".join(repr(job_id) for job_id in ids[:_SHOWN])
    return shown if len(ids) <= _SHOWN else f"{shown} and {len(ids) - _SHOWN} more"


def nothing_usable(layout: Layout, reason: str, *, journal_there: bool) -> str:
    checkpoint = f"the checkpoint {layout.checkpoint} " + (
        f"is damaged ({reason})" if reason else "is missing"
    )
    journal = f"the journal {layout.journal} " + (
        "holds no line that verifies" if journal_there else "is missing"
    )
    return (
        f"experiment {layout.experiment_id} cannot be resumed: {checkpoint}, and {journal}. "
        f"Put one of the two back from a backup, or start again with another --experiment-id."
    )


def different_experiments(layout: Layout) -> str:
    return (
        f"the checkpoint {layout.checkpoint} and the journal {layout.journal} belong to different experiments. "
        f"Nothing was changed. Move the one that does not belong there away, then resume."
    )


def checkpoint_damaged(layout: Layout, reason: str) -> str:
    return f"The checkpoint {layout.checkpoint} is damaged: {reason}. It is rebuilt from the journal."


def checkpoint_gone(layout: Layout) -> str:
    return f"The checkpoint {layout.checkpoint} is missing. It is rebuilt from the journal."


def plan_gone(layout: Layout) -> str:
    return f"The plan {layout.plan} is missing. It is rebuilt from the jobs of the script."


def plan_damaged(layout: Layout, lines: int) -> str:
    return (
        f"The plan {layout.plan} is damaged: {count(lines, 'line')} cannot be read. "
        f"It is rebuilt from the jobs of the script."
    )


def unknown_records(layout: Layout, number: int) -> str:
    return (
        f"The journal {layout.journal} holds {count(number, 'record')} of a kind that this version "
        f"does not know. They are skipped; the version that wrote them reads them."
    )


def moved(path: str, backup: str) -> str:
    return f"A copy of {path} as it was found is kept as {backup}."


def journal_trouble(found: Recovered, floor: int, *, diverged: bool) -> str:
    """The message about a journal that must be written again."""
    sentences = [_what_is_wrong(found, floor, diverged)]
    table, locations = found.table, found.locations
    kept = sum(origin == IN_JOURNAL for origin in locations.origin[: len(table)])
    taken = sum(origin == IN_CHECKPOINT for origin in locations.origin[: len(table)])
    sentences.append(f"{count(kept, 'result')} kept from the journal, {taken} taken from the checkpoint.")
    again = _run_again(found)
    if again:
        sentences.append(f"Run again, because their records are lost: {some(again)}.")
    lost = _records_lost(found, floor)
    if lost:
        sentences.append(f"{count(lost, 'record')} cannot be recovered.")
    elif not again and found.journal_state == "damaged":
        sentences.append("No result is lost.")
    return " ".join(sentences)


def _what_is_wrong(found: Recovered, floor: int, diverged: bool) -> str:
    path = found.layout.journal
    header, scan = found.header, found.scan
    if found.journal_state == "missing":
        saved = header.saved_at if header is not None else ""
        return f"The journal {path} is missing; what finished after the checkpoint of {saved} runs again."
    if found.journal_state == "behind":
        last = scan.last_n if scan is not None else 0
        return f"The journal {path} ends at record {last}, the checkpoint holds {floor}: its end is missing."
    if diverged:
        return (
            f"The journal {path} is not the one that the checkpoint was made from, but a copy that went on."
        )
    stretches = scan.damage if scan is not None else []
    if not stretches:
        return f"The journal {path} is damaged in the middle."
    places = ", ".join(f"byte {damage.offset}" for damage in stretches[:3])
    number = len(stretches)
    return (
        f"The journal {path} is damaged in the middle "
        f"({number} {'stretch' if number == 1 else 'stretches'}, at {places}{' ...' if number > 3 else ''})."
    )


def _records_lost(found: Recovered, floor: int) -> int:
    """How many records are in neither file: missing numbers that the checkpoint does not cover."""
    if found.scan is None:
        return 0
    return sum(max(0, last - max(first, floor + 1) + 1) for first, last in found.scan.missing)


def _run_again(found: Recovered) -> list[str]:
    """Ids of jobs that were probably finished, but whose record is lost."""
    table = found.table
    again = {table.ids[job]: None for job in found.gaps}
    for damage in found.scan.damage if found.scan is not None else ():
        again.update(dict.fromkeys(ended_jobs(damage.fragment)))
    for leases in table.open_leases.values():
        again.update((table.ids[job], None) for job in leases.values())
    numbers = table.numbers
    return [
        job_id
        for job_id in again
        if job_id in numbers and table.state[numbers[job_id]] not in (COMPLETED, FAILED)
    ]
