"""The lock of an experiment: only one supervisor at a time runs it.

`flock` on a file that is never deleted. The kernel releases it when the holder dies, so no lock is ever
stale. The content (pid, host, start) is for humans only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from pathlib import Path

import msgspec

from supervisor.core.terms.errors import BeingRun, CannotCreate
from supervisor.storage.files.atomic_files import resolved
from supervisor.storage.files.disk import Disk
from supervisor.system.clock import utc_now

_TRIES, _BETWEEN_TRIES = 4, 0.02  # seconds
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Holder(msgspec.Struct):
    """Who holds the lock."""

    pid: int = 0
    host: str = ""
    started: str = ""


class Lock:
    """A held lock. `notice`: a sentence for the user if the file system cannot lock, else None."""

    def __init__(self, fd: int, path: str, notice: str | None) -> None:
        self.path = path
        self.notice = notice
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path | str, experiment_id: str) -> Lock:
        """Raises BeingRun that names the holder if a live supervisor owns the experiment."""
        target = resolved(path)
        while True:
            fd = _open(target)
            try:
                notice = _flock(fd, target, experiment_id)
            except BaseException:
                os.close(fd)
                raise
            if _is_still_there(fd, target):
                break
            os.close(fd)  # the file was deleted between the two calls
        _write_holder(fd)
        return cls(fd, target, notice)

    @classmethod
    def none(cls) -> Lock:
        """No lock, for experiments that are not kept (--no-resume)."""
        return cls(-1, "", None)

    def release(self) -> None:
        """Release the lock; the file stays. Closing is not enough: a forked child may share the descriptor."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if self.notice is None:
                with contextlib.suppress(
                    OSError
                ):  # closing does the same, unless a forked child shares the descriptor
                    fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def _open(path: str) -> int:
    try:
        Disk().make_directory(os.path.dirname(path))
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if (owner := _other_owner(path)) is not None:
            raise CannotCreate(
                f"the lock file {path} cannot be opened: {error.strerror}. "
                f"The experiment belongs to user {owner}: run this as that user."
            ) from None
        raise CannotCreate(
            f"the lock file {path} cannot be opened: {error.strerror}. Choose another directory with --output DIR."
        ) from None


def _other_owner(path: str) -> int | None:
    """The uid of another user whose lock file this is; None for a file of our own, or none."""
    try:
        owner = os.stat(path).st_uid
    except OSError:
        return None
    return owner if owner != os.geteuid() else None


def is_held(path: Path | str) -> bool | None:
    """Whether a live supervisor holds the lock; None if that cannot be determined.

    The kernel can only be asked by trying. For an instant this takes a shared lock, which is why `Lock.acquire`
    tries more than once.
    """
    try:
        fd = os.open(resolved(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(fd)
    return False


def refuse_held(path: Path | str, experiment_id: str) -> None:
    """Raises BeingRun that names the holder if a live supervisor owns the experiment."""
    if is_held(path):
        with open(resolved(path), "rb") as file:
            raise _being_run(file.fileno(), os.fspath(path), experiment_id)


def _being_run(fd: int, path: str, experiment_id: str) -> BeingRun:
    holder = _read_holder(fd)
    where = f"pid {holder.pid} on {holder.host}" if holder.pid else "another process"
    since = f" since {holder.started}" if holder.started else ""
    return BeingRun(
        f"experiment {experiment_id} is being run by {where}{since} (lock {path}). "
        f"Wait until it is over or stop it with `kill {holder.pid or 'PID'}`, then resume; "
        f"or start another experiment with --experiment-id."
    )


def _flock(fd: int, path: str, experiment_id: str) -> str | None:
    try:
        _try_for_a_moment(fd)
    except BlockingIOError:
        raise _being_run(fd, path, experiment_id) from None
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise CannotCreate(
                f"the lock file {path} cannot be locked: {error.strerror}. Choose another directory with --output DIR."
            ) from None
        return (
            f"the file system of {path} cannot lock files ({error.strerror}): "
            f"make sure yourself that no second supervisor runs {experiment_id}"
        )
    return None


def _try_for_a_moment(fd: int) -> None:
    """Take the lock. A concurrent `is_held` delays this but does not prevent it."""
    for attempt in range(_TRIES):
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(_BETWEEN_TRIES)
    return None


def _is_still_there(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _write_holder(fd: int) -> None:
    data = msgspec.json.encode(Holder(os.getpid(), socket.gethostname(), utc_now())) + b"\n"
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)
    except OSError:
        return  # disk full: the lock is held without this text


def _read_holder(fd: int) -> Holder:
    try:
        return msgspec.json.decode(os.pread(fd, 4096, 0), type=Holder)
    except (OSError, msgspec.DecodeError):
        return Holder()
