"""A timeline as JSON for the browser: pieces of the time axis, lanes, series, marks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from supervisor.page.markup import clean
from supervisor.page.timeline import OUTCOMES, MemorySample, Timeline
from supervisor.page.worker_bins import WorkerBins

MOST_CELLS = 60_000  # bins of lanes in a document
MOST_POINTS = 1_500  # of a series
MOST_SPANS = 20_000  # bins by which the axis is made
MOST_MEMORY = 60_000  # values of memory, all workers together

_BREAK = 60.0  # seconds without anything that are left out of the axis, at least
_SHARE = 0.04  # and this share of all that is on it


def timeline_document(timeline: Timeline, now: float | None) -> dict[str, Any]:
    """now: until when a live run has come; None if nobody runs it."""
    sums = timeline.bins.together().at_most(MOST_POINTS)
    origin = origin_of(timeline)
    last = now or (timeline.runs[-1].end if timeline.runs else timeline.last or 0.0)
    return {
        "origin": round(origin, 3),
        "now": None if now is None else round(now - origin, 3),
        "pieces": [[_ms(a, origin), _ms(b, origin)] for a, b in axis_pieces(timeline, last)],
        "slots": sorted(
            {*timeline.bins.slots, *timeline.peaks}, key=lambda slot: (timeline.nodes.get(slot, ""), slot)
        ),
        "nodes": {str(slot): clean(name) for slot, name in sorted(timeline.nodes.items())},
        "outcomes": OUTCOMES,
        "runs": [
            {
                "number": run.number,
                "start": None if run.start is None else _ms(run.start, origin),
                "end": _ms(now if now is not None and run is timeline.runs[-1] else run.end, origin),
                "state": run.state,
                "host": clean(run.host),
            }
            for run in timeline.runs
        ],
        "pauses": [
            {
                "why": clean(pause.why),
                "detail": clean(pause.detail),
                "start": _ms(pause.start, origin),
                "end": _ms(last if pause.end is None else pause.end, origin),
            }
            for pause in timeline.pauses
        ],
        "marks": [
            {"kind": mark.kind, "at": _ms(mark.at, origin), "text": clean(mark.text), "slot": mark.slot}
            for mark in timeline.marks
        ],
        "moreMarks": timeline.more_marks,
        "rewritten": None if timeline.rewritten is None else _ms(timeline.rewritten, origin),
        "series": _series(sums, origin, len(timeline.bins.slots)),
        "memory": _memory(timeline.samples, origin),
        "peaks": {str(slot): peak for slot, peak in sorted(timeline.peaks.items())},
    }


def lanes_document(timeline: Timeline) -> dict[str, Any]:
    """Attempts one by one, or bins if there are too many; times from the same origin."""
    origin, attempts = origin_of(timeline), timeline.attempts
    if attempts is not None:
        places: dict[str, int] = {}
        jobs = [places.setdefault(one.job, len(places)) for one in attempts]
        return {
            "ids": [clean(name) for name in places],
            "slot": [one.slot for one in attempts],
            "start": [_ms(one.start, origin) for one in attempts],
            "seconds": [round(one.end - one.start, 4) for one in attempts],
            "outcome": [one.outcome for one in attempts],
            "job": jobs,
        }
    bins = timeline.bins.at_most(MOST_CELLS)
    rows = list(bins)
    return {
        "width": bins.width,
        "slot": [one.slot for one in rows],
        "start": [_ms(one.start, origin) for one in rows],
        "busy": [round(min(one.busy, bins.width), 2) for one in rows],
        "ended": [one.ended for one in rows],
        "failed": [one.failed for one in rows],
    }


def origin_of(timeline: Timeline) -> float:
    """From when the times in both documents count."""
    starts = [run.start for run in timeline.runs if run.start is not None]
    return min([*starts, timeline.first or 0.0])


def _ms(at: float, origin: float) -> float:
    return round(at - origin, 3)


def axis_pieces(timeline: Timeline, last: float) -> list[tuple[float, float]]:
    """The stretches of time in which something happened; what lies between two of them is left out of the axis."""
    sums = timeline.bins.together().at_most(MOST_SPANS)
    first = origin_of(timeline)
    spans = [(max(first, one.start), one.start + sums.width) for one in sums]
    spans += [(run.end if run.start is None else run.start, run.end) for run in timeline.runs]
    if timeline.runs and not timeline.runs[-1].state:
        spans.append((timeline.runs[-1].end, max(timeline.runs[-1].end, last)))
    spans.sort()
    total = _length(_joined(spans, 0.0))
    return _joined(spans, max(_BREAK, _SHARE * total))


def _joined(spans: Iterable[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for start, end in spans:
        if found and start - found[-1][1] <= gap:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _length(spans: Iterable[tuple[float, float]]) -> float:
    return sum(end - start for start, end in spans)


def _series(sums: WorkerBins, origin: float, workers: int) -> dict[str, Any]:
    """Attempts ended and failed, and workers busy, of all workers together."""
    rows, width = list(sums), sums.width
    return {
        "width": width,
        "t": [_ms(one.start, origin) for one in rows],
        "busy": [round(min(workers, one.busy / width), 3) for one in rows],
        "ended": [one.ended for one in rows],
        "failed": [one.failed for one in rows],
    }


def _memory(samples: Sequence[MemorySample], origin: float) -> dict[str, Any]:
    """Megabytes by worker slot; the largest of the samples that are taken together."""
    slots = sorted({int(slot) for sample in samples for slot in sample.rss})
    most = max(100, min(MOST_POINTS, MOST_MEMORY // max(1, len(slots))))
    step = -(-len(samples) // most) if samples else 1
    groups = [samples[start : start + step] for start in range(0, len(samples), step)]
    return {
        "t": [_ms(group[-1].at, origin) for group in groups],
        "free": [_megabytes(min((one.free for one in group if one.free), default=0)) for group in groups],
        "slots": {
            str(slot): [
                _megabytes(max((one.rss.get(str(slot), 0) for one in group), default=0)) for group in groups
            ]
            for slot in slots
        },
        "together": step,
    }


def _megabytes(number: int) -> float | None:
    return round(number / 2**20, 1) if number else None
