"""The journal that a run writes: append-only, with unsynced records kept in memory.

Every record stays in memory until a sync that began after its write has ended. If the disk is full, records
wait here until there is space. If a sync fails, all of them are written again, into a new file. Neither
loses a record.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from array import array
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from supervisor.core.terms.errors import StorageError
from supervisor.core.terms.records import Opened, Records
from supervisor.storage.files.atomic_files import NO_SPACE, NewFile, checksum
from supervisor.storage.files.disk import Disk
from supervisor.storage.journal.foreign_writes import records_lost_error
from supervisor.storage.journal.journal_format import FORMAT, body_of, encode_batch, seal, seed_of
from supervisor.storage.journal.journal_scan import Scan
from supervisor.system.clock import utc_now

MOST_WAITING = 32 << 20  # bytes of records that may wait in memory before the hand-out of jobs is paused


class Identity(NamedTuple):
    """Which journal file this is. `generation` counts the files that the experiment's journal has had."""

    experiment_id: str
    name: str
    uuid: str
    generation: int

    @property
    def seed(self) -> int:
        return seed_of(self.uuid, self.generation)

    def opened(self) -> Opened:
        """The first record of the file."""
        return Opened(FORMAT, self.experiment_id, self.name, self.uuid, self.generation, utc_now())


class _Batch(NamedTuple):
    last_n: int
    end: int  # where it ends in the file, once written
    data: bytes


class JournalFile:
    """Appends batches of records and tracks what is written and what is synced.

    size: the offset of the next record, whether or not the records before it are written yet.
    next_n: the number of the next record.
    checksum: CRC-32 of all bytes before `size` as they were meant to be written; None if unknown.
    full: the error of a full disk; records wait in memory. failed: any other error; the descriptor must not
    be used any more.
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        fd: int,
        identity: Identity,
        *,
        size: int,
        next_n: int,
        checksum: int | None = None,
        durable: bool = True,
    ) -> None:
        self.disk = disk
        self.path = path
        self.fd = fd
        self.identity = identity
        self.size = size
        self.next_n = next_n
        self.checksum = checksum
        self.full: OSError | None = None
        self.failed: OSError | None = None
        self.waiting_bytes = 0  # of records in memory that are not synced
        self._seed = identity.seed
        self._durable = durable
        self._written = size
        self._synced = size
        self._batches: deque[_Batch] = deque()

    @classmethod
    def create(cls, disk: Disk, path: str, identity: Identity) -> JournalFile:
        """A new journal with its first line, synced. Raises FileExistsError."""
        line, _ = encode_batch(1, [identity.opened()], identity.seed)
        with NewFile(disk, path) as file:
            if disk.exists(file.path):
                raise FileExistsError(file.path)
            file.write(line)
            file.publish(keep_open=True)
            return cls(
                disk, file.path, file.fd, identity, size=len(line), next_n=2, checksum=zlib.crc32(line)
            )

    # ------------------------------------------------------------------------ write

    def append(self, records: Records) -> list[int]:
        """Write records; the length of each line. The first begins at the previous `size`.

        On a full disk they wait in memory (`full` is set). After any other error of the disk (`failed` is
        set) they stay in memory for `regenerate`.
        """
        data, lengths = encode_batch(self.next_n, records, self._seed)
        self.next_n += len(lengths)
        self.size += len(data)
        if self.checksum is not None:
            self.checksum = zlib.crc32(data, self.checksum)
        if self._durable or self.full is not None:
            self._batches.append(_Batch(self.next_n - 1, self.size, data))
            self.waiting_bytes += len(data)
        if self.full is None and self.failed is None:
            self._write(data)
        return lengths

    def retry(self) -> bool:
        """Write the records that wait for space; True if none waits any more."""
        if self.full is None:
            return True
        self.full = None
        for batch in list(self._batches):
            if batch.end > self._written and self.full is None and self.failed is None:
                self._write(batch.data[len(batch.data) - (batch.end - self._written) :])
        if self.full is None and self.failed is None and not self._durable:
            self._batches.clear()
            self.waiting_bytes = 0
        return self.full is None

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        begun = self._written
        try:
            while view:
                count = self.disk.write(self.fd, view)
                self._written += count
                view = view[count:]
        except OSError as error:
            if error.errno not in NO_SPACE:
                self.failed = error
                return
            self.full = error
            self._keep_unwritten(begun, data)
            self._cut(begun + data.rfind(b"\n", 0, self._written - begun) + 1)

    def _keep_unwritten(self, begun: int, data: bytes) -> None:
        if not self._durable and not self._batches:
            self._batches.append(_Batch(self.next_n - 1, begun + len(data), data))
            self.waiting_bytes += len(data)

    def _cut(self, whole: int) -> None:
        """Truncate to the last whole record. If that fails, the record is completed later."""
        if whole == self._written:
            return
        try:
            self.disk.truncate(self.fd, whole)
        except OSError:
            return
        self._written = whole

    # ------------------------------------------------------------------------- sync

    def mark_synced(self, n: int) -> None:
        """Records up to `n` are on the disk and need no longer be kept in memory."""
        batches = self._batches
        while batches and batches[0].last_n <= n:
            batch = batches.popleft()
            self._synced = batch.end
            self.waiting_bytes -= len(batch.data)

    def altered(self) -> int | None:
        """The size of the file, if another process has changed it; else None."""
        size = self.disk.size(self.fd)
        return None if size == self._written or self.failed is not None or self.full is not None else size

    # ------------------------------------------------------------------------- read

    def reads_back(self) -> bool:
        """Whether the file holds exactly the bytes that were meant to be written; False also if unknown."""
        try:
            return self.checksum is not None and self.checksum == checksum(self.disk, self.fd, self.size)
        except OSError:
            return False

    # --------------------------------------------------------------- a new generation

    def regenerate(self, offsets: array[int], *, altered: bool = False) -> array[int]:
        """Write all records again, into a new file; `offsets` translated to it.

        Used when the descriptor cannot be trusted any more. Records keep their numbers; the generation is new,
        and with it every CRC. `altered`: another process has changed the file, so records may be at other
        offsets than they were written to. Raises StorageError if synced records cannot be read back, or if
        the new file cannot be written.
        """
        old = self.identity
        identity = old._replace(generation=old.generation + 1)
        try:
            with NewFile(self.disk, self.path) as file:
                shift = self._transcribe(file, identity, self.disk.size(self.fd) if altered else self._synced)
                file.publish(keep_open=True)
                fd, size = file.fd, file.size
        except OSError as error:
            if altered:
                with contextlib.suppress(OSError):
                    self.disk.datasync(self.fd)
                raise records_lost_error(self.path, self.disk.size(self.fd), error) from None
            raise StorageError(
                f"the disk failed under {self.path}, and a new file could not be written beside it: "
                f"{error.strerror or error}. What was synced before is safe: fix the disk, then resume."
            ) from None
        self.disk.close(self.fd)
        self.fd, self.identity, self._seed = fd, identity, identity.seed
        self.size = self._written = self._synced = size
        self.checksum = None
        self._batches.clear()
        self.waiting_bytes = 0
        self.full = self.failed = None
        return array("Q", [offset + shift if offset else 0 for offset in offsets])

    def _transcribe(self, file: NewFile, identity: Identity, end: int) -> int:
        """Copy every line under the new seed; by how many bytes the lines after the first move."""
        lines = self._all_lines(end)
        first = next(lines, (0, b""))[0]
        if first != 1:
            raise OSError(None, "its first record cannot be read back")
        head, _ = encode_batch(first, [identity.opened()], identity.seed)
        file.write(head)
        expected = first
        bodies: list[bytes] = []
        weight = 0
        for n, line in lines:
            expected += 1
            if n != expected:
                raise OSError(None, f"record {expected} cannot be read back")
            bodies.append(body_of(line))
            weight += len(line)
            if weight > 1 << 20:
                file.write(seal(bodies, identity.seed)[0])
                bodies, weight = [], 0
        file.write(seal(bodies, identity.seed)[0])
        if expected != self.next_n - 1:
            raise OSError(None, f"record {expected + 1} cannot be read back")
        return file.size - self.size

    def _all_lines(self, end: int) -> Iterator[tuple[int, bytes]]:
        """(number, line) of the file up to `end` and of memory; a line that is in both comes once."""
        last = 0
        in_memory = deque(self._lines_in_memory())
        for n, _, line in Scan(self.disk, self.fd, self._seed, end=end):
            while in_memory and in_memory[0][0] < n:
                if (kept := in_memory.popleft())[0] > last:
                    yield kept
            yield n, line
            last = n
        yield from (kept for kept in in_memory if kept[0] > last)

    def _lines_in_memory(self) -> Iterator[tuple[int, bytes]]:
        n = self._batches[0].last_n - self._batches[0].data.count(b"\n") if self._batches else 0
        for batch in self._batches:
            for line in batch.data.split(b"\n")[:-1]:
                n += 1
                yield n, line

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self.disk.close(fd)


def open_for_append(disk: Disk, path: str) -> int:
    """A descriptor of an existing journal."""
    return disk.open(path, os.O_RDWR | os.O_APPEND)
