"""What the loop may say to whoever watches a run. Views only read; they decide nothing.

The run's own lines go to stderr, so that a script's stdout stays the user's. No method
raises and none waits for a terminal or a pipe: a view that breaks goes silent.
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
        """How the run goes right now."""

    def tell(self, level: str, text: str) -> None:
        """A line for the user. `level`: info, warning, error."""

    def failed(self, failure: FailureSnapshot) -> None:
        """An attempt ended badly."""

    def completed(self) -> None:
        """An attempt ended well, or many together did."""

    def printed(self, job_id: str) -> None:
        """An attempt that had printed something has ended; its log is complete."""

    def output(self, job_id: str, text: str) -> None:
        """Lines that a job printed, if the user wants to see them (`--show-output`)."""

    def suspend(self) -> None:
        """Ctrl+Z: the terminal is about to be the shell's; leave it clean."""

    def resume(self) -> None:
        """The terminal is ours again; the next `update` draws anew."""

    def close(self, snapshot: RunSnapshot | None = None) -> None:
        """The run is over; nothing more is shown. Waits at most 2 s for the terminal."""


class Silent:
    """A view for a run that nobody watches: no stderr, or `progress=False`."""

    interval = 300.0

    def update(self, snapshot: RunSnapshot) -> None: ...

    def tell(self, level: str, text: str) -> None: ...

    def failed(self, failure: FailureSnapshot) -> None: ...

    def completed(self) -> None: ...

    def printed(self, job_id: str) -> None: ...

    def output(self, job_id: str, text: str) -> None: ...

    def suspend(self) -> None: ...

    def resume(self) -> None: ...

    def close(self, snapshot: RunSnapshot | None = None) -> None: ...
