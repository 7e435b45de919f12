"""Descriptors of ours in a process that runs code of others.

A job may close all descriptors and open files of its own, which get the numbers that are free. So
ours have high numbers, out of the way of what is opened next, and each is known to be ours (the same
file as ever: its device and inode) before it is read, written or closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
from collections.abc import Callable
from typing import Any

_HIGH = 1000  # more descriptors than this are rarely opened; each makes a fork copy a few bytes
_ROOM = 16  # for ours
_LOWER = 700  # where half of the limit is the other number
_FEWEST = 64  # of a limit below this all numbers are needed

FileIdentity = tuple[int, int]  # inode, device
# A call of C code, and what it answers for as long as nobody has changed what it asks for. To ask it may
# put something back.
Probe = tuple[Callable[[], Any], Any]

_files: dict[int, FileIdentity] = {}


def claim(descriptor: int, lost: int = -1) -> int:
    """Ours from now on: another number of the same, which no program that is started inherits. The
    old number is closed. Raises OSError.

    `lost`: the number that it had before a job closed it. It gets that one again, or a higher one:
    others of ours may be closed as well and not known to be, and theirs must stay free.
    """
    try:
        kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lost if lost >= 0 else _high())
    except OSError:  # a job has lowered the limit
        kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    register(kept)
    return kept


def register(descriptor: int) -> None:
    """Ours from now on, under this number; no program that a job starts is to hold it."""
    os.set_inheritable(descriptor, False)
    _files[descriptor] = identity_of(descriptor)


def identity_of(descriptor: int) -> FileIdentity:
    """Which file it is. Raises OSError if it is closed."""
    status = os.fstat(descriptor)
    return status[1], status[2]


def is_ours(descriptor: int, file: FileIdentity) -> bool:
    """Whether it is that file. The owner has to know which: another one of ours may have got the
    number of one that was closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (status[1], status[2]) == file


def all_intact() -> bool:
    """Whether nobody has closed or replaced any."""
    return all(is_ours(descriptor, file) for descriptor, file in _files.items())


def release(descriptor: int, file: FileIdentity) -> None:
    """Close it, if it is that file of ours still."""
    if _files.get(descriptor) == file:
        del _files[descriptor]
        if is_ours(descriptor, file):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def release_all() -> None:
    """In a fork: they are the parent's."""
    for descriptor, file in list(_files.items()):
        release(descriptor, file)


def _high() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < _FEWEST:
        return 3
    if 0 <= limit < _HIGH + _ROOM:
        return limit - _ROOM
    # The number in the middle is looked at to see how many are open (`WorkerQueues.reserve`).
    return _LOWER if abs(limit // 2 - _HIGH) < 2 * _ROOM + 16 else _HIGH
