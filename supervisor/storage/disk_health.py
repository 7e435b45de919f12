"""Watches the disk: full, stalled or failing. Tells when no job may be handed out, and when to give up.

Each condition becomes one event when it begins and one when it ends.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from supervisor.core.terms.errors import StorageError
from supervisor.core.terms.events import Event, HandOutBlocked, HandOutUnblocked
from supervisor.storage.files.atomic_files import lack_of_space
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.sync import STALLED_AFTER
from supervisor.storage.journal.foreign_writes import JournalAltered, rewritten_message
from supervisor.storage.journal.journal_file import MOST_WAITING, JournalFile

# After so many failures within so many seconds the run ends: the journal is not rewritten for ever.
MOST_FAILURES, FAILURES_WITHIN = 5, 60.0


class DiskFailures:
    """Times of the last failures of the disk, in seconds on the loop's clock."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def add(self, error: OSError, path: str, now: float) -> None:
        """Count a failure under the journal at `path`. Raises StorageError after too many."""
        self._times = [time for time in self._times if now - time < FAILURES_WITHIN] + [now]
        if len(self._times) >= MOST_FAILURES:
            raise StorageError(
                f"the disk under {path} failed {MOST_FAILURES} times within {FAILURES_WITHIN:.0f} s "
                f"({error.strerror or error}). What was synced is safe; fix the disk, then resume."
            )

    @staticmethod
    def overcome(error: OSError, path: str) -> str:
        """The notice for the user once all records are in a new file."""
        if error.errno == errno.ENOENT:
            return f"Somebody has removed {path}; all records were written again, into a new file."
        if isinstance(error, JournalAltered):
            return rewritten_message(path)
        return (
            f"The disk failed under {path} ({error.strerror or error}); "
            f"all records were written again, into a new file."
        )


CHECK_EVERY = 1.0


class DiskHealth:
    """The conditions of one disk, checked at every poll and about once a second."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory
        self._next_check = 0.0
        self._lack: str | None = None
        self._was_named = False  # on some file systems no open file has a name that can be checked
        self._blocked: dict[str, str] = {}
        self._unsynced_since: float | None = None

    def check_due(self, now: float) -> bool:
        """Whether it is time to check the free space and to retry, which is so once a second."""
        if now < self._next_check:
            return False
        self._next_check = now + CHECK_EVERY
        return True

    def check_soon(self) -> None:
        self._next_check = 0.0

    def check_space(self) -> None:
        try:
            self._lack = lack_of_space(self._disk, self._directory)
        except OSError:
            self._lack = None  # unknown on this file system; a write to a full one fails with ENOSPC

    def trouble(self, journal: JournalFile) -> OSError | None:
        """What another process has done to the journal, if a new one can be put in its place; else None."""
        if self.has_vanished(journal):
            return OSError(errno.ENOENT, "somebody has removed the file")
        try:
            size = journal.altered()
        except OSError:
            return None
        return None if size is None else JournalAltered(size)

    def has_vanished(self, journal: JournalFile) -> bool:
        """Whether the journal was removed and a new one can be put in its place."""
        try:
            named = self._disk.has_name(journal.fd, journal.path)
            if named or not self._was_named:
                self._was_named |= named
                return False
            self._disk.make_directory(os.path.dirname(journal.path))
        except OSError:
            return False  # the next check may find it possible
        return True

    def unsynced(self, now: float, *, waiting: bool, progress: bool) -> None:
        """`waiting`: something is not synced; `progress`: a sync ended since the last call."""
        if not waiting:
            self._unsynced_since = None
        elif progress or self._unsynced_since is None:
            self._unsynced_since = now

    def changes(self, journal: JournalFile, now: float) -> list[Event]:
        """Events for the core: conditions that began or ended since the last call."""
        reasons = self._reasons(journal, now)
        events: list[Event] = [HandOutUnblocked(why) for why in self._blocked if why not in reasons]
        for why, detail in reasons.items():
            if why not in self._blocked:
                events.append(HandOutBlocked(why, detail))
        self._blocked = reasons
        return events

    def _reasons(self, journal: JournalFile, now: float) -> dict[str, str]:
        reasons: dict[str, str] = {}
        since = self._unsynced_since
        if journal.full is not None:
            reasons["no_space"] = (
                f"{journal.full.strerror} ({journal.path}); results wait in memory, "
                f"the run continues by itself when there is space"
            )
        elif self._lack is not None:
            reasons["no_space"] = self._lack
        if journal.full is None and since is not None and now - since >= STALLED_AFTER:
            reasons["disk_stalled"] = (
                f"the disk has not answered for {now - since:.0f} s ({journal.path}); the run waits for it"
            )
        elif journal.waiting_bytes > MOST_WAITING:
            waiting = journal.waiting_bytes / 1e6
            reasons["disk_stalled"] = f"{waiting:.0f} MB of records wait for the disk ({journal.path})"
        return reasons

    def next_deadline(self, now: float, *, waiting: bool, full: bool) -> float | None:
        """When the conditions must be checked again even if nothing happens; None if never."""
        times = []
        if full or self._blocked:
            times.append(self._next_check)
        if waiting and "disk_stalled" not in self._blocked:
            times.append((now if self._unsynced_since is None else self._unsynced_since) + STALLED_AFTER)
        return min(times, default=None)
