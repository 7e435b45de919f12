"""A report as one HTML file: what can be read without JavaScript as HTML, the rest as data for the modules. Pure.

Nothing in the file is asked for from outside: its policy lets nothing through but the scripts and styles that it
was made with, by their checksums.
"""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import datetime
from math import log10
from typing import Any

import msgspec

from supervisor.core.terms.jobs import Counts
from supervisor.core.terms.version import VERSION
from supervisor.core.terms.wording import count, cut, duration, size, told_lines
from supervisor.page.duration_summary import MOST_DOMAINS, DomainDurations
from supervisor.page.failure_groups import FailureGroup
from supervisor.page.markup import Markup, data_block, joined, tag
from supervisor.page.page_assets import bundled, library, library_licence, source_of, styles
from supervisor.page.typed_columns import Column
from supervisor.page.verdict import Step, Verdict

MOST_GROUPS = 100  # kinds of failures that are shown
UNFOLDED = 5  # kinds of failures that are shown whole
MOST_JOBS = 200  # ids named with a kind
_FEW_JOBS = 8
_MOST_TRACEBACK = 20_000  # characters
_MOST_MESSAGE = 600
# Where a server forbids style sheets in a page, as Jenkins does; else those of the style sheet count.
_FILLS = {"completed": "#1a7332", "failed": "#c0262d", "in-progress": "#0757b5", "pending": "#d5dae0"}
_PRECISION = 1000  # a share in tenths of a percent, for pictures


class ReportFacts(msgspec.Struct, kw_only=True):
    """All that a report shows.

    directory: where its commands are to be typed; "" if it is not known. row_words: which jobs are in `columns`,
    "" if all are. written: when, in seconds since the epoch. about: pairs for the end of the page.
    """

    experiment_id: str
    name: str
    verdict: Verdict
    counts: Counts
    groups: list[FailureGroup]
    timeline: dict[str, Any]
    lanes: dict[str, Any]
    durations: list[DomainDurations]
    ids_of_longest: list[str]
    columns: list[Column]
    rows: int
    row_words: str
    csv_command: str
    failures_command: str
    directory: str
    active_seconds: float
    attempts: int
    written: float
    about: list[tuple[str, str]]


def report_page(facts: ReportFacts) -> Iterator[bytes]:
    """The file, in pieces."""
    title = f"{facts.verdict.glyph} {facts.name} {facts.experiment_id}".strip()
    policy = (
        f"default-src 'none'; script-src {source_of(library())} {source_of(bundled())}; "
        f"style-src {source_of(styles())}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = joined(
        [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="generator", content=f"longhaul {VERSION}"),
            tag("title", title),
            tag("link", rel="icon", href="data:,"),
            tag("style", Markup(styles())),
        ]
    )
    yield f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n<body>\n'.encode()
    yield _utf8(_summary(facts))
    sections = (_failures(facts), _timeline(), _durations(facts), _results(facts), _about(facts))
    yield _utf8(tag("main", *sections))
    counts = {**msgspec.to_builtins(facts.counts), "left": facts.counts.left}
    yield _utf8(data_block("facts", {"timeline": facts.timeline, "counts": counts}))
    results = {"columns": facts.columns, "rows": facts.rows, "note": facts.row_words}
    for name, document in (("packed-lanes", facts.lanes), ("packed-rows", results)):
        packed = b64encode(gzip.compress(msgspec.json.encode(document), 6, mtime=0))
        yield b'<script type="text/plain" id="%b">%b</script>\n' % (name.encode(), packed)
    yield f'<script>{library()}</script>\n<script type="module">{bundled()}</script>\n'.encode()
    yield b"</body>\n</html>\n"


def _utf8(part: Markup) -> bytes:
    return part.encode("utf-8", "replace") + b"\n"


# ----------------------------------------------------------------------------- summary


def _summary(facts: ReportFacts) -> Markup:
    verdict, counts = facts.verdict, facts.counts
    name = joined([facts.name, " ", tag("span", facts.experiment_id, class_="muted")])
    when = _when(facts.written)
    links = [("what-failed", "Failures")] if facts.groups else []
    links += [
        ("over-time", "Timeline"),
        ("durations", "Durations"),
        ("all-results", "Results"),
        ("about", "About"),
    ]
    return tag(
        "header",
        tag("h1", name),
        tag(
            "div",
            tag("p", tag("span", f"{verdict.glyph} ", class_="glyph"), verdict.headline, class_=verdict.kind),
            *[tag("p", line) for line in verdict.lines],
            class_=f"verdict {verdict.kind}",
        ),
        _bar(counts),
        _numbers(facts),
        _steps(verdict.steps, facts.directory),
        tag("p", f"Written {when} by longhaul {VERSION}; it shows what was recorded by then.", class_="note"),
        tag(
            "nav",
            *[joined([tag("a", words, href=f"#{place}"), " "]) for place, words in links],
            aria_label="sections",
        ),
    )


def _bar(counts: Counts) -> Markup | None:
    if not counts.total:
        return None
    parts = [
        ("completed", counts.completed),
        ("failed", counts.failed),
        ("in-progress", counts.in_progress),
        ("pending", counts.pending),
    ]
    label = ", ".join(f"{number:,} {name.replace('-', ' ')}" for name, number in parts if number)
    at, pieces = 0.0, []
    for name, number in parts:
        wide = number * _PRECISION / counts.total
        if number:
            wide = max(wide, 4.0)  # one failure in a million can be seen
            place = {"x": f"{at:.1f}", "y": "0", "width": f"{wide:.1f}", "height": "12"}
            pieces.append(tag("rect", **place, fill=_FILLS[name], class_=name))
            at += wide
    return tag(
        "svg",
        *pieces,
        width="100%",
        height="12",
        viewBox=f"0 0 {at:.1f} 12",
        preserveAspectRatio="none",
        class_="bar",
        role="img",
        aria_label=label,
    )


def _numbers(facts: ReportFacts) -> Markup:
    counts = facts.counts
    shown = [
        ("completed", f"{counts.completed:,}", ""),
        ("failed", f"{counts.failed:,}", "bad" if counts.failed else ""),
    ]
    if counts.left:
        shown.append(("left", f"{counts.left:,}", ""))
    shown.append(("attempts", f"{facts.attempts:,}", ""))
    runs = len(facts.timeline["runs"])
    shown.append(("runs" if runs != 1 else "run", f"{runs:,}", ""))
    shown.append(("time at work", duration(facts.active_seconds), ""))
    if facts.timeline["slots"]:
        shown.append(("workers", f"{len(facts.timeline['slots']):,}", ""))
    items = [
        tag("li", tag("b", number), " ", tag("span", ("✗ " if kind else "") + name), class_=kind or None)
        for name, number, kind in shown
    ]
    return tag("ul", *items, class_="numbers")


def _steps(steps: Sequence[Step], directory: str) -> Markup | None:
    if not steps:
        return None
    where = tag("p", "In ", tag("code", directory), ":", class_="note") if directory else None
    items = [tag("li", step.words + ":", _command(step.command)) for step in steps]
    return tag("section", tag("h2", "What to do next"), where, tag("ol", *items, class_="steps"))


def _command(text: str) -> Markup:
    return tag(
        "div",
        tag("code", text),
        tag("button", "copy", type="button", class_="copy", hidden=True),
        class_="command",
    )


# ---------------------------------------------------------------------------- failures


def _failures(facts: ReportFacts) -> Markup:
    groups = facts.groups
    if not groups:
        return Markup("")
    parts: list[object] = [tag("h2", "What failed, and why", id="what-failed")]
    final = sum(1 for one in groups if one.jobs)
    kinds = f"{count(len(groups), 'kind')} of failure, {final:,} of them for good. "
    kinds += "A job fails for good when its attempts are used up."
    parts.append(tag("p", kinds, class_="note"))
    parts += [_group(one, folded=place >= UNFOLDED) for place, one in enumerate(groups[:MOST_GROUPS])]
    if len(groups) > MOST_GROUPS:
        rest = groups[MOST_GROUPS:]
        jobs = sum(len(one.jobs) for one in rest)
        words = f"And {count(len(rest), 'more kind')}, with {count(jobs, 'failed job')}; all are listed by:"
        parts += [tag("p", words), _command(facts.failures_command)]
    elif any(len(one.jobs) + len(one.again) > MOST_JOBS for one in groups):
        parts += [tag("p", "The ids of all of them:", class_="note"), _command(facts.failures_command)]
    return tag("section", *parts)


def _group(one: FailureGroup, *, folded: bool) -> Markup:
    """folded: only its first line until it is opened, so that forty kinds can be looked over on a phone."""
    jobs, again = list(dict.fromkeys(one.jobs)), list(dict.fromkeys(one.again))
    told = [f"{count(len(jobs), 'job')} failed"] if jobs else []
    told += [f"{count(len(one.again), 'attempt')} ran again"] if again else []
    first, last = _time(one.first_at), _time(one.last_at)
    told.append(first if first == last else f"{first} to {last}")
    if one.peak_rss:
        told.append(f"peak memory {size(one.peak_rss)}")
    elif one.worker_peak_rss:
        told.append(f"its worker's peak {size(one.worker_peak_rss)}, perhaps by an earlier job")
    glyph = "✗" if jobs else "↻"
    heading = tag("h3", f"{glyph} ", one.kind)
    parts: list[object] = [
        None if folded else heading,
        tag("p", ", ".join(told), class_="note"),
        tag("p", cut(one.message, _MOST_MESSAGE)) if one.message else None,
        _named("failed", jobs),
        _named("ran again", again),
    ]
    trace = one.traceback.strip()
    if trace:
        shown = trace if len(trace) <= _MOST_TRACEBACK else f"… {trace[-_MOST_TRACEBACK:]}"
        lines = [line.strip() for line in trace.splitlines() if line.startswith("  File ")]
        words = [f"traceback of {one.example}", *lines[-1:]]
        parts.append(
            tag("details", tag("summary", ": ".join(words)), tag("pre", "\n".join(told_lines(shown))))
        )
    if one.output_tail:
        parts.append(tag("p", f"last output of {one.example}:", class_="note"))
        parts.append(tag("pre", "\n".join(one.output_tail)))
    if folded:
        about = tag("span", told[0], class_="note")
        parts = [tag("details", tag("summary", heading, " ", about), *parts)]
    return tag("article", *parts, class_="group" if jobs else "group again")


def _named(word: str, jobs: Sequence[str]) -> Markup | None:
    """The first ids, the others behind a word to open."""
    if not jobs:
        return None
    few = tag(
        "p", f"{word}: ", tag("bdi", ", ".join(jobs[:_FEW_JOBS])), "" if len(jobs) <= _FEW_JOBS else ", …"
    )
    if len(jobs) <= _FEW_JOBS:
        return few
    shown = ", ".join(jobs[:MOST_JOBS])
    more = f" and {len(jobs) - MOST_JOBS:,} more" if len(jobs) > MOST_JOBS else ""
    every = f"all {len(jobs):,}" if not more else f"the first {MOST_JOBS} of {len(jobs):,}"
    return joined([few, tag("details", tag("summary", every), tag("p", tag("bdi", shown), more))])


# ---------------------------------------------------------------- pictures and tables


_NEEDS_SCRIPT = (
    "The plot and the table are drawn by JavaScript, which does not run here. To have the results: "
)


def _timeline() -> Markup:
    return tag(
        "section",
        tag("h2", "Over time", id="over-time"),
        tag("p", "The timeline is drawn by JavaScript, which does not run here.", class_="note undrawn"),
        tag("div", id="lanes", class_="drawing"),
        tag("div", id="series", class_="drawing charts"),
    )


def _durations(facts: ReportFacts) -> Markup:
    parts: list[object] = [tag("h2", "How long jobs took", id="durations")]
    shown = facts.durations[:MOST_DOMAINS]
    if not shown:
        return tag("section", *parts, tag("p", "No job has ended yet.", class_="note"))
    heads = ["domain", "jobs", "failed", "median", "95 of 100 within", "longest", "in all", "spread"]
    least = min(one.least for one in shown)
    most = max(one.longest for one in shown)
    rows = []
    for one, longest in zip(shown, facts.ids_of_longest, strict=False):
        cells = [
            (one.domain or "all jobs" if len(facts.durations) == 1 else one.domain or "(none)", False),
            (f"{one.jobs:,}", True),
            (f"{one.failed:,}" if one.failed else "", True),
            (_took(one.median), True),
            (_took(one.most_of_all), True),
            (tag("span", _took(one.longest), " ", tag("span", longest, class_="muted")), True),
            (_took(one.total), True),
            (_whiskers(one, least, most), False),
        ]
        rows.append(
            tag(
                "tr",
                *[
                    tag("td", cell, data_label=head, class_="number" if right else None)
                    for (cell, right), head in zip(cells, heads, strict=True)
                ],
            )
        )
    head = tag(
        "tr",
        *[
            tag("th", name, scope="col", class_="number" if 0 < at < 7 else None)
            for at, name in enumerate(heads)
        ],
    )
    table = tag(
        "table",
        tag("caption", "Durations by domain", class_="unseen"),
        tag("thead", head),
        tag("tbody", *rows),
        class_="cards",
    )
    parts.append(
        tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="durations by domain")
    )
    words = "Of the last attempt of each job that ended. Spread: half of the jobs are in the box, the line goes from "
    words += "the shortest to the longest, in powers of ten."
    parts.append(tag("p", words, class_="note"))
    if len(facts.durations) > MOST_DOMAINS:
        rest = len(facts.durations) - MOST_DOMAINS
        parts.append(
            tag(
                "p",
                f"The {MOST_DOMAINS} domains that took the most time; {rest:,} more are not shown.",
                class_="note",
            )
        )
    return tag("section", *parts)


def _whiskers(one: DomainDurations, least: float, most: float) -> Markup:
    low = log10(max(least, 1e-6))
    span = (log10(max(most, 1e-6)) - low) or 1.0

    def place(seconds: float) -> float:
        return 10 + 980 * (log10(max(seconds, 1e-6)) - low) / span

    a, b, c, d, e = map(place, (one.least, one.quarter, one.median, one.three_quarters, one.longest))
    label = f"from {_took(one.least)} to {_took(one.longest)}, "
    label += f"half of them from {_took(one.quarter)} to {_took(one.three_quarters)}"
    return tag(
        "svg",
        tag("line", x1=f"{a:.0f}", x2=f"{e:.0f}", y1="8", y2="8", stroke="gray"),
        tag("rect", x=f"{b:.0f}", y="3", width=f"{max(3, d - b):.0f}", height="10", fill="steelblue"),
        tag("line", x1=f"{c:.0f}", x2=f"{c:.0f}", y1="1", y2="15", stroke="black", class_="median"),
        width="160",
        height="16",
        viewBox="0 0 1000 16",
        preserveAspectRatio="none",
        class_="whiskers",
        role="img",
        aria_label=label,
    )


def _took(seconds: float) -> str:
    if 0 < seconds < 0.0995:
        return f"{seconds * 1000:.3g}ms"
    return duration(seconds)


def _results(facts: ReportFacts) -> Markup:
    if facts.row_words:
        words: list[object] = [
            tag(
                "p",
                facts.row_words,
                " Numbers have at most 7 digits. All rows, with all digits, are written by:",
            ),
            _command(facts.csv_command),
        ]
    else:
        words = [
            tag("p", "All jobs; numbers have at most 7 digits here. With all digits:", class_="note"),
            _command(facts.csv_command),
        ]
    return tag(
        "section",
        tag("h2", "Results", id="all-results"),
        *words,
        tag("p", _NEEDS_SCRIPT, tag("code", facts.csv_command), class_="note undrawn"),
        tag("div", id="plot", class_="drawing"),
        tag("div", id="results", class_="drawing"),
    )


def _about(facts: ReportFacts) -> Markup:
    pairs = [item for name, value in facts.about for item in (tag("dt", name), tag("dd", value))]
    licence = tag(
        "details",
        tag("summary", "Licence of the library that draws the curves (uPlot)"),
        tag("pre", library_licence()),
    )
    return tag("section", tag("h2", "About this run", id="about"), tag("dl", *pairs, class_="about"), licence)


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z").strip()


def _time(at: str) -> str:
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return "time unknown"
