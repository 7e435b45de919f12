"""`View`: the interface through which the loop shows a run. Views only read; they decide nothing.

Lines of the run go to stderr; stdout belongs to the script. No method raises, and none waits for a terminal or a
pipe.
"""

from __future__ import annotations

from typing import Protocol

from supervisor.core.state.snapshot import FailureSnapshot, RunSnapshot


class View(Protocol):
    """One way of watching a run."""

    @property
    def interval(self) -> float:
        """Seconds until the next `update`; asked after each one."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Show the present state of the run."""

    def message(self, level: str, text: str) -> None:
        """A line for the user. `level`: info, warning, error."""

    def failed(self, failure: FailureSnapshot) -> None:
        """An attempt has failed."""

    def completed(self) -> None:
        """One or more attempts have succeeded."""

    def printed(self, job_id: str) -> None:
        """An attempt that had printed something has ended; its log is complete."""

    def output(self, job_id: str, text: str) -> None:
        """Lines that a job printed, if the user wants to see them (`--show-output`)."""

    def suspend(self) -> None:
        """Ctrl+Z: clear the display before the shell takes over the terminal."""

    def resume(self) -> None:
        """After Ctrl+Z: the next `update` draws again."""

    def close(self, snapshot: RunSnapshot | None = None) -> None:
        """The run is over; nothing more is shown. Waits at most 2 s for the terminal."""


class SilentView:
    """A view that shows nothing: without stderr, or with `progress=False`."""

    interval = 300.0

    def update(self, snapshot: RunSnapshot) -> None: ...

    def message(self, level: str, text: str) -> None: ...

    def failed(self, failure: FailureSnapshot) -> None: ...

    def completed(self) -> None: ...

    def printed(self, job_id: str) -> None: ...

    def output(self, job_id: str, text: str) -> None: ...

    def suspend(self) -> None: ...

    def resume(self) -> None: ...

    def close(self, snapshot: RunSnapshot | None = None) -> None: ...
