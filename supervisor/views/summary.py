"""The summary at the end of a run, in at most 24 lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from supervisor.core.state.run_history import Counted, Incidents
from supervisor.core.state.snapshot import FailureSnapshot, RunSnapshot
from supervisor.core.terms.records import BY_HAND, LOW_MEMORY
from supervisor.core.terms.wording import count, cut, duration, one_line, shorten, size
from supervisor.views.failure_lines import Group, group

_WORDS = {
    "no_space": "waited for room on the disk",
    "disk_stalled": "waited for a disk that did not answer",
    "suspended": "stood still, suspended or stopped",
    LOW_MEMORY: "waited for free memory",
    BY_HAND: "paused by hand",
}

_OF_JOBS = {
    "stopped_for_memory": "stopped because memory was short, to run again",
    "memory_left_behind": "run again in a fresh worker, for the memory that jobs before had left",
    "stalled": "used no CPU for long (--stall)",
}


_OF_PLACES = {
    "places_joined": "joined",
    "place_lost": "lost",
    "place_fenced": "fenced",
    "place_ended": "ended in order",
}


def overnight_lines(overnight: Incidents, at: str) -> list[str]:
    """`waited for room on the disk: 12m in all, 3 times`; orders from other terminals in one
    line. `at`: now, ISO 8601."""
    lines = []
    for why, stretch in overnight.waits.items():
        times = "once" if stretch.times == 1 else f"{stretch.times:,} times"
        words = _WORDS.get(why, f"nothing new was started ({why.replace('_', ' ')})")
        lines.append(f"{words}: {duration(overnight.seconds(why, at))} in all, {times}")
    for what, words in _OF_JOBS.items():
        if (seen := overnight.noted.get(what)) is not None:
            more = f" and {seen.times - 1:,} more" if seen.times > 1 else ""
            lines.append(f"{words}: {seen.first}{more}")
    if overnight.places:
        lines.append(f"nodes: {', '.join(_of_places(overnight.places))}")
    if overnight.orders:
        counted = (
            f"{order} {f'({times:,})' if times > 1 else ''}" for order, times in overnight.orders.items()
        )
        lines.append(f"longhaul ctl: {', '.join(text.strip() for text in counted)}")
    return lines


def _of_places(places: Mapping[str, Counted]) -> Iterator[str]:
    """`3 joined`, `1 lost (node2 (host))`, `1 fenced`, `2 ended in order (node0 (host) first)`."""
    for what, words in _OF_PLACES.items():
        if (seen := places.get(what)) is not None:
            first = "" if seen.times == 1 else " first"
            which = f" ({one_line(seen.first)}{first})" if what in ("place_lost", "place_ended") else ""
            yield f"{seen.times:,} {words}{which}"


LINES = 24

_AS_PLANNED = ("finished", "unfinished", "pilot done", "interrupted")

_MOST_EVENTS = 6

_MOST_ENTRIES = 5  # paths, and commands


def summary(
    snapshot: RunSnapshot,
    failures: Sequence[FailureSnapshot],
    *,
    commands: Sequence[tuple[str, str]],
    paths: Sequence[tuple[str, str]],
    events: Sequence[str] = (),
    width: int = 100,
) -> str:
    """At most 24 lines: counts, failures grouped, what happened overnight, paths, commands.

    `commands` and `paths` are (what for, text); they are never cut, because they are there
    to be copied. `failures` are all attempts of the run that ended badly.
    """
    head = _head(snapshot, width)
    tail = _entries(paths) + _entries(commands)
    happened = _few([_event(one_line(event), width) for event in events], _MOST_EVENTS, "more")
    room = LINES - len(head) - len(tail) - len(happened)
    return "\n".join(head + _failures(group(failures), room, width) + happened + tail)


def _event(event: str, width: int) -> str:
    """An event as a line; one with an option is not cut, so that it can be copied."""
    return f"  {event}" if " --" in event else cut(f"  {event}", width)


def _head(snapshot: RunSnapshot, width: int) -> list[str]:
    counts = snapshot.counts
    state = snapshot.state if snapshot.state in _AS_PLANNED else "stopped early"
    name = f"{one_line(snapshot.name)} {snapshot.experiment_id}"
    parts = [f"{counts.completed:,} completed", f"{counts.failed:,} failed"]
    parts += [f"{counts.in_progress:,} in progress", f"{counts.pending:,} pending"]
    lines = [
        f"{cut(name, width)}: {state} after {duration(snapshot.elapsed)}",
        f"  {', '.join(parts)}, of {count(counts.total, 'job')}",
    ]
    notes = [
        (snapshot.crashes, "crash", "crashes"),
        (snapshot.timeouts, "timed out", "timed out"),
        (snapshot.retries, "attempt repeated", "attempts repeated"),
        (snapshot.unselected, "job left out by --only", "jobs left out by --only"),
        (snapshot.gone, "job no longer in the plan", "jobs no longer in the plan"),
    ]
    words = [f"{number:,} {one if number == 1 else many}" for number, one, many in notes if number]
    if words:
        lines.append(cut(f"  {', '.join(words)}", width))
    return lines


def _failures(groups: list[Group], room: int, width: int) -> list[str]:
    if not groups or room < 1:
        return []
    if len(groups) <= room:
        return [_group(entry, width) for entry in groups]
    # Crashes are rare and important: up to half of the lines are reserved for them.
    kept = sorted(groups, key=lambda entry: not entry.crash)[: max(0, (room - 1) // 2)]
    kept = [entry for entry in kept if entry.crash]
    others = [entry for entry in groups if entry not in kept]
    shown = kept + others[: room - 1 - len(kept)]
    shown.sort(key=lambda entry: -entry.count)
    rest = others[room - 1 - len(kept) :]
    attempts = sum(entry.count for entry in rest)
    lines = [_group(entry, width) for entry in shown]
    return [*lines, f"  and {count(attempts, 'more failure')} of {count(len(rest), 'other kind')}"]


def _group(entry: Group, width: int) -> str:
    """`7 × ValueError model.py:88 (first job)`, `2 × SIGSEGV, peak 1.9G (first job), 1 run again`."""
    text = f"  {entry.count:,} × {cut(entry.kind, max(20, width // 2))}"
    if entry.peak_rss is not None:
        text += f", peak {size(entry.peak_rss)}"
    again = entry.count - entry.failed
    end = f", {again:,} run again" if again else ""
    room = max(12, width - len(text) - len(end) - 3)
    return f"{text} ({shorten(one_line(entry.first_job), room)}){end}"


def _entries(entries: Sequence[tuple[str, str]]) -> list[str]:
    wide = max((len(label) for label, _ in entries), default=0)
    return [f"  {label + ':':<{wide + 1}} {text}" for label, text in entries[:_MOST_ENTRIES]]


def _few(lines: list[str], most: int, words: str) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"  and {len(lines) - most + 1:,} {words}"]
