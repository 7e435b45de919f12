"""The answers that somebody wants in the morning: did it go well, what is left, what to do next. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from supervisor.core.terms.jobs import Counts
from supervisor.core.terms.wording import count, duration
from supervisor.page.failure_groups import FailureGroup

GOOD, BAD, WARNING, RUNNING = "good", "bad", "warning", "running"

GLYPHS = {GOOD: "✓", BAD: "✗", WARNING: "!", RUNNING: "●"}


class Situation(msgspec.Struct, kw_only=True):
    """What is known of an experiment when it is looked at.

    state: of the last run: finished, unfinished, interrupted, stopped, died; running, paused or draining while a
    supervisor owns it. offered: jobs that the script has; more than there are in a pilot. eta: seconds until the
    end, None if unknown. Commands are "" where none would help.
    """

    counts: Counts
    state: str
    runs: int = 1
    offered: int = 0
    ended: float | None = None  # when the last run ended, seconds since the epoch
    eta: float | None = None
    waiting_for: str = ""
    stopped_by: str = ""
    findings: list[str] = []
    resume: str = ""
    resume_failed: str = ""
    resume_all: str = ""
    show: str = ""
    replay: str = ""
    verify: str = ""
    status: str = ""
    results: str = ""


class Step(msgspec.Struct):
    """One thing to do: why, and the command for it."""

    words: str
    command: str


class Verdict(msgspec.Struct):
    """kind: good, bad, warning or running. headline: one sentence. lines: more of them."""

    kind: str
    headline: str
    lines: list[str]
    steps: list[Step]

    @property
    def glyph(self) -> str:
        return GLYPHS[self.kind]


def judge(now: Situation, groups: Sequence[FailureGroup]) -> Verdict:
    """What to tell of an experiment."""
    kind, headline, lines = _headline(now)
    if now.counts.failed and groups:
        lines += _reasons(groups, now.counts.failed)
    if now.findings:
        kind = WARNING if kind == GOOD else kind
        lines += now.findings
    return Verdict(kind, headline, lines, _steps(now))


def _headline(now: Situation) -> tuple[str, str, list[str]]:
    counts = now.counts
    done = f"{counts.completed:,} of {count(counts.total, 'job')} completed"
    failed = f"{counts.failed:,} failed" if counts.failed else "none failed"
    left = f"{counts.left:,} left to run"
    if now.state in ("running", "paused", "draining", "waiting for space"):
        return RUNNING, f"Running: {done}, {failed} so far", _live(now)
    if now.state == "died":
        text = f"The run died before its end: {done}, {failed}, {left}"
        return BAD, text, ["Its supervisor was killed, or the machine went down. What is recorded is safe."]
    if counts.left and now.state == "unfinished":
        text = f"The chosen jobs are done: {done}, {failed}, {counts.left:,} not chosen or not possible here"
        return (BAD if counts.failed else WARNING), text, []
    if counts.left:
        why = f" ({now.stopped_by})" if now.stopped_by else ""
        return BAD if counts.failed else WARNING, f"Stopped before the end{why}: {done}, {failed}, {left}", []
    if counts.failed == counts.total and counts.failed > 1:
        return BAD, f"All {count(counts.total, 'job')} failed", []
    if counts.failed:
        return BAD, f"Over, but {_share(counts)} failed; {counts.completed:,} completed", []
    if now.offered > counts.total:
        return GOOD, f"The pilot is done: all {count(counts.total, 'job')} completed, of {now.offered:,}", []
    if not counts.total:
        return WARNING, "There are no jobs", []
    if counts.total == 1:
        return GOOD, "The only job completed", []
    return GOOD, f"All {count(counts.total, 'job')} completed, none failed", []


def _share(counts: Counts) -> str:
    return f"{counts.failed:,} of {count(counts.total, 'job')}"


def _live(now: Situation) -> list[str]:
    lines = [f"{now.counts.in_progress:,} running and {now.counts.pending:,} waiting when this was written."]
    if now.waiting_for:
        lines.append(f"Nothing new is handed out: {now.waiting_for}.")
    elif now.state == "draining":
        lines.append("It is being stopped: no new jobs are started.")
    elif now.eta is not None:
        lines.append(f"At the pace of the last ten minutes the rest takes {duration(now.eta)}.")
    return lines


def _reasons(groups: Sequence[FailureGroup], failed: int) -> list[str]:
    final = [one for one in groups if one.jobs]
    if not final:
        return []
    first = final[0]
    text = f"{len(set(first.jobs)):,} of {failed:,} failed with {first.kind}"
    if len(final) == 1:
        text = f"All of them with {first.kind}" if failed > 1 else f"With {first.kind}"
    message = f": {first.message[:160]}" if first.message else ""
    more = f"; {count(len(final) - 1, 'other kind')} of failure below" if len(final) > 1 else ""
    return [f"{text}{message}{more}."]


def _steps(now: Situation) -> list[Step]:
    counts, live = now.counts, now.state in ("running", "paused", "draining", "waiting for space")
    steps = []
    if now.findings:
        steps.append(Step("See what is damaged", now.verify))
    if counts.failed:
        steps.append(Step("See how one of them failed", now.show))
        words = "Run it again in the debugger" if "--pdb" in now.replay else "Run it again here"
        steps.append(Step(words, now.replay))
    if live:
        steps.append(Step("See how it goes", now.status))
    elif counts.left:
        steps.append(Step("Go on where it stopped", now.resume))
    elif counts.failed:
        steps.append(Step("When the cause is mended, try those that failed again", now.resume_failed))
    elif now.offered > counts.total:
        steps.append(Step("Run the rest", now.resume_all))
    if not counts.failed and not live and counts.completed:
        steps.append(Step("Take the results so far" if counts.left else "Take the results", now.results))
    return [step for step in steps if step.command]
