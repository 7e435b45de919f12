"""SIGQUIT: the Python stacks of all workers, brought into the supervisor's log.

A worker writes its stacks into a file of its own, the moment the signal comes and whatever it
is doing. Where that is and how much stood there before is noted here; what has been added
a moment later is what it was at.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from supervisor.core.state.worker_state import WorkerState
from workers.isolation.faulthandler_dumps import cleaned
from workers.isolation.output_files import stacks_path

WAIT = 0.5  # seconds: a stack is written in a few milliseconds, but the machine may be busy
MOST = 64 << 10  # bytes of one worker's stacks that are shown


class StackDump:
    """What is expected of the workers that were just sent the signal; `due` is when to look."""

    def __init__(self, output_directory: str, now: float) -> None:
        self.due = now + WAIT
        self._output_directory = output_directory
        self._expected: list[tuple[str, str, int]] = []

    def expect(self, workers: Iterable[WorkerState]) -> None:
        """They are about to be sent the signal."""
        for worker in workers:
            path = stacks_path(self._output_directory, worker.slot, worker.incarnation)
            heading = f"worker {worker.slot} (pid {worker.pid})"
            self._expected.append((heading, path, _size(path)))

    def read(self) -> list[str]:
        """One text per worker that has said anything."""
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


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
