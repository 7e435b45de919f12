"""The live view in a Jupyter notebook: one display that is updated in place, with a bar, the counts, the
workers and the last messages.

It is used in a Jupyter kernel only (`guarded_view.inside_notebook`), where IPython is imported already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from html import escape
from typing import Any

from supervisor.core.state.snapshot import FailureSnapshot, RunSnapshot, WorkerSnapshot
from supervisor.core.terms.wording import count, duration, harmless, one_line, printed_lines, shorten, size
from supervisor.views.failure_lines import FailureLimit, failure_line, tail_lines
from supervisor.views.plain_view import progress, situation_of, unfit_of
from supervisor.views.view import SilentView

_MOST_LINES = 15  # messages below the bar
_MOST_WORKERS = 8
_MOST_FAILURES = 5  # shown between two updates
_STYLES = {"warning": "color: #b58900", "error": "color: #dc322f", "info": "color: gray"}


class NotebookView(SilentView):
    """Draws HTML. `show(html, plain)` displays it, or replaces what is displayed; by default with IPython."""

    interval = 1.0

    def __init__(
        self,
        show: Callable[[str, str], None] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._show = show or _Display()
        self._now = now
        self._limit = FailureLimit(_MOST_FAILURES)
        self._lines: deque[tuple[str, str]] = deque(maxlen=_MOST_LINES)  # style, text

    def update(self, snapshot: RunSnapshot) -> None:
        self._release()
        self._draw(snapshot)

    def message(self, level: str, text: str) -> None:
        prefix = "" if level == "info" else f"{level}: "
        self._show_line(_STYLES.get(level, ""), f"{self._now():%H:%M:%S}  {prefix}{text}")

    def failed(self, failure: FailureSnapshot) -> None:
        if self._limit.allows():
            self._show_line(_STYLES["error"], f"{self._now():%H:%M:%S}  {failure_line(failure)}")
            for line in tail_lines(failure):
                self._show_line(_STYLES["info"], f"    | {line}")

    def output(self, job_id: str, text: str) -> None:
        for line in printed_lines(text):
            self._show_line("", f"[{one_line(job_id)}] {line}")

    def close(self, snapshot: RunSnapshot | None = None) -> None:
        self._release()
        if snapshot is not None:
            snapshot.workers = []  # they have ended
            self._draw(snapshot)

    def _show_line(self, style: str, text: str) -> None:
        self._lines.append((style, harmless(text)))

    def _release(self) -> None:
        if suppressed := self._limit.release():
            self._show_line(_STYLES["error"], f"... and {count(suppressed, 'more failure')}")

    def _draw(self, snapshot: RunSnapshot) -> None:
        now = self._now()
        plain = "\n".join([progress(snapshot, now), *(text for _, text in self._lines)])
        self._show(_html(snapshot, now, list(self._lines)), plain)


class _Display:
    """One display of IPython: made by the first call, updated by further ones."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, html: str, plain: str) -> None:
        from IPython import display as ipython

        display: Any = ipython.display
        bundle = {"text/html": html, "text/plain": plain}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _html(snapshot: RunSnapshot, now: datetime, lines: list[tuple[str, str]]) -> str:
    """The display as HTML. Text from outside (names, ids, messages) is escaped."""
    counts = snapshot.counts
    done = counts.completed + counts.failed
    title = f"<b>{escape(one_line(snapshot.name))}</b> {escape(snapshot.experiment_id)} {snapshot.state}"
    bar = f'<progress value="{done}" max="{max(1, snapshot.asked)}" style="width: 20em"></progress>'
    parts = [f"<div>{title}</div>", f"<div>{bar} {escape(progress(snapshot, now))}</div>"]
    if situation := situation_of(snapshot, again="Interrupting the kernel again"):
        parts.append(f'<div style="{_STYLES["warning"]}">{escape(situation)}</div>')
    if snapshot.needs is not None and (unfit := unfit_of(snapshot.needs)):
        parts.append(f'<div style="{_STYLES["warning"]}">{escape(unfit)}</div>')
    rows = [_worker(worker) for worker in snapshot.workers[:_MOST_WORKERS]]
    if more := len(snapshot.workers) - len(rows):
        rows.append(f"    + {more} more")
    texts = [escape(row) for row in rows]
    texts += [f'<span style="{style}">{escape(text)}</span>' for style, text in lines]
    if texts:
        parts.append(f'<pre style="margin: 0">{chr(10).join(texts)}</pre>')
    return "".join(parts)


def _worker(worker: WorkerSnapshot) -> str:
    if worker.job is None:
        return f"{worker.worker:>4}  {'waiting for a job' if worker.status == 'ready' else worker.status}"
    usage = f"{size(worker.rss_bytes):>6} {worker.cpu_percent:4.0f}%" if worker.rss_bytes else " " * 12
    done = "" if worker.fraction is None else f"  {worker.fraction:.0%} done"
    name = shorten(one_line(worker.job), 40)
    slow = "  slow" if worker.slow else ""
    return f"{worker.worker:>4}  {name:<40}  {duration(worker.seconds):>8}  {usage}{done}{slow}"
