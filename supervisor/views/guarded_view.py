"""Which view there is, and the shell around it that no broken terminal gets through.

The shell also does what every view needs: the log file, `--show-output`, the last lines
that a failed job printed, and the word of warning when everything fails alike.
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
from supervisor.views.console import Outlet
from supervisor.views.failure_lines import FirstAttempts, Flood, failure_line
from supervisor.views.output_follower import OutputFollower
from supervisor.views.plain_view import PlainView
from supervisor.views.supervisor_log import Log
from supervisor.views.view import Silent, View
from workers.isolation.faulthandler_dumps import printed_tail
from workers.isolation.output_files import log_path

_FOLLOW_EVERY = 1.0  # seconds between looks at what running jobs print
_MOST_LOGGED, _LOGGED_PER = 1000, 10.0  # failures per seconds that are written to the log


def open_view(
    stream: TextIO | None,
    *,
    show_output: bool = False,
    output_directory: str | None = None,
    log: Log | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> View:
    """A view on `stream` (usually `sys.stderr`): a frame in a terminal, else plain lines.

    `output_directory` is `<id>/output`, None when nothing is recorded. With no stream
    there is only the log.
    """
    outlet = None if stream is None else Outlet(stream)
    return GuardedView(
        _choose(outlet),
        outlet,
        log=log,
        output_directory=output_directory,
        show_output=show_output,
        clock=clock,
    )


def _choose(outlet: Outlet | None) -> View:
    if outlet is None:
        return Silent()
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
        outlet: Outlet | None,
        *,
        log: Log | None,
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
        self._first = FirstAttempts()
        self._printed = ""  # the job that ended last of those that had printed something
        self._next_update = clock()
        self._flood = Flood(_MOST_LOGGED)
        self._flood_ends = clock() + _LOGGED_PER

    @property
    def interval(self) -> float:
        if self._follower is None:
            return self._inner.interval
        return min(_FOLLOW_EVERY, self._inner.interval)

    def update(self, snapshot: RunSnapshot) -> None:
        if self._follower is not None:
            self._safely(self._follower.poll, snapshot.workers)
        now = self._clock()
        # A little early is on time: the caller's clock and ours need not agree.
        if self._follower is None or now >= self._next_update - 0.2:
            self._safely(self._inner.update, snapshot)
            self._next_update = now + self._inner.interval

    def tell(self, level: str, text: str) -> None:
        self._write(level, text)
        self._safely(self._inner.tell, level, text)

    def failed(self, failure: FailureSnapshot) -> None:
        if not failure.output_tail and failure.job == self._printed and self._directory is not None:
            last_lines = printed_tail(log_path(self._directory, failure.job))
            failure = msgspec.structs.replace(failure, output_tail=last_lines)
        self._log_failure(failure)
        self._safely(self._inner.failed, failure)
        if warning := self._first.failed(failure):
            self.tell("warning", warning)

    def completed(self) -> None:
        self._first.completed()

    def printed(self, job_id: str) -> None:
        self._printed = job_id
        if self._follower is not None:
            self._safely(self._follower.ended, job_id)

    def output(self, job_id: str, text: str) -> None:
        self._safely(self._inner.output, job_id, text)

    def suspend(self) -> None:
        self._safely(self._inner.suspend)

    def resume(self) -> None:
        self._safely(self._inner.resume)

    def close(self, snapshot: RunSnapshot | None = None) -> None:
        if self._follower is not None and snapshot is not None:
            self._safely(self._follower.poll, snapshot.workers)
        self._safely(self._inner.close, snapshot)
        self._release_flood()
        if self._outlet is not None:
            self._outlet.end(2.0)
        self._inner = Silent()

    # --------------------------------------------------------------------- the guard

    def _safely(self, method: Callable[..., None], *arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:  # whatever a terminal library may raise
            self._inner = Silent()
            self._follower = None
            self._write("warning", f"the view broke and is silent now: {type(error).__name__}: {error}")

    def _write(self, level: str, text: str) -> None:
        if self._log is not None:
            self._log.write(level, text)

    def _log_failure(self, failure: FailureSnapshot) -> None:
        if self._log is None:
            return
        if self._clock() >= self._flood_ends:
            self._release_flood()
        if self._flood.passes():
            self._log.write("warning", failure_line(failure))

    def _release_flood(self) -> None:
        self._flood_ends = self._clock() + _LOGGED_PER
        if held := self._flood.release():
            self._write("warning", f"... and {count(held, 'more failure')}; the journal has them all")
