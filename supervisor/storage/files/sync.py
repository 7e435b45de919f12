"""The thread that waits for the disk: `fdatasync` of the journal, and the disk work of checkpoints.

A sync starts when something is unsynced, the last sync has ended, and ten times its duration (at most
100 ms) has passed. An urgent request skips that pause. A slow disk is thus synced rarely, a fast one often.

A failed sync is final: the kernel may have dropped the pages and reports success the next time. The thread
ends, and the descriptor must not be used any more.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from supervisor.core.terms.errors import WorkersError
from supervisor.storage.files.disk import Disk

REST_FACTOR = 10.0
LONGEST_REST = 0.1
STALLED_AFTER = 5.0  # seconds without a completed sync


class Task(msgspec.Struct):
    """Disk work that must follow a sync: it runs once record `after` is on the disk."""

    after: int
    work: Callable[[], None]
    done: bool = False
    error: OSError | None = None
    seconds: float = 0.0


class Syncer:
    """Syncs one descriptor. `wake`: a non-blocking pipe that gets a byte after each sync or task."""

    def __init__(self, disk: Disk, fd: int, *, synced: int, wake: int) -> None:
        self.synced = synced  # all records up to this number are on the disk
        self.error: OSError | None = None
        self._disk = disk
        self._fd = fd
        self._wake = wake
        self._written = synced
        self._urgent = False
        self._stopping = False
        self._idle = False  # the thread waits for records or tasks, not for a pause to end
        self._tasks: deque[Task] = deque()
        self._rest_until = 0.0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def written(self, n: int, *, urgent: bool = False) -> None:
        """Records up to `n` were written to the descriptor."""
        with self._changed:
            self._written = n
            if urgent:
                self._urgent = True
            if urgent or self._idle:
                self._changed.notify()
        if self._thread is None:
            self._start()

    def submit(self, task: Task) -> None:
        """Run a task when its records are on the disk."""
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()
        if self._thread is None:
            self._start()

    def close(self, timeout: float) -> bool:
        """End the thread after its present work; False if that takes longer than `timeout` seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    # ------------------------------------------------------------------- the thread

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="longhaul-sync", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise WorkersError(
                f"{error}: this user or container may have no more of them, and none is left for the workers. "
                f"Allow more (ulimit -u, pids.max), then start again or resume."
            ) from None
        self._thread = thread

    def _run(self) -> None:
        while self.error is None:
            found = self._next()
            if found is None:
                return
            number, task = found
            if task is None or self.synced < task.after:
                self._sync(number)
            if task is not None:
                self._perform(task)
            with contextlib.suppress(OSError):  # full: the reader is awake already
                os.write(self._wake, b"\0")

    def _next(self) -> tuple[int, Task | None] | None:
        """Wait for work: (sync up to this record, task after it or None); None when the thread must end."""
        with self._changed:
            while not self._stopping:
                if self._tasks:
                    return self._written, self._tasks.popleft()
                rest: float | None = None
                if self._written > self.synced:
                    rest = self._rest_until - time.monotonic()
                    if self._urgent or rest <= 0:
                        self._urgent = False
                        return self._written, None
                self._idle = rest is None
                self._changed.wait(rest)
                self._idle = False
            return None

    def _sync(self, number: int) -> None:
        started = time.monotonic()
        try:
            self._disk.datasync(self._fd)
        except OSError as error:
            self.error = error
            return
        now = time.monotonic()
        self.synced = max(self.synced, number)
        self._rest_until = now + min(LONGEST_REST, REST_FACTOR * (now - started))

    def _perform(self, task: Task) -> None:
        started = time.monotonic()
        try:
            if self.error is None:
                task.work()
            task.error = self.error
        except OSError as error:
            task.error = error
        task.seconds = time.monotonic() - started
        task.done = True
