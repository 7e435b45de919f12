"""What the code of now means for the results of earlier runs: which were made by another one, what
is said of that, and which of them `--rerun code:...` names.

Nothing here writes to the disk, and nothing is repeated by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from supervisor.core.terms.code_spans import UNKNOWN, CodeSpan, CodeSpans
from supervisor.core.terms.errors import UsageError
from supervisor.experiment.code_files import differing, listed, shown

_MOST_TOLD = 3  # versions in a sentence


class CodeHistory(msgspec.Struct):
    """For the record of the run that begins, and for the user."""

    code: dict[str, Any]
    spans: list[CodeSpan]
    accepted: list[str]
    notices: list[tuple[str, str]] = []  # level and words

    @property
    def warnings(self) -> list[str]:
        return [words for level, words in self.notices if level == "warning"]


def first_run(code: dict[str, Any], next_lease: int) -> CodeHistory:
    return CodeHistory(code, [CodeSpan(code["version"], next_lease)], [])


def go_on(
    before: dict[str, Any],
    spans: Sequence[CodeSpan],
    accepted: Sequence[str],
    now: dict[str, Any],
    *,
    next_lease: int,
    counts: dict[str, int],
    accept: bool = False,
) -> CodeHistory:
    """What becomes of the history when an experiment goes on.

    Parameters
    ----------
    before, spans, accepted: as the last run recorded them; `before` is empty if there was none.
    counts: how many results are kept, by the version of the code that made them.
    accept: all of them are as good as those of now (`--accept-code`).
    """
    version = now["version"]
    changed = changed_names(before, now)
    same = version == spans[-1].version if spans else not changed and not before.get("earlier")
    known = list(spans)
    if not spans or version != spans[-1].version:
        known.append(CodeSpan(version, next_lease, changed))
    good = list(accepted) if same else []
    if not spans and same:
        good.append(UNKNOWN)  # the script is the same, and nobody can tell more
    older = {made_by: count for made_by, count in counts.items() if made_by != version and count}
    history = CodeHistory(now, known, good)
    if accept:
        history.accepted = list(dict.fromkeys([*good, *older]))
        history.notices.append(("info", _accepted(older, {} if same else older, changed)))
        return history
    older = {made_by: count for made_by, count in older.items() if made_by not in good}
    if older:
        history.notices.append(("warning", _told(history, older, counts, [] if same else changed)))
    return history


def changed_names(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is other than it was: the function by its name, its file if it itself is the same, and
    other files."""
    if not before:
        return []
    name = str(now.get("function", "the function")).rpartition(".")[2]
    own: list[str] = []
    if before.get("sha256") != now.get("sha256"):
        function = before.get("function_sha256")
        itself = function is None or function != now.get("function_sha256")
        own = [name if itself or "file" not in now else shown(now["file"])]
    return own + differing(before, now)


# ---------------------------------------------------------------------------------- words


def _told(history: CodeHistory, older: dict[str, int], counts: dict[str, int], changed: list[str]) -> str:
    total, others = sum(counts.values()), sum(older.values())
    if changed and others == total:
        itself = _itself(history.code, changed)
        return f"{listed(changed)} changed after {_results(total)}{itself}; they are kept; --rerun '*' repeats them"
    spans = CodeSpans(history.spans)
    order = [version for version in [UNKNOWN, *spans.known()] if version in older]
    told = [f"{older[version]} by {_code(version, spans)}" for version in order[:_MOST_TOLD]]
    if len(order) > _MOST_TOLD:
        told.append(f"{sum(older[version] for version in order[_MOST_TOLD:])} by other versions")
    if total > others:
        rest = {version: count for version, count in counts.items() if version not in older and count}
        told += [f"{count} by {_short(version)}" for version, count in rest.items()]
    first, *more = told
    number, _, by = first.partition(" ")
    subject = f"{number} of the {_results(total)}" if total > others or more else f"the {_results(total)}"
    were = "was" if number == "1" else "were"
    which = order[0] if len(order) == 1 else "old"
    them = "them" if total == others else "it" if others == 1 else f"the {others}"
    return (
        f"{', '.join([f'{subject} {were} made {by}', *more])}; --rerun code:{which} repeats {them}, "
        f"--accept-code keeps {'it' if others == 1 else 'them'} and ends this reminder"
    )


def _itself(code: dict[str, Any], changed: list[str]) -> str:
    """For those who wonder whether a change of the script matters."""
    if "file" not in code or shown(code["file"]) != changed[0]:
        return ""
    return f", {str(code['function']).rpartition('.')[2]} itself did not"


def _code(version: str, spans: CodeSpans) -> str:
    names = spans.ended_by(version) if version != UNKNOWN else spans.spans[0].changed if spans.spans else []
    said = f"code {version}" if version != UNKNOWN else "code of which no version was recorded"
    return f"{said} (before {listed(names)} changed)" if names else said


def _short(version: str) -> str:
    return version if version != UNKNOWN else "unknown code"


def _results(count: int) -> str:
    return f"{count} result{'s' if count != 1 else ''}"


def _accepted(older: dict[str, int], all_of_them: dict[str, int], changed: list[str]) -> str:
    if not older:
        return "--accept-code: there are no results of other code than that of now"
    told = ", ".join(f"{count} by code {version}" for version, count in older.items())
    before = f"{listed(changed)} changed; " if all_of_them and changed else ""
    return f"{before}results of earlier code are taken as good: {told}"


# ----------------------------------------------------------------------- --rerun code:...


CODE = "code:"  # how a word begins that names jobs by the code of their results


def named_versions(words: Sequence[str], current: str, counts: dict[str, int]) -> set[str]:
    """The versions that `code:...` words name, of those that `counts` has results of. Raises
    UsageError with all of them if there is none."""
    found: set[str] = set()
    for word in words:
        wanted = word.removeprefix(CODE).lower()
        if wanted == "old":
            found.update(version for version in counts if version != current)
            continue
        fitting = [version for version in counts if wanted and version.startswith(wanted)]
        if wanted in fitting:
            fitting = [wanted]
        if not fitting:
            raise UsageError(f"--rerun {word}: no result was made by such code; {_known(current, counts)}")
        if len(fitting) > 1:
            raise UsageError(f"--rerun {word} is short for several: {_known(current, counts)}")
        found.update(fitting)
    return found


def _known(current: str, counts: dict[str, int]) -> str:
    told = [
        f"{version} ({_results(count)}{', the code of now' if version == current else ''})"
        for version, count in counts.items()
    ]
    return f"there are {', '.join(told)}" if told else "there are no results yet"
