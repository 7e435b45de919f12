"""One compact view in a terminal: a bar, the counts, the workers; failures scroll above it.

rich is imported here and nowhere else. The cursor stays visible and the standard streams
stay as they are, so that a kill at any moment leaves a usable terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import IO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from supervisor.core.state.snapshot import (
    FailureSnapshot,
    NeedsSnapshot,
    NodeSnapshot,
    RunSnapshot,
    WorkerSnapshot,
)
from supervisor.core.terms.jobs import Counts
from supervisor.core.terms.wording import (
    count,
    cut,
    duration,
    ends_about,
    harmless,
    one_line,
    percent,
    printed_lines,
    rate,
    shorten,
    size,
)
from supervisor.views.console import ConsoleWriter
from supervisor.views.failure_lines import FailureLimit, failure_line, tail_lines
from supervisor.views.plain_view import (
    SILENT_AFTER,
    node_line,
    nodes_of,
    situation_of,
    taken_of,
    unfit_of,
    waiting_of,
)
from supervisor.views.view import SilentView

OFTEN, SELDOM = 0.5, 1.0  # seconds between two drawings
OFTEN_FOR = 10.0  # the first so many seconds of a run
_MOST_WORKERS = 8  # lines of workers; the others are counted
_MOST_TOLD = 60  # characters of a job's report
_MOST_DOMAIN_LINES = 4
_MOST_NODES = 6  # lines of nodes; the others are counted
_MOST_TAKEN_LINES = 2  # of what jobs take
_MOST_FAILURES = 20  # shown between two updates
_STYLES = {"warning": "yellow", "error": "bold red"}


class TerminalView(SilentView):
    """Draws on a terminal, through a `ConsoleWriter`."""

    def __init__(self, outlet: ConsoleWriter, now: Callable[[], datetime] = datetime.now) -> None:
        self._outlet = outlet
        self._now = now
        self._limit = FailureLimit(_MOST_FAILURES)
        # ConsoleWriter has the methods of a text file that rich uses.
        file = cast(IO[str], outlet)
        self._console = Console(file=file, force_terminal=True, highlight=False, soft_wrap=False)
        self._live: Live | None = None
        self._elapsed = 0.0

    @property
    def interval(self) -> float:  # type: ignore[override]
        return OFTEN if self._elapsed < OFTEN_FOR else SELDOM

    def update(self, snapshot: RunSnapshot) -> None:
        self._elapsed = snapshot.elapsed
        if suppressed := self._limit.release():
            self._print(Text(f"... and {count(suppressed, 'more failure')}", style="red"))
        self._fit()
        self._draw(frame(snapshot, self._now(), self._console.width, self._console.height))

    def message(self, level: str, text: str) -> None:
        prefix = "" if level == "info" else f"{level}: "
        self._print(Text(f"{self._now():%H:%M:%S}  {prefix}{harmless(text)}", style=_STYLES.get(level, "")))

    def failed(self, failure: FailureSnapshot) -> None:
        if not self._limit.allows():
            return
        text = f"{self._now():%H:%M:%S}  {failure_line(failure)}"
        lines = [Text(text, style="red" if failure.final else "yellow")]
        lines.extend(Text(f"    | {line}", style="dim") for line in tail_lines(failure))
        self._print(Group(*lines))

    def output(self, job_id: str, text: str) -> None:
        name = one_line(job_id)
        lines = (Text.assemble((f"[{name}] ", "cyan"), line) for line in printed_lines(text))
        self._print(Group(*lines))

    def suspend(self) -> None:
        self._erase()
        self._outlet.drain(0.5)

    def close(self, snapshot: RunSnapshot | None = None) -> None:
        if suppressed := self._limit.release():
            self._print(Text(f"... and {count(suppressed, 'more failure')}", style="red"))
        self._erase()

    # --------------------------------------------------------------------- drawing

    def _fit(self) -> None:
        """Read the terminal's size at each update, so no handler for a resize is needed."""
        try:
            columns, lines = os.get_terminal_size(self._outlet.fileno())
        except OSError:
            columns, lines = 80, 24
        self._console.size = (columns or 80, lines or 24)

    def _draw(self, renderable: RenderableType) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._live.start()
            self._console.show_cursor(True)
        self._live.update(renderable, refresh=True)

    def _erase(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _print(self, renderable: RenderableType) -> None:
        self._console.print(renderable, soft_wrap=False)


# ------------------------------------------------------------------------------ the frame


def frame(snapshot: RunSnapshot, now: datetime, width: int, height: int) -> RenderableType:
    """What is drawn: at most `height` - 1 lines, none longer than the terminal is wide."""
    lines: list[RenderableType] = [_title(snapshot), _bar(snapshot, now, width), _counts(snapshot)]
    if situation := situation_of(snapshot):
        lines.append(_one_line(situation, "yellow"))
    if room := _room(snapshot):
        lines.insert(3, _one_line(room, "dim"))
    if snapshot.needs is not None:
        lines.extend(_needs(snapshot.needs, width))
    if snapshot.nodes is not None:
        lines.extend(_nodes(snapshot.nodes, min(_MOST_NODES, height - 4 - len(lines))))
    left_over = height - 2 - len(lines) - min(_MOST_WORKERS, len(snapshot.workers))
    lines.extend(_domains(snapshot.domains, min(_MOST_DOMAIN_LINES, left_over), width))
    lines.extend(_workers(snapshot.workers, min(_MOST_WORKERS, height - 2 - len(lines)), width))
    return Group(*lines[: max(1, height - 1)])


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _title(snapshot: RunSnapshot) -> Text:
    text = _one_line("")
    text.append(f"{one_line(snapshot.name)} ", style="bold")
    text.append(f"{snapshot.experiment_id}  {snapshot.state.replace('_', ' ')}  {duration(snapshot.elapsed)}")
    return text


def _bar(snapshot: RunSnapshot, now: datetime, width: int) -> RenderableType:
    counts = snapshot.counts
    done = counts.completed + counts.failed
    words = f" {percent(done, snapshot.asked)}  {done:,} of {snapshot.asked:,}"
    left = counts.left - snapshot.unselected
    if left and (end := ends_about(now, snapshot.eta_seconds)):
        words += f"  {end}"
    grid = Table.grid(padding=0)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    room = max(5, min(60, width - len(words) - 1))
    grid.add_row(ProgressBar(total=max(1, snapshot.asked), completed=done, width=room), words)
    return grid


def _counts(snapshot: RunSnapshot) -> Text:
    counts = snapshot.counts
    text = _one_line("")
    text.append(f"{counts.completed:,} completed", style="green")
    text.append(f"  {counts.failed:,} failed", style="red" if counts.failed else "")
    text.append(f"  {counts.in_progress:,} in progress  {counts.pending:,} pending")
    if snapshot.rate > 0:
        text.append(f"  {rate(snapshot.rate)}")
    if snapshot.crashes:
        text.append(f"  {snapshot.crashes:,} crashed", style="yellow")
    if snapshot.timeouts:
        text.append(f"  {snapshot.timeouts:,} timed out", style="yellow")
    return text


def _room(snapshot: RunSnapshot) -> str:
    """The age of the checkpoint, and the free space on disk and in memory."""
    parts = []
    if snapshot.checkpoint_age is not None:
        parts.append(f"checkpoint {duration(snapshot.checkpoint_age)} ago")
    if snapshot.disk_free is not None:
        parts.append(f"disk {size(snapshot.disk_free)} free")
    if snapshot.memory_free is not None and snapshot.memory_total is not None:
        parts.append(f"memory {size(snapshot.memory_free)} of {size(snapshot.memory_total)} free")
    return "  ".join(parts)


def _needs(needs: NeedsSnapshot, width: int) -> list[Text]:
    """What jobs take of what there is, in at most two lines; which one waits; how many do not fit."""
    lines = ["given"]
    for part in taken_of(needs):
        if len(lines) == _MOST_TAKEN_LINES or len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(f"       {part}")
    shown = [_one_line(line) for line in lines]
    if waiting := waiting_of(needs, width):
        shown.append(_one_line(waiting))
    if unfit := unfit_of(needs, width):
        shown.append(_one_line(unfit, "yellow"))
    return shown


def _nodes(nodes: list[NodeSnapshot], room: int) -> list[Text]:
    """How many, and a line for each; if there are too many, those that were silent for longest, then the busiest."""
    if len(nodes) == 1:
        return [_one_line(node_line(nodes[0]), "dim")]
    shown = nodes
    if len(nodes) > room:
        shown = sorted(
            nodes, key=lambda node: (-(node.heard_age or 0.0) // SILENT_AFTER, -(node.load or 0.0))
        )
        shown = sorted(shown[: max(0, room - 1)], key=lambda node: node.place)
    wide = max((len(node.node) for node in shown), default=0)
    lines = [_one_line(f"      {node_line(node, min(wide, 40))}", "dim") for node in shown]
    more = f", {len(shown)} of them here" if len(shown) < len(nodes) else ""
    return [_one_line(f"{nodes_of(nodes)}{more}"), *lines]


def _domains(domains: dict[str, Counts], room: int, width: int) -> list[RenderableType]:
    """Domains in columns, as many as fit: first those with running jobs, then those with failures, pending and
    finished ones."""
    if room < 1 or len(domains) < 2 or max(counts.total for counts in domains.values()) < 2:
        return []
    ranked = sorted(domains.items(), key=_urgency)
    cell = min(max(len(one_line(name)) for name in domains) + 12, 34, width)
    columns = max(1, width // cell)
    shown = ranked if len(ranked) <= columns * room else ranked[: columns * room - 1]
    cells = [_domain(name, counts, cell) for name, counts in shown]
    if len(shown) < len(ranked):
        cells.append(Text(f"+ {len(ranked) - len(shown):,} more domains", style="dim"))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return [Text("", no_wrap=True, overflow="ellipsis", end="\n").join(row) for row in rows]


def _urgency(entry: tuple[str, Counts]) -> int:
    counts = entry[1]
    if counts.in_progress:
        return 0
    if counts.failed:
        return 1
    return 2 if counts.pending else 3


def _domain(name: str, counts: Counts, width: int) -> Text:
    done = counts.completed + counts.failed
    numbers = f"{done}/{counts.total}" + (f" ({counts.failed})" if counts.failed else "")
    short = shorten(one_line(name), max(3, width - len(numbers) - 3))
    style = "red" if counts.failed else "green" if done == counts.total else ""
    return Text(f"{short} {numbers}".ljust(width), style=style)


def _workers(workers: list[WorkerSnapshot], room: int, width: int) -> list[RenderableType]:
    """One line per worker; if there are too many, those whose jobs have run longest."""
    if room < 1 or not workers:
        return []
    shown = workers
    if len(workers) > room:
        shown = sorted(workers, key=lambda worker: (worker.job is None, -worker.seconds))[: room - 1]
    shown = sorted(shown, key=lambda worker: worker.worker)
    told = max((len(_told(worker)) for worker in shown), default=0)
    lines: list[RenderableType] = [_worker(worker, width, told) for worker in shown]
    if len(shown) < len(workers):
        lines.append(_one_line(f"    + {len(workers) - len(shown):,} more", "dim"))
    return lines


def _told(worker: WorkerSnapshot) -> str:
    """The job's last report, and whether it is slow."""
    if worker.job is None:
        return ""
    parts = ["slow"] if worker.slow else []
    if worker.fraction is not None:
        parts.append(f"{worker.fraction:.0%} done")
    for name, value in worker.metrics.items():
        parts.append(
            f"{one_line(name)}={value:.4g}" if isinstance(value, float) else one_line(f"{name}={value}")
        )
    return cut("  " + " ".join(parts), _MOST_TOLD) if parts else ""


def _worker(worker: WorkerSnapshot, width: int, told: int) -> Text:
    """`told`: the width of the longest report of a job."""
    usage = f"{size(worker.rss_bytes):>6} {worker.cpu_percent:4.0f}%" if worker.rss_bytes else " " * 12
    if worker.job is None:
        what = "waiting for a job" if worker.status == "ready" else worker.status
        return _one_line(f"{worker.worker:>4}  {what}", "dim")
    again = f" (attempt {worker.attempt})" if worker.attempt > 1 else ""
    room = max(10, min(60, width - 32 - min(told, max(12, width - 32 - 40))))
    name = shorten(one_line(worker.job), max(5, room - len(again))) + again
    line = _one_line(f"{worker.worker:>4}  {name:<{room}}  {duration(worker.seconds):>8}  {usage}")
    return line.append(_told(worker), style="yellow" if worker.slow else "cyan")
