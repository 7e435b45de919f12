"""Failures that are alike, told as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from supervisor.core.snapshot import FailureSnapshot
from supervisor.views.words import one_line, signal_name

_WORDS = {
    "timed_out": "timed out",
    "over_memory": "over the memory limit",
    "unencodable": "result cannot be written as JSON",
}


class Group(msgspec.Struct):
    """`failed` of the `count` attempts used up their job's budget; the others run again."""

    kind: str
    count: int
    first_job: str
    crash: bool
    failed: int = 0
    peak_rss: int | None = None


def kind(failure: FailureSnapshot) -> str:
    """What makes failures alike: `ValueError model.py:88`, `SIGSEGV fast.py:9`, `exit code 3`,
    `timed out model.py:90`."""
    if failure.outcome == "crashed":
        words = ["crashed" if failure.exit_code is None else f"exit code {failure.exit_code}"]
        if failure.signal is not None:
            words = [signal_name(failure.signal)]
        return " ".join([*words, *([one_line(failure.where)] if failure.where else [])])
    own_type = "" if failure.type == "Unencodable" else failure.type  # our word for it stands before
    words = [one_line(own_type), one_line(failure.where)]
    if failure.outcome != "raised" or not failure.type:
        words.insert(0, _WORDS.get(failure.outcome, failure.outcome.replace("_", " ")))
    return " ".join(word for word in words if word)


def group(failures: Iterable[FailureSnapshot]) -> list[Group]:
    """Groups of failures that are alike, the largest first; equals stay in order."""
    groups: dict[str, Group] = {}
    for failure in failures:
        name = kind(failure)
        found = groups.get(name)
        if found is None:
            found = groups[name] = Group(name, 0, failure.job, failure.outcome == "crashed")
        found.count += 1
        found.failed += failure.final
        if failure.peak_rss is not None:
            found.peak_rss = max(found.peak_rss or 0, failure.peak_rss)
    return sorted(groups.values(), key=lambda entry: -entry.count)
