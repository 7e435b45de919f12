"""When a checkpoint is written, and what it may cost: about a hundredth of the loop's time.

`CheckpointWriter` writes; the sync thread waits for the disk. A checkpoint that cannot be written does not
end the run: the journal holds everything, and the user gets a notice.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.position import Position
from supervisor.storage.files.sync import Syncer, Task
from supervisor.storage.journal.journal_reader import JournalReader
from supervisor.storage.store_builder import StoreParts

if TYPE_CHECKING:
    from supervisor.storage.checkpoint.checkpoint_writer import CheckpointWriter

ENTRY_SECONDS = 3e-6  # of the loop's time for each entry, until it was measured
MANY = 2000  # entries that make a measurement of it meaningful
SHARE = 50.0  # times its own cost has to pass before the next one
COST_OF_FAILURE = 0.2  # seconds that a checkpoint which could not be written counts as


def cost(spent: float, waited: float = 0.0) -> float:
    """What a checkpoint costs, in seconds. The loop's seconds are taken from the workers and count twice; the
    disk's count only as far as they exceed the loop's."""
    return spent + max(spent, waited)


class CheckpointSchedule:
    """The checkpoints of one run. A failure is added to `notices`, unless the same notice is still there."""

    def __init__(self, parts: StoreParts, notices: list[str]) -> None:
        self.every = int(parts.settings.get("checkpoint_every", 5))
        self._parts = parts
        self._notices = notices
        self._seconds = 0.0  # of the loop's time, by all slices so far
        self._seconds_at_end = 0.0  # by the last checkpoint, with its wait for the disk
        self._writer: CheckpointWriter | None = None
        self._task: Task | None = None
        self._overdue = False  # jobs enough have completed
        self._owed = False  # one is to be begun whatever it costs
        self._completions = 0  # since the last one was begun
        self._entry_seconds = ENTRY_SECONDS  # of the loop's time, for each finished job
        self._spent = 0.0  # by the one that is being written
        # Of the last checkpoint; at the start of a resumed run, estimated from the finished jobs.
        self._cost = cost(ENTRY_SECONDS * sum(map(parts.table.state.count, (COMPLETED, FAILED))))
        self._ended: float | None = None  # when the last one ended, or the run began (the loop's clock)
        self._published: float | None = None

    @property
    def busy(self) -> bool:
        return self._writer is not None

    def due(self, completions: int, now: float) -> bool:
        """Whether to begin a checkpoint now: after `every` completions, but not before it is affordable."""
        self._completions = completions
        self._ended = now if self._ended is None else self._ended
        if self._owed:
            return True
        self._overdue = completions >= self.every and not self.busy
        return self._overdue and now >= self._not_before()

    def owe(self, position: Position) -> None:
        """There is none of the finished jobs: write it now if they are few. Else it is begun in the first turn of
        the loop, and written in slices: that of a million jobs takes longer than the workers need to start."""
        self._owed = sum(map(self._parts.table.state.count, (COMPLETED, FAILED))) >= MANY
        if not self._owed:
            self.write_or_warn(position)

    def next_deadline(self) -> float | None:
        """When a checkpoint that waits is due; None if none waits."""
        return self._not_before() if self._overdue and not self.busy else None

    def _not_before(self) -> float:
        # The next one has more to copy; among many small jobs that is nearly all of it.
        return (self._ended or 0.0) + SHARE * (self._cost + cost(self._completions * self._entry_seconds))

    def age(self, now: float) -> float | None:
        """Seconds since the last checkpoint was published; None if there was none."""
        return None if self._published is None else max(0.0, now - self._published)

    def costs(self) -> dict[str, float]:
        """Seconds that checkpoints took: of the loop's time so far, and at the end of the run."""
        return {
            "checkpoint_seconds": round(self._seconds, 6),
            "checkpoint_seconds_at_end": round(self._seconds_at_end, 6),
        }

    def begin(self, position: Position, now: float) -> None:
        """Take the copies; `work` does the rest."""
        started = time.perf_counter()
        self._overdue = self._owed = False
        try:
            self._writer = self._new_writer(position)
        except OSError as error:
            self._fail(error, now)
        self._spent = time.perf_counter() - started
        self._seconds += self._spent

    def work(self, budget: float, syncer: Syncer, now: float) -> bool:
        """Write one slice; True while there is more to write."""
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
            self._seconds += spent
        if done:
            self._task = Task(after=writer.n, work=writer.publish)
            syncer.submit(self._task)
        return not done

    def collect(self, now: float) -> None:
        """Check whether the sync thread has published the checkpoint."""
        task = self._task
        if task is None or not task.done:
            return
        if task.error is not None:
            self._fail(task.error, now)
            return
        self._ended = self._published = now
        self._cost = cost(self._spent, task.seconds)
        if self._writer is not None and self._writer.entries >= MANY:
            self._entry_seconds = self._spent / self._writer.entries
        self._writer = self._task = None

    def _new_writer(self, position: Position) -> CheckpointWriter:
        from supervisor.storage.checkpoint.checkpoint_writer import CheckpointWriter, header_of

        parts = self._parts
        journal = parts.journal
        reader = JournalReader(
            parts.disk,
            journal.fd,
            journal.identity.seed,
            parts.offsets[:],
            parts.lengths[:],
            intact=parts.intact,
        )
        header = header_of(
            journal,
            parts.table,
            parts.statistics,
            parts.history,
            position,
            settings=parts.settings,
            options=parts.options,
        )
        return CheckpointWriter(
            parts.disk,
            parts.layout.checkpoint,
            header,
            parts.table,
            position,
            reader,
            index=parts.layout.index,
            checksum=journal.checksum,
        )

    def write(self, position: Position) -> None:
        """A whole checkpoint now, waiting for the disk. Raises OSError."""
        self._parts.disk.datasync(self._parts.journal.fd)
        writer = self._new_writer(position)
        try:
            writer.finish()
        finally:
            writer.discard()

    def write_or_warn(self, position: Position) -> None:
        """`write`; a failure becomes a notice."""
        try:
            self.write(position)
        except OSError as error:
            self._warn(error)

    def at_end(self, position: Position) -> None:
        """Write the last checkpoint of the run, and note how long that took."""
        started = time.perf_counter()
        self.write_or_warn(position)
        self._seconds_at_end = time.perf_counter() - started

    def give_up(self, now: float) -> None:
        """Discard the checkpoint that is being written, unless it is published already."""
        self.collect(now)
        if self._writer is not None:
            self._writer.discard()
            self._writer = self._task = None

    def _fail(self, error: OSError, now: float) -> None:
        self._warn(error)
        if self._writer is not None:
            self._writer.discard()
        self._writer = self._task = None
        self._ended = now
        self._cost = max(self._cost, COST_OF_FAILURE)

    def _warn(self, error: OSError) -> None:
        notice = (
            f"The checkpoint {self._parts.layout.checkpoint} could not be written ({error.strerror or error}); "
            f"it is tried again. The journal holds everything."
        )
        if notice not in self._notices:
            self._notices.append(notice)
