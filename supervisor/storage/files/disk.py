"""The file operations that durability needs, in one small class.

Tests and the simulation replace it by a disk that fails, tears writes or forgets them. No format, no policy
and no retry belongs here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys

_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None) if sys.platform == "darwin" else None
# Some network file systems cannot sync a directory and say so with one of these.
_NOT_FOR_DIRECTORIES = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


class Disk:
    """The real disk. Every method raises OSError as the system gives it."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def duplicate(self, fd: int) -> int:
        return os.dup(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """May write less than it was given."""
        return os.write(fd, data)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """May read less than was asked for only at the end of the file."""
        data = os.pread(fd, size, offset)
        if len(data) in (size, 0):
            return data
        parts = [data]
        done = len(data)
        while done < size and (more := os.pread(fd, size - done, offset + done)):
            parts.append(more)
            done += len(more)
        return b"".join(parts)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def datasync(self, fd: int) -> None:
        """Content and size reach the medium. On macOS `fsync` only reaches the drive's cache."""
        if sys.platform == "darwin":
            self.sync(fd)
        else:
            os.fdatasync(fd)

    def sync(self, fd: int) -> None:
        if _FULL_SYNC is None:
            os.fsync(fd)
            return
        try:
            fcntl.fcntl(fd, _FULL_SYNC)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
            os.fsync(fd)

    def drop_cache(self, fd: int) -> None:
        """Drop a file from the page cache, because it is not read soon. Linux begins to write dirty pages and
        keeps those until they are written."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link(self, source: str, target: str) -> bool:
        """Make a hard link; False if the file system has none."""
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno in _NO_LINKS:
                return False
            raise
        return True

    def remove(self, path: str) -> None:
        os.unlink(path)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def has_name(self, fd: int, path: str) -> bool:
        """Whether an open file still has its name: false if it was removed. Inode numbers are not compared:
        not all network file systems keep them."""
        return os.path.exists(path) and os.fstat(fd).st_nlink > 0

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents; it may exist. Each parent is synced, else a power cut could remove
        the new directory with everything in it."""
        missing = []
        place = os.path.abspath(path)
        while not os.path.isdir(place):
            missing.append(place)
            place = os.path.dirname(place)
        os.makedirs(path, exist_ok=True)
        for made in reversed(missing):
            with contextlib.suppress(PermissionError):  # for a parent directory that is not readable
                self.sync_directory(os.path.dirname(made))

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sync(fd)
        except OSError as error:
            if error.errno not in _NOT_FOR_DIRECTORIES:
                raise
        finally:
            os.close(fd)

    def space(self, path: str) -> tuple[int, int]:
        """(bytes available to this user, total bytes) of the file system."""
        info = os.statvfs(path)
        return info.f_bavail * info.f_frsize, info.f_blocks * info.f_frsize
