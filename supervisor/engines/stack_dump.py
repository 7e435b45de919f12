"""SIGQUIT: the Python stacks of all workers, for the supervisor's log.

Each worker writes its stacks into a file of its own as soon as it gets the signal. The size of that file is
noted before; what is added within WAIT is read.
"""

from __future__ import annotations

from collections.abc import Iterable

from supervisor.core.state.worker_state import WorkerState
from supervisor.engines.last_stack import size_of
from workers.isolation.faulthandler_dumps import cleaned
from workers.isolation.output_files import stacks_path

WAIT = 0.5  # seconds: a stack is written in a few milliseconds, but the machine may be busy
MOST = 64 << 10  # bytes of one worker's stacks that are shown


class StackDump:
    """The stacks that were requested; `due` is when to read them."""

    def __init__(self, output_directory: str, now: float) -> None:
        self.due = now + WAIT
        self._output_directory = output_directory
        self._expected: list[tuple[str, str, int]] = []

    def expect(self, workers: Iterable[WorkerState]) -> None:
        """To be called before the signal is sent to them."""
        for worker in workers:
            path = stacks_path(self._output_directory, worker.slot, worker.incarnation)
            heading = f"worker {worker.slot} (pid {worker.pid})"
            self._expected.append((heading, path, size_of(path)))

    def read(self) -> list[str]:
        """One text for each worker that has written stacks."""
        texts = []
        for heading, path, before in self._expected:
            try:
                with open(path, "rb") as file:
                    file.seek(before)
                    text = cleaned(file.read(MOST).decode(errors="replace")).strip()
            except OSError:  # it has ended meanwhile
                continue
            if text:
                texts.append(f"stacks of {heading}:\n{text}")
        return texts
