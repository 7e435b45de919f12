"""When a checkpoint is written, and what becomes of it: at most one fiftieth of the time.

`CheckpointWriter` does the work; here is the policy, and the wait for the disk that is
left to the sync thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from supervisor.records.checkpoint_writer import CheckpointWriter
from supervisor.records.sync import Syncer, Task

SHARE = 50.0  # times its own cost has to pass before the next one
COST_OF_FAILURE = 0.2  # seconds that a checkpoint which could not be written counts as


class Checkpointer:
    """The checkpoints of one run. `failure`: why the last one could not be written.

    `seconds`: what all slices so far took of the loop's time. `seconds_at_end`: what the one
    on the way out took, with its wait for the disk.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.failure: OSError | None = None
        self.seconds = 0.0
        self.seconds_at_end = 0.0
        self._writer: CheckpointWriter | None = None
        self._task: Task | None = None
        self._overdue = False  # jobs enough have completed
        self._spent = 0.0  # by the one that is being written
        self._cost = 0.0  # of the last one
        self._ended: float | None = None  # when the last one ended (the loop's clock)
        self._published: float | None = None

    @property
    def busy(self) -> bool:
        return self._writer is not None

    def due(self, completions: int, now: float) -> bool:
        """At every `every`-th completion if it is time, else as soon as it is."""
        self._overdue = completions >= self.every and not self.busy
        return self._overdue and now >= self._not_before()

    def next_deadline(self) -> float | None:
        """When a checkpoint that had to wait is due; None if none waits."""
        return self._not_before() if self._overdue and not self.busy else None

    def _not_before(self) -> float:
        return 0.0 if self._ended is None else self._ended + SHARE * self._cost

    def age(self, now: float) -> float | None:
        """Seconds since a checkpoint was last in its place."""
        return None if self._published is None else max(0.0, now - self._published)

    def begin(self, make: Callable[[], CheckpointWriter], now: float) -> None:
        started = time.perf_counter()
        self._overdue = False
        try:
            self._writer = make()
        except OSError as error:
            self._fail(error, now)
        self._spent = time.perf_counter() - started
        self.seconds += self._spent

    def work(self, budget: float, syncer: Syncer, now: float) -> bool:
        """One slice; True while there is more to do than to wait for the disk."""
        writer = self._writer
        if writer is None or self._task is not None:
            return False
        started = time.perf_counter()
        try:
            done = writer.step(budget)
        except OSError as error:
            self._fail(error, now)
            return False
        finally:
            spent = time.perf_counter() - started
            self._spent += spent
            self.seconds += spent
        if done:
            self._task = Task(after=writer.n, work=writer.publish)
            syncer.submit(self._task)
        return not done

    def collect(self, now: float) -> None:
        """Look whether the disk has done its part."""
        task = self._task
        if task is None or not task.done:
            return
        if task.error is not None:
            self._fail(task.error, now)
            return
        self._ended = self._published = now
        self._cost = self._spent + task.seconds
        self._writer = self._task = None

    def at_end(self, write: Callable[[], None]) -> None:
        """Write the one on the way out, and keep in mind how long that took."""
        started = time.perf_counter()
        write()
        self.seconds_at_end = time.perf_counter() - started

    def give_up(self, now: float) -> None:
        """Forget the one that is being written, unless the disk has done its part already."""
        self.collect(now)
        if self._writer is not None:
            self._writer.discard()
            self._writer = self._task = None

    def _fail(self, error: OSError, now: float) -> None:
        self.failure = error
        if self._writer is not None:
            self._writer.discard()
        self._writer = self._task = None
        self._ended = now
        self._cost = max(self._cost, COST_OF_FAILURE)
