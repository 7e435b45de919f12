"""Files that appear whole or not at all; reading by lines; free space.

Building blocks only: the content of the files is not known here.
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
_BEHIND = 8 << 20  # bytes of a large file after which the disk is told to begin writing
# Bytes of one read. Small enough that several passes over its lines stay in the processor's cache.
_PIECE = 64 << 10


def resolved(path: Path | str) -> str:
    """The file itself, if `path` is a symbolic link: `rename` would replace the link."""
    return os.path.realpath(path)


def temporary_name(path: str) -> str:
    """A name in the same directory, so that a rename can put the file in its place."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{os.getpid()}.tmp")


def clear_temporaries(paths: Iterable[Path | str]) -> None:
    """Remove temporary files that a killed process left of `paths`, their backups and backups of their tails.

    Only for the holder of the experiment's lock: no other process may be writing them.
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


def read_cache(disk: Disk, path: Path | str) -> bytes | None:
    """The whole of a file that need not be there; None if it is not, or cannot be read."""
    try:
        fd = disk.open(resolved(path), os.O_RDONLY)
    except OSError:
        return None
    try:
        return disk.pread(fd, disk.size(fd), 0)
    except OSError:
        return None
    finally:
        disk.close(fd)


def groups_of(disk: Disk, fd: int, start: int, end: int) -> Iterator[tuple[int, list[bytes], bool]]:
    """(offset of the first line, lines without newlines, whether they had one) of the bytes from start to end.

    Some hundred lines at a time, so that they can be processed in C. Pieces double in size inside a line that
    is longer than a piece, so that copying stays linear.
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
    """The offset of each of these lines, of which the first begins at `offset`."""
    return map(add, accumulate(map(len, lines), initial=offset), count())


def unnamed_file(directory: Path | str) -> int:
    """A descriptor of a file without a name, in `directory`; for appending."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        fd = os.dup(file.fileno())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd


class NewFile:
    """A temporary file beside `path`; `publish` syncs it and renames it to `path`.

    write_behind: if set, the disk begins to write a large file while it is made, and the page cache does not
    keep it; for callers that may wait for the disk.
    As a context manager it removes a file that was not published.
    """

    def __init__(self, disk: Disk, path: Path | str) -> None:
        self.path = resolved(path)
        self.size = 0
        self.write_behind = False
        self._begun = 0  # bytes that the disk was told to write
        self._disk = disk
        self._temporary = temporary_name(self.path)
        with contextlib.suppress(FileNotFoundError):
            disk.remove(self._temporary)  # left by a process that had our pid
        self.fd = disk.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def write(self, data: bytes | bytearray) -> None:
        write_all(self._disk, self.fd, data)
        self.size += len(data)
        if self.write_behind and self.size - self._begun >= _BEHIND:
            self._disk.drop_cache(self.fd)
            self._begun = self.size

    def publish(self, *, durable: bool = True, keep_open: bool = False, read_soon: bool = True) -> None:
        """Sync and rename. Without `durable` a power cut may leave the file empty or missing."""
        if durable:
            self._disk.sync(self.fd)
        if not read_soon:
            self._disk.drop_cache(self.fd)
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
        file.write_behind = True
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
    """Try what a run needs of a directory: create, write, sync, rename, remove.

    owner: the experiment whose lock is held; files that a killed probe of it left are removed. Raises
    CannotCreate with the directory and the reason, before the first job runs.
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
    """A sentence for the user if less than 64 MB are free, or 5 % if that is less; else None."""
    free, total = disk.space(os.fspath(directory))
    floor = min(FREE_BYTES, int(total * FREE_SHARE))
    if free >= floor:
        return None
    return f"only {free / 1e6:.1f} MB are free on the file system of {directory}; {floor / 1e6:.1f} MB are needed"
