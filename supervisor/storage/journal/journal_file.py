"""The journal that is being written: append-only, with what is not yet on the disk in memory.

Every record stays in memory until a sync that began after its write has ended. So a full
disk (records wait here until there is room) and a failed sync (all of them are written
again, into a new file) cost nothing but time.
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

BOUND = 32 << 20  # bytes of records that may wait in memory before nothing is handed out


class Identity(NamedTuple):
    """Which journal this is: of which experiment, and the how-manieth file of it."""

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
    """Appends batches of records; knows what is written and what is synced.

    size: where the next record will stand, whether or not the ones before it could be
    written. next_n: the number that it will have. checksum: the CRC-32 of all bytes before
    `size`, as they were meant to be written; None if it is not known.
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
        self.full: OSError | None = None  # why records wait for room
        self.failed: OSError | None = None  # why the descriptor cannot be believed any more
        self.waiting_bytes = 0  # in memory, because they are not synced
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
        """Write records; their lengths. The first one stands at the `size` of before.

        With a full disk they wait in memory (`full` says so). After any other error of
        the disk (`failed` says so) they are in memory too, for `regenerate`.
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
        """Write what waits for room; True if nothing waits any more."""
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
        """Back to the last whole record. If even that fails, the record is completed later."""
        if whole == self._written:
            return
        try:
            self.disk.truncate(self.fd, whole)
        except OSError:
            return
        self._written = whole

    # ------------------------------------------------------------------------- sync

    def mark_synced(self, n: int) -> None:
        """Records up to `n` are on the disk: forget them."""
        batches = self._batches
        while batches and batches[0].last_n <= n:
            batch = batches.popleft()
            self._synced = batch.end
            self.waiting_bytes -= len(batch.data)

    def altered(self) -> int | None:
        """The size of the file, if somebody else has cut or lengthened it; None if nobody has."""
        size = self.disk.size(self.fd)
        return None if size == self._written or self.failed is not None or self.full is not None else size

    # ------------------------------------------------------------------------- read

    def reads_back(self) -> bool:
        """Whether the file has what was meant to be written, all of it. False also if that is
        not known."""
        try:
            return self.checksum is not None and self.checksum == checksum(self.disk, self.fd, self.size)
        except OSError:
            return False

    # --------------------------------------------------------------- a new generation

    def regenerate(self, offsets: array[int], *, altered: bool = False) -> array[int]:
        """Write all records again, into a new file; the places of `offsets` in it.

        For a descriptor that can no longer be believed. Records keep their numbers; only
        the generation, and with it every CRC, is new. `altered`: somebody has cut the file or
        written into it, and records stand elsewhere than where they were written. Raises
        StorageError if what was synced cannot be read back, or if the new file cannot be written.
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
        """Copy every line under a new seed; by how much the lines after the first move."""
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
        """Those of the file up to `end`, and those in memory: what stands in both comes once."""
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
