"""Private descriptors in a process that runs code of the user.

A job may close all descriptors and open files of its own, which get the free numbers. So private descriptors
have high numbers, which new files do not get. Before one is read, written or closed, device and inode are
compared: they tell whether it is still the same file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
from collections.abc import Callable
from typing import Any

_HIGH = 1000  # programs rarely open more descriptors than this
_ROOM = 16  # private descriptors
_LOWER = 700  # used if half of the limit is near _HIGH
_FEWEST = 64  # a limit below this leaves no numbers to spare

FileIdentity = tuple[int, int]  # inode, device
# A call of a C function, and its result as long as nothing has changed. The call may also restore the value.
Probe = tuple[Callable[[], Any], Any]

_files: dict[int, FileIdentity] = {}


def claim(descriptor: int, lost: int = -1) -> int:
    """Move a descriptor to a high number, register it, and return that number. Child programs do not inherit
    it. Raises OSError.

    lost: the number that it had before a job closed it. It gets that number or a higher one: other private
        descriptors may be closed as well, and their numbers must stay free.
    """
    try:
        kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lost if lost >= 0 else _high())
    except OSError:  # a job has lowered the limit
        kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    register(kept)
    return kept


def register(descriptor: int) -> None:
    """Register a descriptor under its present number; child programs do not inherit it."""
    os.set_inheritable(descriptor, False)
    _files[descriptor] = identity_of(descriptor)


def identity_of(descriptor: int) -> FileIdentity:
    """Inode and device of its file. Raises OSError if it is closed."""
    status = os.fstat(descriptor)
    return status[1], status[2]


def is_ours(descriptor: int, file: FileIdentity) -> bool:
    """Whether the descriptor leads to `file`. The caller has to say which: another private descriptor may
    have got the number of one that was closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (status[1], status[2]) == file


def all_intact() -> bool:
    """Whether no private descriptor was closed or replaced."""
    return all(is_ours(descriptor, file) for descriptor, file in _files.items())


def release(descriptor: int, file: FileIdentity) -> None:
    """Close it, if it still leads to `file`."""
    if _files.get(descriptor) == file:
        del _files[descriptor]
        if is_ours(descriptor, file):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def release_all() -> None:
    """In a forked child: close all; they belong to the parent."""
    for descriptor, file in list(_files.items()):
        release(descriptor, file)


def _high() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < _FEWEST:
        return 3
    if 0 <= limit < _HIGH + _ROOM:
        return limit - _ROOM
    # The number in the middle shows how many are open (`WorkerQueues.watch_descriptor`).
    return _LOWER if abs(limit // 2 - _HIGH) < 2 * _ROOM + 16 else _HIGH
