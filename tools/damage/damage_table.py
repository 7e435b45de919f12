"""The table of damaged batches: what was measured, in words."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tools.damage.damage_programs import CONTENDERS

NONE = "–"
FORK = "damage_programs.py"
Numbers = dict[str, Any]
HEAD = {
    "crash": "a job that always crashes, among good ones",
    "kill": "`kill -9` of the runner",
    "torn": "a torn last record",
}
GROUP = "damage"  # as a word for --only: all of it
DAMAGE_KEYS = {GROUP: tuple(HEAD), **{f"{GROUP}:{damage}": (damage,) for damage in HEAD}}


def damages(only: Sequence[str] | None) -> list[str]:
    """What has to be measured for these words, each once; nothing unless it is named."""
    return list(dict.fromkeys(damage for key in only or () for damage in DAMAGE_KEYS.get(key, ())))


def table(
    wanted: Sequence[str],
    rounds: Sequence[dict[str, Numbers]],
    skipped: dict[str, str],
    failed: dict[str, str],
) -> str:
    """One line for each contender. `wanted`: the damages; `rounds`: sample -> its numbers; `skipped`, `failed`:
    contender and sample -> why."""
    head = ["two workers", *(HEAD[damage] for damage in wanted)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, contender in CONTENDERS.items():
        if name in skipped:
            lines.append(f"| {contender.shown} | {skipped[name]} |" + " |" * (len(wanted) - 1))
            continue
        cells = [contender.shown]
        for damage in wanted:
            sample = f"{name}/{damage}"
            found = [taken[sample] for taken in rounds if sample in taken]
            cells.append(WORDS[damage](found) if found else failed.get(sample, NONE).splitlines()[0])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def crash_in_words(found: Sequence[Numbers]) -> str:
    """Of the worst round: does the batch finish, who is blamed, how long."""
    worst = min(found, key=lambda each: (each["finished"], each["results"], -each["starts"]))
    seconds = statistics.median(each["seconds"] for each in found)
    good = worst["good"]
    starts = "one start" if worst["starts"] == 1 else f"{worst['starts']} starts"
    what = (
        f"all {good} others complete, {starts}, {seconds:.1f} s"
        if worst["finished"]
        else f"**{worst['results']} of {good}** others after {starts}"
    )
    if worst["innocent"]:
        guilty = f"`{worst['guilty']}` for " if worst["guilty"] else ""
        return f"{what}; blamed: {guilty}it and {_count(worst['innocent'], 'innocent job')}"
    if worst["guilty"]:
        return f"{what}; blamed: that job, `{worst['guilty']}`"
    return f"{what}; blamed: nobody (`{worst['lost']}`)" if worst["lost"] else f"{what}; blamed: nobody"


def kill_in_words(found: Sequence[Numbers]) -> str:
    """Of all rounds: finished jobs that run again, who computes on, how soon there is a new job."""
    again = [each["again"] for each in found]
    worst = max(found, key=lambda each: (len(each["orphans"]), each["went_on"]))
    first = statistics.median(each["first_new"] for each in found)
    some = found[0]
    batch = f"of {some['jobs']:,} jobs with {some['done']:,} done"
    parts = [f"{_range(again)} finished jobs run again ({batch})"]
    if worst["orphans"]:
        parts.append(
            f"5 s later {_count(worst['orphans'], 'process', 'processes')} left ({_names(worst['orphans'])})"
        )
    else:
        parts.append("no process is left 5 s later")
    if worst["left"]:
        parts.append(f"{len(worst['left'])} still there when the second start has ended")
    if worst["went_on"]:
        twice = f", {worst['twice']:,} of them twice" if worst["twice"] else ""
        parts.append(f"{_count(worst['went_on'], 'job')} went on to the end without it{twice}")
    parts.append(f"first new job after {first:.1f} s")
    if (least := min(each["results"] for each in found)) < some["jobs"]:
        parts.append(f"{some['jobs'] - least:,} results missing")
    return "; ".join(parts)


def torn_in_words(found: Sequence[Numbers]) -> str:
    """Where the cuts come to the same, once; else for each cut."""
    said: dict[str, list[float]] = {}
    for each in found:
        for cut in each["cuts"]:
            said.setdefault(_of_cut(cut, each["jobs"]), []).append(cut["cut"])
    if len(said) == 1:
        return next(iter(said))
    shares = [(words, sorted({*cuts})) for words, cuts in said.items()]
    return "; ".join(
        f"with {', '.join(f'{cut:.0%}' for cut in cuts)} of it left: {words}" for words, cuts in shares
    )


def _of_cut(cut: Numbers, jobs: int) -> str:
    if cut["refused"]:
        return f"**refused**: `{_error(cut['refused'])}`"
    if cut["again"] == 0:
        what = "repaired, no job runs again" if cut["results"] == jobs else "counted as done"
    elif cut["again"] == 1:
        what = "that job runs again"
    else:
        what = f"{cut['again']} finished jobs run again"
    if cut["results"] < jobs:
        what += f", {_count(jobs - cut['results'], 'record')} missing"
    if cut["again_later"]:
        what += f"; the next start runs {_count(cut['again_later'], 'finished job')} again"
    return what


def _count(what: int | Sequence[Any], one: str, many: str = "") -> str:
    number = what if isinstance(what, int) else len(what)
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _names(names: Sequence[str]) -> str:
    """The first three of them, each once; a fork of the script has its name."""
    shown = ["its forks" if name == FORK else f"`{_short(name)}`" for name in Counter(names)]
    return ", ".join([*shown[:3], "…"] if len(shown) > 3 else shown)


def _error(text: str) -> str:
    """The name of an exception, or what a program says before it quotes a record."""
    named = re.match(r"(?:[\w.]+\.)?(\w+):", text)
    exception = named and named[1][:1].isupper()
    return named[1] if named and exception else _short(text.partition("\t")[0])


def _short(text: str, most: int = 60) -> str:
    """Of a message its beginning; a `|` would end the cell."""
    text = text.replace("|", "/").replace("`", "'")
    return text if len(text) <= most else text[: most - 1] + "…"


WORDS = {"crash": crash_in_words, "kill": kill_in_words, "torn": torn_in_words}
