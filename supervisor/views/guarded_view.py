"""Chooses the view, and wraps it so that its errors do not reach the run.

The wrapper also does what every view needs: the log file, `--show-output`, the last lines that a failed job
printed, and the warning when all jobs fail alike.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import msgspec

from supervisor.core.state.snapshot import FailureSnapshot, RunSnapshot
from supervisor.core.terms.wording import count
from supervisor.views.console import ConsoleWriter
from supervisor.views.failure_lines import FailureLimit, FirstFailures, failure_line
from supervisor.views.output_follower import OutputFollower
from supervisor.views.plain_view import PlainView
from supervisor.views.supervisor_log import SupervisorLog
from supervisor.views.view import SilentView, View
from workers.isolation.faulthandler_dumps import printed_tail
from workers.isolation.output_files import log_path

_FOLLOW_EVERY = 1.0  # seconds between checks of what running jobs print
_MOST_LOGGED, _LOGGED_PER = 1000, 10.0  # failures per seconds that are written to the log


def open_view(
    stream: TextIO | None,
    *,
    show_output: bool = False,
    output_directory: str | None = None,
    log: SupervisorLog | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> View:
    """A view on `stream` (usually `sys.stderr`): a frame in a terminal, else plain lines.

    `output_directory` is `<id>/output`, None when nothing is recorded. With no stream
    there is only the log.
    """
    outlet = None if stream is None else ConsoleWriter(stream)
    return GuardedView(
        _choose(outlet),
        outlet,
        log=log,
        output_directory=output_directory,
        show_output=show_output,
        clock=clock,
    )


def _choose(outlet: ConsoleWriter | None) -> View:
    if outlet is None:
        return SilentView()
    if inside_notebook():
        from supervisor.views.notebook_view import NotebookView

        return NotebookView()
    if outlet.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from supervisor.views.terminal_view import TerminalView

        return TerminalView(outlet)
    return PlainView(outlet)


def inside_notebook() -> bool:
    """Whether this process is a Jupyter kernel. Imports nothing."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


class GuardedView:
    """A view that never raises: after its first error the run goes on without it."""

    def __init__(
        self,
        inner: View,
        outlet: ConsoleWriter | None,
        *,
        log: SupervisorLog | None,
        output_directory: str | None,
        show_output: bool,
        clock: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._outlet = outlet
        self._log = log
        self._directory = output_directory
        self._clock = clock
        self._follower: OutputFollower | None = None
        if show_output and output_directory is not None:
            self._follower = OutputFollower(output_directory, self.output)
        self._first = FirstFailures()
        self._printed = ""  # the last job that ended and had printed something
        self._next_update = clock()
        self._limit = FailureLimit(_MOST_LOGGED)
        self._limit_until = clock() + _LOGGED_PER

    @property
    def interval(self) -> float:
        if self._follower is None:
            return self._inner.interval
        return min(_FOLLOW_EVERY, self._inner.interval)

    def update(self, snapshot: RunSnapshot) -> None:
        if self._follower is not None:
            self._guarded(self._follower.poll, snapshot.workers)
        now = self._clock()
        # 0.2 s early is accepted: the caller has another clock.
        if self._follower is None or now >= self._next_update - 0.2:
            self._guarded(self._inner.update, snapshot)
            self._next_update = now + self._inner.interval

    def message(self, level: str, text: str) -> None:
        self._write(level, text)
        self._guarded(self._inner.message, level, text)

    def failed(self, failure: FailureSnapshot) -> None:
        if not failure.output_tail and failure.job == self._printed and self._directory is not None:
            last_lines = printed_tail(log_path(self._directory, failure.job))
            failure = msgspec.structs.replace(failure, output_tail=last_lines)
        self._log_failure(failure)
        self._guarded(self._inner.failed, failure)
        if warning := self._first.failed(failure):
            self.message("warning", warning)

    def completed(self) -> None:
        self._first.completed()

    def printed(self, job_id: str) -> None:
        self._printed = job_id
        if self._follower is not None:
            self._guarded(self._follower.ended, job_id)

    def output(self, job_id: str, text: str) -> None:
        self._guarded(self._inner.output, job_id, text)

    def suspend(self) -> None:
        self._guarded(self._inner.suspend)

    def resume(self) -> None:
        self._guarded(self._inner.resume)

    def close(self, snapshot: RunSnapshot | None = None) -> None:
        if self._follower is not None and snapshot is not None:
            self._guarded(self._follower.poll, snapshot.workers)
        self._guarded(self._inner.close, snapshot)
        self._report_suppressed()
        if self._outlet is not None:
            self._outlet.end(2.0)
        self._inner = SilentView()

    # --------------------------------------------------------------------- the guard

    def _guarded(self, method: Callable[..., None], *arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:  # any error of a terminal library
            self._inner = SilentView()
            self._follower = None
            self._write(
                "warning",
                f"the progress view failed and is switched off: {type(error).__name__}: {error}; the run goes on, "
                "`longhaul status --watch` shows it",
            )

    def _write(self, level: str, text: str) -> None:
        if self._log is not None:
            self._log.write(level, text)

    def _log_failure(self, failure: FailureSnapshot) -> None:
        if self._log is None:
            return
        if self._clock() >= self._limit_until:
            self._report_suppressed()
        if self._limit.allows():
            self._log.write("warning", failure_line(failure))

    def _report_suppressed(self) -> None:
        self._limit_until = self._clock() + _LOGGED_PER
        if suppressed := self._limit.release():
            self._write("warning", f"... and {count(suppressed, 'more failure')}; the journal has them all")
