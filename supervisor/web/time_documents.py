"""The timeline as answers: bins of worker lanes, and curves, of a stretch of time and for so many pixels. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from supervisor.core.terms.errors import UsageError
from supervisor.page.timeline import OUTCOMES, Timeline
from supervisor.page.timeline_document import origin_of, timeline_document
from supervisor.page.worker_bins import Bin, WorkerBins

MOST_SINGLY = 1_200  # attempts that are answered one by one
MOST_CELLS = 2_400  # bins of a reply, whatever width is asked for: 100 KB
USUAL_WIDTH = 1_000
MOST_WIDTH = 4_000

Running = tuple[int, str, float]  # slot, job, since when in seconds since the epoch


class TimeRange(NamedTuple):
    """Seconds since the epoch; width: how many bins side by side are of use."""

    start: float
    end: float
    width: int


def parse_stretch(query: Mapping[str, str]) -> TimeRange:
    """From `from`, `to` and `width`; all of them may be left out. Raises UsageError."""
    start, end = _number(query, "from", -math.inf), _number(query, "to", math.inf)
    if not start < end:
        raise UsageError(f"from={query.get('from')} is not before to={query.get('to')}")
    width = query.get("width") or str(USUAL_WIDTH)
    if not width.isdecimal() or len(width) > 6 or int(width) < 1:
        raise UsageError(f"width={width!r}: expected how many bins are wanted side by side, such as 1000")
    return TimeRange(start, end, min(int(width), MOST_WIDTH))


def _number(query: Mapping[str, str], name: str, usual: float) -> float:
    text = query.get(name)
    if not text:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{name}={text!r}: expected seconds since the epoch")
    return value


class TimePicture:
    """A timeline at one moment, ready to be asked for any stretch of time: bins of every width, made once."""

    def __init__(self, timeline: Timeline, now: float | None) -> None:
        self.timeline = timeline
        self.now = now
        self.head = timeline_document(timeline, now)
        self.lanes = _widths(timeline.bins)
        self.sums = _widths(timeline.bins.together())


def _widths(bins: WorkerBins) -> list[WorkerBins]:
    """From the finest bins to those of which the whole time has few. Those twice as wide as the finest are left out:
    they would take as much memory as all that are wider."""
    found = [bins]
    while found[-1].filled() > 8 * max(1, len(bins.slots)):
        wider = found[-1].widened()
        found.append(wider.widened() if len(found) == 1 else wider)
    return found


def _bins(widths: Sequence[WorkerBins], wanted: TimeRange, lanes: int) -> tuple[float, list[Bin]]:
    """The finest bins of which the stretch has no more than are of use."""
    most = min(MOST_CELLS, wanted.width * max(1, lanes))
    best: tuple[float, list[Bin]] | None = None
    for bins in reversed(widths):
        cells = []
        for one in bins.between(wanted.start, wanted.end):
            if one.start + bins.width > wanted.start and one.start < wanted.end:
                cells.append(one)
                if len(cells) > most and best is not None:
                    return best
        best = bins.width, cells
    return best or (1.0, [])


def lanes_answer(
    picture: TimePicture, wanted: TimeRange, running: Iterable[Running], *, complete: bool
) -> dict[str, Any]:
    """Times are seconds since `origin`, which is seconds since the epoch. lanes: attempts one by one (`job` indexes
    `ids`) if there are few, else bins. total: attempts that have ended, of all times."""
    timeline, now, head = picture.timeline, picture.now, picture.head
    origin = head["origin"]
    attempts = timeline.attempts
    singly = None
    if attempts is not None:
        singly = [one for one in attempts if one.end >= wanted.start and one.start <= wanted.end]
    alive = [one for one in running if one[2] <= wanted.end]
    document = {
        name: head[name]
        for name in ("origin", "now", "pieces", "slots", "nodes", "outcomes", "runs", "rewritten")
    }
    document["slots"] = sorted(
        {*head["slots"], *(slot for slot, _, _ in alive)},
        key=lambda slot: (timeline.nodes.get(slot, ""), slot),
    )
    if singly is not None and len(singly) + len(alive) <= MOST_SINGLY:
        places: dict[str, int] = {}
        rows = [(one.slot, one.start, one.end - one.start, one.outcome, one.job) for one in singly]
        rows += [
            (slot, since, max(0.0, (now or since) - since), len(OUTCOMES) - 1, job)
            for slot, job, since in alive
        ]
        document["lanes"] = {
            "job": [places.setdefault(row[4], len(places)) for row in rows],
            "ids": list(places),
            "slot": [row[0] for row in rows],
            "start": [round(row[1] - origin, 3) for row in rows],
            "seconds": [round(row[2], 4) for row in rows],
            "outcome": [row[3] for row in rows],
        }
    else:
        width, cells = _bins(picture.lanes, wanted, len(timeline.bins.slots))
        document["lanes"] = {
            "width": width,
            "slot": [one.slot for one in cells],
            "start": [round(one.start - origin, 3) for one in cells],
            "busy": [round(min(one.busy, width), 2) for one in cells],
            "ended": [one.ended for one in cells],
            "failed": [one.failed for one in cells],
        }
    return {**document, "total": timeline.ended, "failed": timeline.failed, "complete": complete}


def series_answer(picture: TimePicture, wanted: TimeRange, *, complete: bool) -> dict[str, Any]:
    """Attempts ended and failed, workers busy (ETA follows from them), memory, marks, pauses, runs; as `lanes_answer`
    has times. total: points of the series of that stretch."""
    timeline, head = picture.timeline, picture.head
    origin = origin_of(timeline)
    workers = len(timeline.bins.slots)
    width, rows = _bins(picture.sums, wanted, 1)
    first, last = wanted.start - origin, wanted.end - origin
    memory = head["memory"]
    kept = [at for at, when in enumerate(memory["t"]) if first <= when <= last]
    return {
        "origin": head["origin"],
        "now": head["now"],
        "runs": head["runs"],
        "pauses": [one for one in head["pauses"] if one["end"] >= first and one["start"] <= last],
        "marks": [one for one in head["marks"] if first <= one["at"] <= last],
        "moreMarks": head["moreMarks"],
        "peaks": head["peaks"],
        "series": {
            "width": width,
            "t": [round(one.start - origin, 3) for one in rows],
            "busy": [round(min(workers, one.busy / width), 3) for one in rows],
            "ended": [one.ended for one in rows],
            "failed": [one.failed for one in rows],
        },
        "memory": {
            "t": [memory["t"][at] for at in kept],
            "free": [memory["free"][at] for at in kept],
            "slots": {slot: [values[at] for at in kept] for slot, values in memory["slots"].items()},
            "together": memory["together"],
        },
        "total": len(rows),
        "complete": complete,
    }
