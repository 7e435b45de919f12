"""Compares the present code with the code that made earlier results: which results are of other code, what
the user is told, and which of them `--rerun code:...` selects.

Nothing here writes to the disk. No job runs again unless the user asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from supervisor.core.terms.code_spans import DIGITS, UNKNOWN, CodeSpan, CodeSpans
from supervisor.core.terms.errors import UsageError
from supervisor.experiment.code_files import listed, module_texts, shown

_MOST_TOLD = 3  # versions that a sentence names

# The parts of a code beside modules, which go by their names. No module is called like one of these.
_FILE, _FUNCTION, _REST = ":file", ":function", ":rest"  # rest: of the file, without the function
_USED = "."  # begins the name of what is sent with a function that has no file


class CodeHistory(msgspec.Struct):
    """The code history as the new run records it, and what the user is told of it."""

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
    """The code history of a run that resumes an experiment.

    Parameters
    ----------
    before, spans, accepted: as the last run recorded them. `before` is empty if it recorded none.
    counts: how many results are kept, by the version of the code that made them.
    accept: keep all of them without further warnings (`--accept-code`).
    """
    version = now["version"]
    digests = _changed_parts(before, now)
    changed = _names(digests, now)
    same = version == spans[-1].version if spans else not changed and not before.get("earlier")
    known = list(spans)
    if not spans or version != spans[-1].version:
        known.append(CodeSpan(version, next_lease, changed, digests))
    good = list(accepted) if same else []
    if not spans and same:
        good.append(UNKNOWN)  # the script is unchanged; more is not known
    older = {made_by: count for made_by, count in counts.items() if made_by != version and count}
    history = CodeHistory(now, known, good)
    if accept:
        history.accepted = list(dict.fromkeys([*good, *older]))
        history.notices.append(("info", _accepted(older, CodeSpans(known), now)))
        return history
    older = {made_by: count for made_by, count in older.items() if made_by not in good}
    if older:
        history.notices.append(("warning", _told(history, older, counts, [] if same else changed)))
    return history


def changed_names(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two records of `code_of`, by name: see `names_since`."""
    return _names(_changed_parts(before, now), now)


def names_since(version: str, spans: CodeSpans, now: dict[str, Any]) -> list[str]:
    """Everything that differs between an earlier version of the code and `now` (a record of `code_of`): the
    function by its name, its file if other parts of it differ, and other files. For runs that an older
    longhaul recorded: everything that was changed since, even if it was changed back.
    """
    digests, words = spans.after(version)
    return list(dict.fromkeys([*_names(digests, now), *words]))


def parts_of(code: dict[str, Any]) -> dict[str, str]:
    """The digest of each part of a code (a record of `code_of`) that can change by itself."""
    own = ((_FILE, "sha256"), (_FUNCTION, "function_sha256"), (_REST, "rest_sha256"))
    parts = {part: code[key][:DIGITS] for part, key in own if code.get(key)}
    parts |= {_USED + name: digest for name, digest in code.get("used", {}).items()}
    return parts | {name: digest for name, (_, digest) in module_texts(code).items()}


def _changed_parts(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """The digests in `before` of the parts that differ in `now`; "" for a part that was missing or
    unknown."""
    if not before:
        return {}
    old, new = parts_of(before), parts_of(now)
    names = [name for name in old.keys() | new.keys() if _comparable(name, before, now)]
    return {name: old.get(name, "") for name in sorted(names) if old.get(name) != new.get(name)}


def _comparable(part: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    if part.startswith(_USED):
        return "used" in before and "used" in now
    # A module that was added or removed is no change.
    return part.startswith(":") or (part in module_texts(before) and part in module_texts(now))


def _names(digests: dict[str, str], now: dict[str, Any]) -> list[str]:
    """Names of the parts that do not have these digests any more."""
    parts, texts = parts_of(now), module_texts(now)
    changed = [name for name, digest in sorted(digests.items()) if digest != parts.get(name, "")]
    names: list[str] = []
    if _FILE in changed:
        unknown = [part for part in (_FUNCTION, _REST) if not (digests.get(part, "?") and parts.get(part))]
        itself = _FUNCTION in unknown or _FUNCTION in changed
        if itself:
            names.append(str(now.get("function", "the function")).rpartition(".")[2])
        if "file" in now and (not itself or (_REST in changed and _REST not in unknown)):
            names.append(shown(now["file"]))
    names += [name.removeprefix(_USED) for name in changed if name.startswith(_USED)]
    modules = [name for name in changed if not name.startswith((_USED, ":"))]
    return list(
        dict.fromkeys([*names, *(shown(texts[name][0]) if name in texts else name for name in modules)])
    )


# ---------------------------------------------------------------------------------- words


def _told(history: CodeHistory, older: dict[str, int], counts: dict[str, int], changed: list[str]) -> str:
    total, others = sum(counts.values()), sum(older.values())
    spans = CodeSpans(history.spans)
    order = [version for version in [UNKNOWN, *spans.known()] if version in older]
    if changed and others == total and len(order) == 1:
        names = names_since(order[0], spans, history.code) or changed
        itself = _itself(history.code, names)
        return f"{listed(names)} changed after {_results(total)}{itself}; they are kept; --rerun '*' repeats them"
    told = [f"{older[version]} by {_code(version, spans, history.code)}" for version in order[:_MOST_TOLD]]
    if len(order) > _MOST_TOLD:
        told.append(f"{sum(older[version] for version in order[_MOST_TOLD:])} by other versions")
    if changed and others == total:
        return (
            f"{listed(changed)} changed after {_results(total)}{_itself(history.code, changed)}; they are kept; "
            f"{', '.join(told)}; --rerun '*' repeats them, --rerun code:{order[0]} only those of that version"
        )
    if total > others:
        rest = {version: count for version, count in counts.items() if version not in older and count}
        told += [f"{count} by {_short(version)}" for version, count in rest.items()]
    first, *more = told
    number, _, by = first.partition(" ")
    subject = f"{number} of the {_results(total)}" if total > others or more else f"the {_results(total)}"
    were = "was" if number == "1" else "were"
    which = order[0] if len(order) == 1 else "old"
    them = "it" if others == 1 else "them" if total == others else f"the {others}"
    return (
        f"{', '.join([f'{subject} {were} made {by}', *more])}; --rerun code:{which} repeats {them}, "
        f"--accept-code keeps {'it' if others == 1 else 'them'} and ends this reminder"
    )


def _itself(code: dict[str, Any], changed: list[str]) -> str:
    """Says so if the script's file changed, but not the function itself."""
    if "file" not in code or shown(code["file"]) != changed[0]:
        return ""
    return f", {str(code['function']).rpartition('.')[2]} itself did not"


def _code(version: str, spans: CodeSpans, now: dict[str, Any]) -> str:
    said = f"code {version}" if version != UNKNOWN else "code of which no version was recorded"
    since = since_then(version, spans, now)
    return f"{said} ({since})" if since else said


def since_then(version: str, spans: CodeSpans, now: dict[str, Any], most: int = 3) -> str:
    """What distinguishes an earlier version from the code `now`, in words: "before a.py and b.py changed".
    "" if nothing is known of it."""
    during = spans.edited_during(version)
    names = [name for name in names_since(version, spans, now) if name not in during]
    told = [f"while {listed(during, most)} changed"] if during else []
    told += [f"before {listed(names, most)} changed"] if names else []
    return ", ".join(told)


def _short(version: str) -> str:
    return version if version != UNKNOWN else "unknown code"


def _results(count: int) -> str:
    return f"{count} result{'s' if count != 1 else ''}"


def _accepted(older: dict[str, int], spans: CodeSpans, now: dict[str, Any]) -> str:
    if not older:
        return "--accept-code: there are no results of other code than that of now"
    told = ", ".join(f"{count} by code {version}" for version, count in older.items())
    changed = list(dict.fromkeys(name for version in older for name in names_since(version, spans, now)))
    before = f"{listed(changed, 20)} changed; " if changed else ""
    return f"{before}results of earlier code are taken as good: {told}"


# ----------------------------------------------------------------------- --rerun code:...


CODE = "code:"  # how a word begins that names jobs by the code of their results


def named_versions(words: Sequence[str], current: str, counts: dict[str, int]) -> set[str]:
    """The versions that these `code:...` words select, of those that `counts` has results of. Raises
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
