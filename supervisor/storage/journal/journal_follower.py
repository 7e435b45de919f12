"""Follows a journal, of a live run or a dead one: each `read` goes on where the last one stopped.

Read-only. Only whole lines that verify are passed on, and of each the few fields that an onlooker needs
(`journal_format.LineHead`); results are never decoded. When the file has been replaced (a resume that repaired
it, a new generation) or is shorter than it was, the follower begins anew and says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from supervisor.core.terms.errors import StorageError
from supervisor.storage.files.atomic_files import resolved
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_format import LineHead, decode_heads, seed_of
from supervisor.storage.journal.journal_scan import Scan, ScanStart, guess_seed, read_opened

_TAIL = 64 << 10  # bytes of one read in search of the last newline


class FollowedLines(NamedTuple):
    """Lines that follow each other. heads: of each line, None for one that this version cannot read."""

    heads: list[LineHead | None]
    lines: list[bytes]


class _FileIdentity(NamedTuple):
    """Which file it is. An inode may be used again, so the identity in the first line counts as well."""

    device: int
    inode: int
    seed: int


class JournalFollower:
    """Reads what has been added to a journal since the last `read`.

    Attributes
    ----------
    started_anew: how often the file was replaced or cut; whoever keeps sums begins again when this rises.
    position: bytes that have been read. number: of the last line.
    damaged: stretches that do not verify, with good lines after them. lost: lines that their numbers say are
    missing.
    """

    def __init__(self, layout: Layout, disk: Disk | None = None) -> None:
        self._layout = layout
        self._disk = disk or Disk()
        self._identity: _FileIdentity | None = None
        self.started_anew = 0
        self._begin()

    def _begin(self) -> None:
        self.position = self.number = 0
        self.damaged = self.lost = 0

    def read(self) -> Iterator[FollowedLines]:
        """What is new, some hundred lines at a time; nothing if there is no journal. Raises StorageError."""
        try:
            fd = self._disk.open(resolved(self._layout.journal), os.O_RDONLY)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(error) from None
        try:
            yield from self._read(fd)
        except OSError as error:
            raise self._unreadable(error) from None
        finally:
            self._disk.close(fd)

    def _read(self, fd: int) -> Iterator[FollowedLines]:
        identity = self._identity_of(fd)
        size = self._disk.size(fd)
        if identity is None:
            return
        if self._identity is not None and (identity != self._identity or size < self.position):
            self.started_anew += 1
            self._begin()
        self._identity = identity
        end = self._end_of_lines(fd, size)
        if end <= self.position:
            return
        scan = Scan(self._disk, fd, identity.seed, begin=ScanStart(self.number, self.position, 0), end=end)
        before = self.damaged, self.lost
        for _, _, lines in scan.groups():
            self.position, self.number = scan.end, scan.last_n
            self.damaged = before[0] + len(scan.damage)
            self.lost = before[1] + sum(last - first + 1 for first, last in scan.missing)
            yield FollowedLines(decode_heads(lines), lines)

    def _identity_of(self, fd: int) -> _FileIdentity | None:
        """None while nothing in the file can be verified."""
        found = os.fstat(fd)
        known = self._identity
        opened = read_opened(self._disk, fd)
        if opened is not None:
            seed = seed_of(opened.uuid, opened.generation)
        elif known is not None and known[:2] == (found.st_dev, found.st_ino):
            seed = known.seed
        else:
            guessed = guess_seed(self._disk, fd)
            if guessed is None:
                return None
            seed = guessed
        return _FileIdentity(found.st_dev, found.st_ino, seed)

    def _end_of_lines(self, fd: int, size: int) -> int:
        """Where the last whole line ends: one that is being written has no newline yet."""
        end = size
        while end > self.position:
            start = max(self.position, end - _TAIL)
            piece = self._disk.pread(fd, end - start, start)
            if (found := piece.rfind(b"\n")) >= 0:
                return start + found + 1
            end = start
        return self.position

    def _unreadable(self, error: OSError) -> StorageError:
        return StorageError(
            f"the journal {self._layout.journal} cannot be read: {error.strerror or error}. "
            "Make it readable or fix the disk, then try again."
        )
