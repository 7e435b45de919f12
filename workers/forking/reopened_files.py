"""Files that the script has opened for reading: each forked worker opens them again.

Forks share the position of an open file: jobs of two workers that seek and read at the same time would silently
read wrong data. So each worker opens such files again under their old numbers. Files that are open for writing
stay shared, since two positions would overwrite each other. So do locked files, since a lock belongs to the
open file. For pipes and sockets see `workers.forking.inherited_resources`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import NamedTuple

_PATH_ONLY = getattr(os, "O_PATH", 0)
_ONCE = os.O_CREAT | os.O_EXCL | os.O_TRUNC  # of open alone; nothing is made or emptied again


class SharedFile(NamedTuple):
    """Descriptors that share one position, and their file."""

    descriptors: tuple[int, ...]
    file: tuple[int, int]  # device, inode


def opened_for_reading() -> tuple[list[SharedFile], list[str]]:
    """The files that each worker has to open again; the names of those that cannot be, and why."""
    alike: dict[tuple[int, int], list[list[int]]] = {}
    try:
        numbers = sorted(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        return [], ["all files: there is no /proc"]
    refused = []
    for number in numbers:
        status = _if_read_only(number)
        if status is None:
            continue
        file = (status.st_dev, status.st_ino)
        group = next((known for known in alike.get(file, []) if _share_position(known[0], number)), None)
        if group is not None:
            group.append(number)
            continue
        try:
            os.close(_reopened(number))
        except OSError as error:
            refused.append(f"{_name(number)}: {error.strerror}")
        else:
            alike.setdefault(file, []).append([number])
    found = [SharedFile(tuple(group), file) for file, groups in alike.items() for group in groups]
    return found, refused


def open_anew(files: list[SharedFile]) -> None:
    """In a forked worker: open them again under the same numbers, with flags, position and close-on-exec."""
    for descriptors, file in files:
        with contextlib.suppress(OSError):
            status = os.fstat(descriptors[0])
            if (status.st_dev, status.st_ino) != file:
                continue
            fresh = _reopened(descriptors[0])
            try:
                for number in descriptors:
                    os.dup2(fresh, number, inheritable=os.get_inheritable(number))
            finally:
                os.close(fresh)


def _if_read_only(number: int) -> os.stat_result | None:
    """The status of a file or directory that is open for reading alone, without a lock."""
    try:
        status = os.fstat(number)
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        if number < 3 or flags & os.O_ACCMODE != os.O_RDONLY or flags & _PATH_ONLY:
            return None
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            return None
        with open(f"/proc/self/fdinfo/{number}", "rb") as file:
            return None if b"\nlock:" in file.read() else status
    except OSError:
        return None


def _reopened(number: int) -> int:
    """An open file of its own, with the same flags and position."""
    flags = fcntl.fcntl(number, fcntl.F_GETFL)
    fresh = os.open(f"/proc/self/fd/{number}", (flags & ~_ONCE) | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fresh, fcntl.F_SETFL, flags)
        os.lseek(fresh, os.lseek(number, 0, os.SEEK_CUR), os.SEEK_SET)
    except BaseException:
        os.close(fresh)
        raise
    return fresh


def _share_position(one: int, other: int) -> bool:
    """Whether one is a duplicate of the other: moving one moves both."""
    with contextlib.suppress(OSError):
        before = os.lseek(one, 0, os.SEEK_CUR)
        if os.lseek(other, 0, os.SEEK_CUR) != before:
            return False
        os.lseek(one, before + 1, os.SEEK_SET)
        moved = os.lseek(other, 0, os.SEEK_CUR) == before + 1
        os.lseek(one, before, os.SEEK_SET)
        return moved
    return False


def _name(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return f"descriptor {number}"
