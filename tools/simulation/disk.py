"""A disk in memory that forgets: for the simulation.

What was written but not synced is gone, torn or there after a power cut, as the seed has
it; so are names that were made, renamed or removed without a sync of their directory. The
next write can be told to find no room, the next sync to fail.
"""

from __future__ import annotations

import errno
import os
import random

from supervisor.storage.files.disk import Disk
from supervisor.storage.files.sync import Syncer, Task


class _File:
    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = b""


class SimulatedDisk(Disk):
    """One flat name space; directories exist when they are named.

    room: bytes that may still be written, None for no limit. failing_syncs: how many of
    the next syncs fail; what they should have made durable is lost for good.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names: dict[str, _File] = {}
        self.durable_names: dict[str, _File] = {}
        self.open_files: dict[int, _File] = {}
        self.next_fd = 1000
        self.room: int | None = None
        self.failing_syncs = 0
        self.synced_bytes = 0

    # ------------------------------------------------------------------- the protocol

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        file = self.names.get(path)
        if file is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            file = self.names[path] = _File()
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "file exists", path)
        return self._descriptor(file)

    def _descriptor(self, file: _File) -> int:
        self.next_fd += 1
        self.open_files[self.next_fd] = file
        return self.next_fd

    def duplicate(self, fd: int) -> int:
        return self._descriptor(self.open_files[fd])

    def close(self, fd: int) -> None:
        del self.open_files[fd]

    def write(self, fd: int, data: bytes | memoryview) -> int:
        size = len(data)
        if self.room is not None:
            if self.room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            size = min(size, self.room)
            self.room -= size
        elif size > 1 and self.rng.random() < 0.02:
            size = self.rng.randrange(1, size)  # a short write, as a signal may cause it
        self.open_files[fd].data += data[:size]
        return size

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self.open_files[fd].data[offset : offset + size])

    def size(self, fd: int) -> int:
        return len(self.open_files[fd].data)

    def truncate(self, fd: int, size: int) -> None:
        file = self.open_files[fd]
        freed = len(file.data) - size
        del file.data[size:]
        if self.room is not None:
            self.room += max(0, freed)

    def datasync(self, fd: int) -> None:
        self.sync(fd)

    def drop_cache(self, fd: int) -> None:
        pass

    def sync(self, fd: int) -> None:
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(errno.EIO, "Input/output error")
        file = self.open_files[fd]
        file.durable = bytes(file.data)

    def rename(self, source: str, target: str) -> None:
        self.names[target] = self.names.pop(source)

    def link(self, source: str, target: str) -> bool:
        if target in self.names:
            raise FileExistsError(errno.EEXIST, "file exists", target)
        self.names[target] = self.names[source]
        return True

    def remove(self, path: str) -> None:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        del self.names[path]

    def exists(self, path: str) -> bool:
        return path in self.names

    def has_name(self, fd: int, path: str) -> bool:
        return True  # nobody removes files here while they are written

    def make_directory(self, path: str) -> None: ...

    def sync_directory(self, path: str) -> None:
        inside = [name for name in {*self.names, *self.durable_names} if os.path.dirname(name) == path]
        for name in inside:
            if name in self.names:
                self.durable_names[name] = self.names[name]
            else:
                self.durable_names.pop(name, None)

    def space(self, path: str) -> tuple[int, int]:
        return (1 << 40 if self.room is None else self.room), 1 << 41

    # ------------------------------------------------------------------------ trouble

    def process_killed(self) -> None:
        """What was written stays."""
        self.room = None
        self.failing_syncs = 0

    def power_cut(self) -> None:
        """Unsynced names and bytes survive as chance has it; synced ones always do."""
        self.process_killed()
        names = dict(self.durable_names)
        for name in {*self.names, *self.durable_names}:
            if self.rng.random() < 0.5:  # this change of the directory reached the disk by itself
                if name in self.names:
                    names[name] = self.names[name]
                else:
                    names.pop(name, None)
        for file in {id(file): file for file in names.values()}.values():
            self._tear(file)
        self.names = names
        self.durable_names = dict(names)

    def _tear(self, file: _File) -> None:
        """Of what was appended after the last sync: nothing, a part, or a part and junk."""
        kept, tail = len(file.durable), bytes(file.data[len(file.durable) :])
        if file.data[:kept] != file.durable:  # it had been cut back without a sync
            file.data = bytearray(file.durable)
            return
        part = tail[: self.rng.randrange(len(tail) + 1)]
        junk = b""
        if len(part) < len(tail):
            junk = self.rng.choice([b"", b"\0", b"\xff"]) * self.rng.randrange(1, 200)
        file.data = bytearray(file.durable + part + junk[: len(tail) - len(part)])
        file.durable = bytes(file.data)

    def contents(self, path: str) -> bytes | None:
        file = self.names.get(path)
        return None if file is None else bytes(file.data)

    def put(self, path: str, data: bytes) -> None:
        """The whole of a file was on the disk."""
        file = self.names[path] = self.durable_names[path] = _File()
        file.data, file.durable = bytearray(data), data

    def overwrite(self, path: str, data: bytes | None) -> None:
        """Somebody damages a file between two runs; None deletes it."""
        if data is None:
            self.names.pop(path, None)
            self.durable_names.pop(path, None)
            return
        file = self.names[path]
        file.data = bytearray(data)
        file.durable = data


class SimulatedSyncer(Syncer):
    """The sync thread without a thread: its work is done when the history says so."""

    def __init__(self, disk: SimulatedDisk, fd: int, synced: int) -> None:
        super().__init__(disk, fd, synced=synced, wake=-1)
        self.waiting: list[Task] = []

    def written(self, n: int, *, urgent: bool = False) -> None:
        self._written = n

    def submit(self, task: Task) -> None:
        self.waiting.append(task)

    def close(self, timeout: float) -> bool:
        return True

    def has_work(self) -> bool:
        return self.error is None and (self._written > self.synced or bool(self.waiting))

    def do_work(self) -> None:
        task = self.waiting.pop(0) if self.waiting else None
        if task is None or self.synced < task.after:
            self._sync(self._written)
        if task is not None:
            self._perform(task)
