"""The only writer of journal, plan and checkpoint of one experiment, under its lock.

`append` never waits for the disk. `poll` returns what has happened there as events: records synced, hand-out
blocked (disk full or stalled), unblocked. After a failed write or sync, all records are written into a new
file. If that fails too, StorageError ends the run; synced records are safe.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from supervisor.core.state.columns import put
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.statistics import Statistics
from supervisor.core.terms.errors import StorageError
from supervisor.core.terms.events import Event, Synced
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import Completions, Ended, Records
from supervisor.storage import store_builder
from supervisor.storage.checkpoint.journal_stretches import StretchWriter
from supervisor.storage.checkpoint_schedule import CheckpointSchedule
from supervisor.storage.disk_health import DiskFailures, DiskHealth
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from supervisor.storage.journal.foreign_writes import JournalAltered
from supervisor.storage.plan.plan_builder import PlanBuilder
from supervisor.storage.plan.plan_diff import Comparison
from supervisor.storage.saved_state_cleanup import SavedStateCleanup
from supervisor.storage.store_builder import NewSyncer, StoreParts, new_syncer

if TYPE_CHECKING:
    from supervisor.storage.recovery.recovered_experiment import Recovered

CLOSE_TIMEOUT = 5.0  # seconds for a sync to end before the run is given up
_FINISHED = ("completed", "failed")


class Store:
    """Journal, plan and checkpoint of one experiment.

    table: changed by the core. statistics, history: updated by `append`. plan: the plan file, to read lines
    from. notices: sentences for the user; the caller removes those that it has shown.
    """

    def __init__(self, parts: StoreParts) -> None:
        self.layout = parts.layout
        self.table: JobTable = parts.table
        self.statistics: Statistics = parts.statistics
        self.plan = parts.plan
        self.history = parts.history
        self.ephemeral = parts.ephemeral
        self.notices: list[str] = []
        self._parts = parts
        self._disk = parts.disk
        self._journal = parts.journal
        self._offsets, self._lengths = parts.offsets, parts.lengths
        self._stretches = StretchWriter(
            parts.disk, parts.layout.stretches, parts.journal, parts.table, parts.offsets, parts.lengths
        )
        self._checkpoints = CheckpointSchedule(parts, self.notices)
        self._health = DiskHealth(parts.disk, parts.layout.directory)
        self.states = SavedStateCleanup(parts.layout.states_directory, parts.table)
        self._now = 0.0  # the loop's clock at the last poll
        self._reported = parts.journal.next_n - 1  # the last record reported as synced
        self._broken = False
        self._failures = DiskFailures()
        self._hangs = False  # the disk does not answer; its thread is given up
        self._wake_read, self._wake = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake, False)
        self._syncer = parts.new_syncer(self._disk, self._journal.fd, self._reported, self._wake)

    # ----------------------------------------------------------------- create, open

    @classmethod
    def create(
        cls,
        layout: Layout,
        *,
        name: str,
        plan: PlanBuilder,
        table: JobTable,
        lock: Lock,
        settings: dict[str, Any],
        options: dict[str, Any],
        ephemeral: bool = False,
        disk: Disk | None = None,
        syncer: NewSyncer = new_syncer,
    ) -> Store:
        """A new experiment; an empty `table` is filled from the plan.

        `ephemeral` (--no-resume): nothing is left behind, no sync, no checkpoint. The
        plan is taken over (and closed) when it is on the disk.
        Raises UsageError if the experiment exists, CannotCreate if it cannot be made.
        """
        return cls(
            store_builder.new(
                disk or Disk(),
                layout,
                name=name,
                builder=plan,
                table=table,
                lock=lock,
                settings=settings,
                options=options,
                ephemeral=ephemeral,
                syncer=syncer,
            )
        )

    @classmethod
    def open(
        cls,
        layout: Layout,
        recovered: Recovered,
        builder: PlanBuilder | None,
        *,
        lock: Lock,
        settings: dict[str, Any],
        options: dict[str, Any],
        name: str = "",
        comparison: Comparison | None = None,
        keep_params: bool = True,
        syncer: NewSyncer = new_syncer,
    ) -> Store:
        """Go on with an earlier experiment: repair it, bring its plan up to the script's.

        `builder` None keeps the plan on disk. Without `keep_params` the new parameters of
        changed jobs get into the plan (--changed rerun). `name` is used if no file tells
        it any more. Takes `recovered` over. Raises StorageError.
        """
        if not recovered.name:
            recovered.identity = recovered.identity._replace(name=name)
        store_builder.update_plan(recovered, builder, comparison, keep_params=keep_params)
        parts, notices = store_builder.earlier(
            layout, recovered, lock=lock, settings=settings, options=options, syncer=syncer
        )
        store = cls(parts)
        store.notices += notices
        # From here on either of the two files may be lost again.
        if recovered.checkpoint_state == "damaged" or recovered.needs_generation:
            store._checkpoints.write_or_warn(store_builder.position_of(recovered))
        elif recovered.checkpoint_state == "missing":
            store._checkpoints.owe(store_builder.position_of(recovered))
        recovered.close()
        return store

    # --------------------------------------------------------------------- identity

    @property
    def uuid(self) -> str:
        return self._journal.identity.uuid

    @property
    def name(self) -> str:
        return self._journal.identity.name

    @property
    def next_n(self) -> int:
        """The number that the next record will have."""
        return self._journal.next_n

    # --------------------------------------------------------------- append and read

    def append(self, records: Records, *, urgent: bool = False) -> int:
        """Write records in order; the number of the last one.

        `urgent`: sync at once, without gathering more records. Raises StorageError.
        """
        journal = self._journal
        offset = journal.size
        lengths = journal.append(records)
        note = self.statistics.apply
        line = 0
        for record in records:
            if isinstance(record, Completions):
                end = self._note_locations(record.jobs, offset, lengths[line : line + len(record)])
                self._stretches.note(record, end - offset)
                offset = end
                line += len(record)
            else:
                if not isinstance(record, Ended):
                    self.history.apply(record)
                elif record.state in _FINISHED:
                    self._note_locations([self.table.number_of(record.job)], offset, [lengths[line]])
                self._stretches.note_others(1, lengths[line])
                offset += lengths[line]
                line += 1
            note(record)
        if journal.failed is not None:
            self._regenerate(journal.failed)
        elif journal.full is not None:
            self._health.check_soon()
        elif not self.ephemeral:
            self._syncer.written(journal.next_n - 1, urgent=urgent)
            self._stretches.appended()
        elif urgent:
            self._wake_loop()
        return journal.next_n - 1

    def _note_locations(self, jobs: Sequence[int], offset: int, lengths: list[int]) -> int:
        """Note the offsets of these jobs' records, which follow each other; the offset of their end."""
        *places, end = accumulate(lengths, initial=offset)
        put(self._offsets, jobs, array("Q", places))
        put(self._lengths, jobs, array("I", lengths))
        return end

    @property
    def parts(self) -> StoreParts:
        """What this store is made of, for reading; usable after `close` too."""
        return self._parts

    # ------------------------------------------------------------------- the loop's

    def fileno(self) -> int:
        """A descriptor that is readable when `poll` has news."""
        return self._wake_read

    def next_deadline(self) -> float | None:
        """When `poll` must be called even if nothing happens (the loop's clock); None if never."""
        full = self._journal.full is not None
        times = [
            None if full else self._checkpoints.next_deadline(),
            self._health.next_deadline(self._now, waiting=self._waiting(), full=full),
        ]
        return min((time for time in times if time is not None), default=None)

    def poll(self, now: float, *, woken: bool = True) -> list[Event]:
        """Events of the disk since the last call. `woken`: the descriptor was readable. Raises StorageError."""
        self._now = now
        if woken:
            with contextlib.suppress(BlockingIOError):
                while len(os.read(self._wake_read, 4096)) == 4096:
                    pass
        events = self._collect_synced(now)
        self._checkpoints.collect(now)
        if self._health.check_due(now):
            self._retry()
            self._rewrite_if_altered()
            self._health.check_space()
            self.states.clean_up(now, self._journal.next_n - 1, self._reported)
        return events + self._health.changes(self._journal, now)

    def _waiting(self) -> bool:
        """Whether something that was written is not synced yet."""
        return not self.ephemeral and self._syncer.synced < self._journal.next_n - 1

    def _collect_synced(self, now: float) -> list[Event]:
        if self._syncer.error is not None:
            self._regenerate(self._syncer.error)
        journal = self._journal
        synced = self._syncer.synced
        if self.ephemeral:
            synced = journal.next_n - 1 if journal.full is None else self._reported
        progress = synced > self._reported
        if progress:
            journal.mark_synced(synced)
            self._reported = synced
        self._health.unsynced(now, waiting=self._waiting(), progress=progress)
        return [Synced(synced)] if progress else []

    def _retry(self) -> None:
        """Write what a full disk has kept waiting."""
        journal = self._journal
        if journal.full is None:
            return
        there_is_room = journal.retry()
        if journal.failed is not None:
            self._regenerate(journal.failed)
        elif there_is_room and not self.ephemeral:
            self._syncer.written(journal.next_n - 1)

    def _rewrite_if_altered(self) -> None:
        """Write the journal again if another process has removed or changed it: a file without a name is lost
        when this process ends."""
        if not self.ephemeral and (trouble := self._health.trouble(self._journal)) is not None:
            self._regenerate(trouble)

    def _regenerate(self, error: OSError) -> None:
        """The descriptor cannot be trusted any more: write all records into a new file."""
        journal = self._journal
        self._broken = True
        if self.ephemeral:
            raise StorageError(
                f"the disk failed under a temporary file in {self.layout.directory}: {error.strerror or error}. "
                "Make room or fix the disk, then start again."
            )
        self._failures.add(error, journal.path, self._now)
        if self._syncer.close(CLOSE_TIMEOUT):
            self._checkpoints.give_up(self._now)
        altered = isinstance(error, JournalAltered)
        if not altered:  # else even synced records may be gone from the file
            journal.mark_synced(self._syncer.synced)
        self._offsets = self._parts.offsets = journal.regenerate(self._offsets, altered=altered)
        self._broken = False
        self.notices.append(self._failures.overcome(error, journal.path))
        self._syncer = self._parts.new_syncer(self._disk, journal.fd, journal.next_n - 1, self._wake)
        self._wake_loop()

    def _wake_loop(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"\0")

    def free_space(self) -> int | None:
        """Bytes that are free where the experiment is; None if the file system does not tell."""
        try:
            return self._disk.space(str(self.layout.directory))[0]
        except OSError:
            return None

    # ------------------------------------------------------------------- checkpoint

    def checkpoint_due(self, completions: int, now: float) -> bool:
        """Whether to begin one now, `completions` jobs after the last one was begun."""
        if self.ephemeral or self._journal.full is not None:
            return False
        return self._checkpoints.due(completions, now)

    def checkpoint_age(self, now: float) -> float | None:
        """Seconds since the last checkpoint was in its place; None if there was none yet."""
        return self._checkpoints.age(now)

    def checkpoint_costs(self) -> dict[str, float]:
        """Seconds that checkpoints took of this run so far; see `CheckpointSchedule`."""
        return self._checkpoints.costs()

    def begin_checkpoint(self, position: Position, now: float) -> None:
        """Copy the state for a checkpoint; `work` writes it."""
        if not self.ephemeral:
            self._checkpoints.begin(position, now)

    def work(self, budget: float) -> bool:
        """Write a part of the checkpoint, for about `budget` seconds; True while more remains."""
        return self._checkpoints.work(budget, self._syncer, self._now)

    # ------------------------------------------------------------------------ close

    def save(self, position: Position | None = None) -> None:
        """Sync everything and, if a position is given, write the last checkpoint.

        Waits for the disk. Nothing is appended after it; results can still be read.
        Raises StorageError if records could not be brought to the disk.
        """
        if self._broken or self.ephemeral:
            return
        journal = self._journal
        if not self._syncer.close(CLOSE_TIMEOUT):
            self._hangs = True
            raise StorageError(
                f"the disk under {journal.path} does not answer; what was synced before is safe. "
                f"Fix the disk, then resume."
            )
        self._checkpoints.give_up(self._now)
        self._retry()
        self._rewrite_if_altered()
        if journal.full is not None:
            raise StorageError(
                f"{journal.full.strerror}: {journal.path}. The last records could not be written; "
                f"their jobs will run again. Make room, then resume."
            )
        try:
            self._disk.datasync(journal.fd)
        except OSError as error:
            self._regenerate(error)
        self._parts.intact = journal.reads_back()
        if position is not None:
            self._checkpoints.at_end(position)
        self.states.end()

    def release(self) -> None:
        """Close files and release the lock. Calling it twice is harmless."""
        if self._wake_read >= 0 and self._syncer.close(0.0 if self._hangs else CLOSE_TIMEOUT):
            # If the sync thread hangs in the kernel, it still uses these descriptors: they stay open.
            self._journal.close()
            os.close(self._wake)
            os.close(self._wake_read)
        self._wake_read = -1
        self._stretches.close()
        self.plan.close()
        self._parts.lock.release()

    def close(self, position: Position | None = None) -> None:
        """`save`, then `release`, also if `save` fails."""
        try:
            self.save(position)
        finally:
            self.release()
