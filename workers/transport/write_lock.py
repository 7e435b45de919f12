"""Who may write to the pipe through which a worker speaks: one at a time, where it matters."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading


class Fence:
    """Keeps what is said aside out of the middle of a long frame.

    Between threads a lock does it, between a worker and its forked children a record lock of
    the system on the pipe itself, which the death of its holder releases. Who speaks aside never
    waits for either: the holder may be the very thread that a signal handler has interrupted.
    """

    def __init__(self, outbox: int) -> None:
        self.outbox = outbox
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        with contextlib.suppress(OSError):  # this system locks no pipes
            fcntl.lockf(self.outbox, fcntl.LOCK_EX)

    def __exit__(self, *exception: object) -> None:
        self.leave()

    def try_enter(self) -> bool:
        """Without waiting; whether we are in."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            fcntl.lockf(self.outbox, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES) or os.getpid() != self._owner:
                self._lock.release()
                return False
        return True

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            fcntl.lockf(self.outbox, fcntl.LOCK_UN)
        self._lock.release()

    def in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = threading.Lock()
