"""Files that appear whole or not at all; whether a directory can hold them.

Building blocks only; what stands in the files is not known here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import accumulate, count
from operator import add
from pathlib import Path

from supervisor.core.terms.errors import CannotCreate
from supervisor.storage.files.disk import Disk

FREE_BYTES = 64 << 20
FREE_SHARE = 0.05
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHUNK = 1 << 20
_BEHIND = 8 << 20  # bytes that the disk is behind while a large file is made
# Small enough for what is done with its lines, one thing after the other, to stay in a cache.
_PIECE = 64 << 10


def resolved(path: Path | str) -> str:
    """The file itself, if `path` is a symbolic link: `rename` would replace the link."""
    return os.path.realpath(path)


def temporary_name(path: str) -> str:
    """A name in the same directory, so that a rename can put the file in its place."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{os.getpid()}.tmp")


def clear_temporaries(paths: Iterable[Path | str]) -> None:
    """Remove what a killed process left of files that it was about to rename to `paths`, or to
    backups of them or of their tails.

    Only for the holder of the experiment's lock: nobody else may be writing them now.
    """
    for path in map(resolved, paths):
        folder, name = os.path.split(path)
        stem, suffix = map(re.escape, os.path.splitext(name))
        temporary = re.compile(rf"\.{stem}((\.tail)?\.backup(-\d+)?)?{suffix}\..*\.tmp")
        with contextlib.suppress(OSError):
            for entry in filter(temporary.fullmatch, os.listdir(folder)):
                os.unlink(os.path.join(folder, entry))


def write_all(disk: Disk, fd: int, data: bytes | bytearray) -> None:
    """Write until everything is written; short writes are normal."""
    view = memoryview(data)
    while view:
        view = view[disk.write(fd, view) :]


def groups_of(disk: Disk, fd: int, start: int, end: int) -> Iterator[tuple[int, list[bytes], bool]]:
    """(offset of the first, lines without their newlines, whether they had one) of the bytes
    from start to end: lines by the hundred, so that what is done to each can be done in C.

    Reads in pieces, and ever larger ones inside a line that is longer than a piece,
    so that copying stays linear.
    """
    position, rest, want = start, b"", _PIECE
    while position < end and (piece := disk.pread(fd, min(want, end - position), position)):
        offset = position - len(rest)
        position += len(piece)
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        want = _PIECE if lines else 2 * want
        if lines:
            yield offset, lines, True
    if rest:
        yield position - len(rest), [rest], False


def checksum(disk: Disk, fd: int, end: int) -> int | None:
    """The CRC-32 of the first bytes of a file; None if it has fewer."""
    crc, position = 0, 0
    while position < end:
        chunk = disk.pread(fd, min(_CHUNK, end - position), position)
        if not chunk:
            return None
        crc = zlib.crc32(chunk, crc)
        position += len(chunk)
    return crc


def offsets_of(offset: int, lines: Iterable[bytes]) -> Iterator[int]:
    """Where each of the lines stands that follow each other from an offset on."""
    return map(add, accumulate(map(len, lines), initial=offset), count())


def unnamed_file(directory: Path | str) -> int:
    """A descriptor of a file without a name, in `directory`; for appending."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        fd = os.dup(file.fileno())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd


class NewFile:
    """A file being written beside its place. `publish` syncs it and renames it in.

    disk_keeps_up: for whoever may wait for the disk. It begins with a large file while that is
    made, and what it has does not stay in memory.
    A context manager: what was not published is removed.
    """

    def __init__(self, disk: Disk, path: Path | str) -> None:
        self.path = resolved(path)
        self.size = 0
        self.disk_keeps_up = False
        self._begun = 0  # bytes that the disk was told to begin with
        self._disk = disk
        self._temporary = temporary_name(self.path)
        with contextlib.suppress(FileNotFoundError):
            disk.remove(self._temporary)  # left by a process that had our pid
        self.fd = disk.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def write(self, data: bytes | bytearray) -> None:
        write_all(self._disk, self.fd, data)
        self.size += len(data)
        if self.disk_keeps_up and self.size - self._begun >= _BEHIND:
            self._disk.let_go(self.fd)
            self._begun = self.size

    def publish(self, *, durable: bool = True, keep_open: bool = False, read_soon: bool = True) -> None:
        """Without `durable` a power cut may leave the file empty or absent."""
        if durable:
            self._disk.sync(self.fd)
        if not read_soon:
            self._disk.let_go(self.fd)
        self._disk.rename(self._temporary, self.path)
        self._temporary = ""
        if durable:
            self._disk.sync_directory(os.path.dirname(self.path))
        if not keep_open:
            self.close()

    def close(self) -> None:
        """Close and, unless it was published, remove the file."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._disk.close(fd)
        if self._temporary:
            temporary, self._temporary = self._temporary, ""
            with contextlib.suppress(OSError):
                self._disk.remove(temporary)

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._temporary:
            self.close()


def write_atomically(disk: Disk, path: Path | str, parts: Iterable[bytes], *, durable: bool = True) -> None:
    """Replace a file by the joined `parts`: readers see the old or the new one, whole."""
    with NewFile(disk, path) as file:
        file.disk_keeps_up = True
        buffer = bytearray()
        for part in parts:
            buffer += part
            if len(buffer) >= _CHUNK:
                file.write(buffer)
                buffer = bytearray()
        file.write(buffer)
        file.publish(durable=durable)


def backup_name(disk: Disk, path: Path | str) -> str:
    """`<stem>.backup.json` beside the file, or `.backup-2.json` ...: never one that exists."""
    folder, name = os.path.split(resolved(path))
    stem, suffix = os.path.splitext(name)
    number = 1
    while True:
        label = "backup" if number == 1 else f"backup-{number}"
        candidate = os.path.join(folder, f"{stem}.{label}{suffix}")
        if not disk.exists(candidate):
            return candidate
        number += 1


def probe_directory(disk: Disk, directory: Path | str, owner: str = "") -> None:
    """Try everything that a run will need: make, write, sync, rename, remove.

    `owner` is the experiment whose lock we hold: what an earlier probe of it left behind,
    because it was killed, is cleared. Raises CannotCreate with the place and the reason;
    better now than after the first job.
    """
    path = os.path.join(resolved(directory), f".probe_{owner or os.getpid()}")
    clear_temporaries([path])
    step = "created"
    try:
        disk.make_directory(os.fspath(directory))
        step = "written, synced and renamed in"
        write_atomically(disk, path, [b"probe\n"])
        disk.remove(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotCreate(
            f"the directory {os.fspath(directory)} cannot be {step}: {reason}. "
            f"Choose another one with --output DIR, or make this one writable."
        ) from None


def lack_of_space(disk: Disk, directory: Path | str) -> str | None:
    """What to say if too little is free to go on safely: 64 MB, or 5 % if that is less."""
    free, total = disk.space(os.fspath(directory))
    floor = min(FREE_BYTES, int(total * FREE_SHARE))
    if free >= floor:
        return None
    return f"only {free / 1e6:.1f} MB are free on the file system of {directory}; {floor / 1e6:.1f} MB are needed"
