"""A disk in memory that can be full, fail, stop the world at any operation, and lose power.

What a power cut leaves: of each file, what was synced, and of what was written after that
a part, torn or filled with garbage; of each directory, the names that were synced, and
perhaps some of the changes after that, in their order.
"""

from __future__ import annotations

import errno
import os
import random

from supervisor.storage.files.disk import Disk


class PowerCut(BaseException):
    """The machine stops here; nothing of the program runs any further."""


class _File:
    def __init__(self, content: bytes = b"") -> None:
        self.data = bytearray(content)
        self.safe = bytes(content)
        self.begun = 0  # bytes that the disk was told to begin with
        self.gone = 0  # bytes that are not kept in memory
        self.most_in_memory = 0

    @property
    def in_memory(self) -> int:
        return len(self.data) - self.gone


class FakeDisk(Disk):
    """capacity: bytes in all files. cut_at: the number of the operation that is not done."""

    def __init__(self, *, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        self.files: dict[str, _File] = {}
        self.safe_names: dict[str, _File] = {}
        self.changes: list[tuple[str, str, str]] = []  # of names, since the directory was synced
        self.failures: dict[str, list[int]] = {}  # errno for the next calls, by operation
        self.operations = 0
        self.cut_at: int | None = None
        self.free: int | None = None  # what `space` says
        self._open: dict[int, _File] = {}
        self._next_fd = 1000

    # --------------------------------------------------------------------- mischief

    def fail(self, operation: str, number: int, times: int = 1) -> None:
        self.failures.setdefault(operation, []).extend([number] * times)

    def after_power_cut(self, seed: int) -> FakeDisk:
        """The disk as the next boot finds it."""
        chance = random.Random(seed)
        names = dict(self.safe_names)
        for kind, source, target in self.changes[: chance.randint(0, len(self.changes))]:
            if kind == "make" and source in self.files:
                names[source] = self.files[source]
            elif kind == "rename" and source in names:
                names[target] = names.pop(source)
            elif kind == "link" and source in names:
                names[target] = names[source]
            elif kind == "remove":
                names.pop(source, None)
        later = FakeDisk(capacity=self.capacity)
        kept: dict[int, _File] = {}
        for name, file in names.items():
            kept.setdefault(id(file), _File(_torn(file, chance)))
            later.files[name] = kept[id(file)]
        later.safe_names = dict(later.files)
        return later

    def content(self, path: object) -> bytes:
        return bytes(self.files[os.fspath(path)].data)

    def _step(self, operation: str) -> None:
        if self.cut_at is not None and self.operations >= self.cut_at:
            raise PowerCut(operation)
        self.operations += 1
        waiting = self.failures.get(operation)
        if waiting:
            number = waiting.pop(0)
            if number:
                raise OSError(number, os.strerror(number))

    # -------------------------------------------------------------------- operations

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        path = os.fspath(path)
        if path in self.files:
            if flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        elif flags & os.O_CREAT:
            self._step("create")
            self.files[path] = _File()
            self.changes.append(("make", path, ""))
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._next_fd += 1
        self._open[self._next_fd] = self.files[path]
        return self._next_fd

    def duplicate(self, fd: int) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = self._open[fd]
        return self._next_fd

    def close(self, fd: int) -> None:
        del self._open[fd]

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._step("write")
        room = self.capacity - sum(
            len(file.data) for file in {id(f): f for f in self.files.values()}.values()
        )
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        piece = bytes(data[:room])
        file = self._open[fd]
        file.data += piece
        file.most_in_memory = max(file.most_in_memory, file.in_memory)
        return len(piece)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self._open[fd].data[offset : offset + size])

    def size(self, fd: int) -> int:
        return len(self._open[fd].data)

    def truncate(self, fd: int, size: int) -> None:
        self._step("truncate")
        del self._open[fd].data[size:]

    def datasync(self, fd: int) -> None:
        self._step("datasync")
        file = self._open[fd]
        file.safe = bytes(file.data)

    def sync(self, fd: int) -> None:
        self._step("sync")
        file = self._open[fd]
        file.safe = bytes(file.data)

    def drop_cache(self, fd: int) -> None:
        """What the disk began with the last time has arrived there, though nobody may rely on it."""
        file = self._open[fd]
        file.gone, file.begun = max(file.begun, len(file.safe)), len(file.data)

    def rename(self, source: str, target: str) -> None:
        self._step("rename")
        self.files[target] = self.files.pop(source)
        self.changes.append(("rename", source, target))

    def link(self, source: str, target: str) -> bool:
        self._step("link")
        self.files[target] = self.files[source]
        self.changes.append(("link", source, target))
        return True

    def remove(self, path: str) -> None:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._step("remove")
        del self.files[path]
        self.changes.append(("remove", path, ""))

    def exists(self, path: str) -> bool:
        return path in self.files

    def has_name(self, fd: int, path: str) -> bool:
        return self.exists(path)

    def make_directory(self, path: str) -> None:
        pass

    def sync_directory(self, path: str) -> None:
        self._step("sync_directory")
        self.safe_names = dict(self.files)
        self.changes.clear()

    def space(self, path: str) -> tuple[int, int]:
        free = self.free if self.free is not None else 1 << 40
        return free, 1 << 41


def _torn(file: _File, chance: random.Random) -> bytes:
    """What was synced, and something of what came after it."""
    data, safe = bytes(file.data), file.safe
    if not data.startswith(safe):  # cut back or written over since: either of the two
        return chance.choice([data, safe])
    kept = data[: chance.randint(len(safe), len(data))]
    lost = len(data) - len(kept)
    return kept + chance.choice([b"", b"\0" * lost, b"\xff" * lost, data[len(kept) :][::-1]])
