"""The one thread that waits for the disk, so that nobody else has to.

It does nothing but `fdatasync` of the journal and, in between, the disk work of a
checkpoint that waits for it. The next sync starts when something is unsynced, the last
one has ended, and ten times its duration (at most 100 ms) has passed; an urgent request
skips that wait. So a slow disk is asked rarely and a quick one often.

A failed sync is final: the kernel may have dropped the pages and will report success the
next time. The thread ends, and its descriptor must not be believed again.
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
    """Disk work that has to follow a sync: it runs once record `after` is on the disk."""

    after: int
    work: Callable[[], None]
    done: bool = False
    error: OSError | None = None
    seconds: float = 0.0


class Syncer:
    """Syncs one descriptor. `wake` is a non-blocking pipe that is written to when something ended."""

    def __init__(self, disk: Disk, fd: int, *, synced: int, wake: int) -> None:
        self.synced = synced  # all records up to this number are on the disk
        self.error: OSError | None = None
        self._disk = disk
        self._fd = fd
        self._wake = wake
        self._written = synced
        self._urgent = False
        self._stopping = False
        self._idle = False  # the thread waits for somebody to write, not for time to pass
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
        """End the thread after what it is doing now; False if it hangs in the kernel."""
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
        """Wait for the next thing to do: sync up to a number and, perhaps, a task after it."""
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
