"""Plain lines, for pipes and log files: progress at intervals, and one line per failure.

No colours and no cursor control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from supervisor.core.state.snapshot import (
    FailureSnapshot,
    NeedsSnapshot,
    NodeSnapshot,
    RunSnapshot,
    UnfitJobs,
)
from supervisor.core.terms.wording import (
    count,
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
from supervisor.views.view import SilentView

OFTEN, SELDOM = 10.0, 300.0  # seconds between lines
OFTEN_FOR = 600.0  # the first so many seconds of a run
_WIDE = 160  # characters of a sentence with a job's id
SILENT_AFTER = 15.0  # seconds, of which a node speaks three times
_MOST_SILENT = 2  # nodes that are named
_MOST_FAILURES = 1000  # lines between two progress lines; beyond that they are counted


def interval(elapsed: float) -> float:
    """Every 10 s for the first 10 minutes, then every 5 minutes."""
    return OFTEN if elapsed < OFTEN_FOR else SELDOM


class PlainView(SilentView):
    """Writes lines, each with the time of day."""

    def __init__(self, outlet: ConsoleWriter, now: Callable[[], datetime] = datetime.now) -> None:
        self._outlet = outlet
        self._now = now
        self._elapsed = 0.0
        self._limit = FailureLimit(_MOST_FAILURES)

    @property
    def interval(self) -> float:  # type: ignore[override]
        return interval(self._elapsed)

    def update(self, snapshot: RunSnapshot) -> None:
        self._elapsed = snapshot.elapsed
        self._release()
        self._line(progress(snapshot, self._now()))

    def message(self, level: str, text: str) -> None:
        prefix = "" if level == "info" else f"{level}: "
        self._line(prefix + harmless(text))

    def failed(self, failure: FailureSnapshot) -> None:
        if self._limit.allows():
            self._line(failure_line(failure))
            for line in tail_lines(failure):
                self._outlet.write(f"    | {line}\n")

    def output(self, job_id: str, text: str) -> None:
        name = one_line(job_id)
        self._outlet.write("".join(f"[{name}] {line}\n" for line in printed_lines(text)))

    def close(self, snapshot: RunSnapshot | None = None) -> None:
        self._release()

    def _release(self) -> None:
        if suppressed := self._limit.release():
            self._line(f"... and {count(suppressed, 'more failure')}")

    def _line(self, text: str) -> None:
        self._outlet.write(f"{self._now():%H:%M:%S}  {text}\n")


def progress(snapshot: RunSnapshot, now: datetime) -> str:
    """One line: `742 of 2,000 (37%), 3 failed, 6 running, 1.2 jobs/s, ends about 06:40`."""
    counts = snapshot.counts
    done = counts.completed + counts.failed
    parts = [f"{done:,} of {snapshot.asked:,} ({percent(done, snapshot.asked)})", f"{counts.failed:,} failed"]
    running = sum(worker.job is not None for worker in snapshot.workers)
    taken = "" if snapshot.needs is None else f" (given {', '.join(taken_of(snapshot.needs))})"
    parts.append(f"{running:,} running{taken}")
    if snapshot.nodes is not None:
        parts.append(nodes_of(snapshot.nodes))
    if snapshot.rate > 0:
        parts.append(rate(snapshot.rate))
    parts.append(f"{duration(snapshot.elapsed)} so far")
    if snapshot.needs is not None:
        parts += [waiting] if (waiting := waiting_of(snapshot.needs)) else []
        parts += [_unfit(snapshot.needs.unfit)] if snapshot.needs.unfit is not None else []
    if situation := situation_of(snapshot):
        parts.append(situation)
    elif counts.left > snapshot.unselected and (end := ends_about(now, snapshot.eta_seconds)):
        parts.append(end)
    return ", ".join(parts)


def taken_of(needs: NeedsSnapshot) -> list[str]:
    """What running jobs take: `cores 3 of 4`, `memory 6.0G of 15G`, `GPUs 1.5 of 2`, `license 1 of 2`."""
    parts = [f"cores {needs.cpus[0]:g} of {needs.cpus[1]:g}"]
    if needs.memory is not None:
        there_is = "" if needs.memory[1] is None else f" of {size(needs.memory[1])}"
        parts.append(f"memory {size(needs.memory[0])}{there_is}")
    if needs.gpus is not None:
        parts.append(f"GPUs {needs.gpus[0]:g} of {needs.gpus[1]}")
    return parts + [f"{one_line(name)} {taken:g} of {of:g}" for name, (taken, of) in needs.resources.items()]


def waiting_of(needs: NeedsSnapshot, width: int = _WIDE) -> str:
    """`big/7 waits for 3 cores (2 free)`; "" if no job has to wait for others to end. The id is shortened, so that
    all fits into `width` characters, but not below 12."""
    if needs.waiting is None:
        return ""
    return _with_id(needs.waiting.job, f" waits for {needs.waiting.lacks}", width)


def unfit_of(needs: NeedsSnapshot, width: int = _WIDE) -> str:
    """`3 jobs cannot run: big/9 asks for 8 cores, but there are 4 (--workers)`; "" if all fit. The id is shortened
    as by `waiting_of`."""
    if needs.unfit is None:
        return ""
    words = f"{_unfit(needs.unfit)}: "
    return words + _with_id(needs.unfit.first, f" {one_line(needs.unfit.why)}", width - len(words))


def _unfit(unfit: UnfitJobs) -> str:
    return f"{count(unfit.jobs, 'job')} cannot run"


def _with_id(job_id: str, words: str, width: int) -> str:
    return shorten(one_line(job_id), max(12, width - len(words))) + words


def nodes_of(nodes: Sequence[NodeSnapshot]) -> str:
    """`3 nodes`, and which of them have been silent for long."""
    silent = [node for node in nodes if node.heard_age is not None and node.heard_age > SILENT_AFTER]
    words = "" if not silent else f" ({', '.join(_silent(node) for node in silent[:_MOST_SILENT])})"
    return f"{count(len(nodes), 'node')}{words}"


def _silent(node: NodeSnapshot) -> str:
    return f"nothing heard of {shorten(one_line(node.node), 40)} for {duration(node.heard_age or 0.0)}"


def node_line(node: NodeSnapshot, wide: int = 0) -> str:
    """`node1 (host)  3 of 4 workers busy  load 3.90 of 4  cpu 385%  memory 6.0G of 15G  heard 2s ago`; what is not
    known is left out. `wide`: of its name."""
    busy = f"{node.busy:,} of {count(node.workers, 'worker')} busy"
    parts = [f"{shorten(one_line(node.node), 40):<{wide}}", f"{busy:<22}"]
    if node.load is not None:
        parts.append(f"load {node.load:5.2f} of {node.cores:g}")
    if node.cpu_percent is not None:
        parts.append(f"cpu {node.cpu_percent:4.0f}%")
    if node.memory_used is not None and node.memory_total is not None:
        parts.append(f"memory {size(node.memory_used)} of {size(node.memory_total)}")
    if node.heard_age is not None:
        parts.append(f"heard {duration(node.heard_age)} ago")
    return "  ".join(parts)


def situation_of(snapshot: RunSnapshot, *, again: str = "Ctrl+C again") -> str:
    """Why the run is draining, paused or waiting, in words; "" if it is not. `again`: how to stop it now."""
    if snapshot.state == "draining":
        running = sum(worker.job is not None for worker in snapshot.workers)
        if not running or snapshot.grace_left is None:
            return "stopping"
        left = snapshot.grace_left
        words = f"{left:.0f} s" if left < 99.5 else duration(left)
        return f"{count(running, 'job')} running, {words} left; {again} stops now"
    if snapshot.state in ("paused", "waiting_for_space"):
        reason = snapshot.waiting_for or snapshot.state.replace("_", " ")
        return f"nothing new is started: {one_line(reason)}"
    return one_line(snapshot.waiting_for)
