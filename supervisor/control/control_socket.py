"""Where control sockets are: in a directory that nobody else can enter.

`$XDG_RUNTIME_DIR/longhaul`, else `longhaul-<uid>` in the temporary directory, else in /tmp.
The directory must be a real one (no link), ours, and closed to everybody else; one that is
not is not used. A socket's name is short, since all of its path has to fit into 107 bytes
(103 on macOS): the hash of the lock file whose holder it leads to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator

from workers.process.surrogates import has_surrogates

MOST_BYTES = 103
_NAME = re.compile(r"[0-9a-f]{16}(?:\.(\d+))?")
_LONGEST_NAME = 28  # with a pid behind it
_MOST_SWEPT = 1000  # names that are looked at


class NoPlace(Exception):
    """There can be no control socket; says why."""


def find_directory() -> str:
    """The first directory that will do, made if need be. Raises NoPlace."""
    reasons = []
    for path in _candidates():
        # The path stands in files of JSON.
        problem = "has a name that is not UTF-8" if has_surrogates(path) else _problem(path)
        if problem is None:
            return path
        reasons.append(f"{path} {problem}")
    raise NoPlace("; ".join(reasons))


def socket_name(lock: str | os.PathLike[str]) -> str:
    """The name of the socket of whoever holds this lock file."""
    return hashlib.blake2b(os.fsencode(os.path.realpath(lock)), digest_size=8).hexdigest()


def sweep(directory: str) -> None:
    """Remove the sockets of supervisors that are no more."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory)[:_MOST_SWEPT]:
            match = _NAME.fullmatch(name)
            if match and _is_stale(os.path.join(directory, name), match.group(1)):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(directory, name))


def peer_uid(connection: socket.socket) -> int:
    """Whose process is at the other end, as the kernel knows it. Raises OSError."""
    if hasattr(socket, "SO_PEERCRED"):
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[4:8], sys.byteorder)
    credentials = connection.getsockopt(0, 0x001, 76)  # macOS: LOCAL_PEERCRED, struct xucred
    return int.from_bytes(credentials[4:8], sys.byteorder)


def _candidates() -> Iterator[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        yield os.path.join(runtime, "longhaul")
    own = f"longhaul-{os.geteuid()}"
    temporary = os.environ.get("TMPDIR", "")
    if os.path.isabs(temporary):
        yield os.path.join(temporary, own)
    yield os.path.join("/tmp", own)


def _problem(path: str) -> str | None:
    """Why a directory cannot be used; None if it can."""
    if len(os.fsencode(path)) + 1 + _LONGEST_NAME > MOST_BYTES:
        return "is too long for a socket's path"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"is open to others (mode {stat.S_IMODE(status.st_mode):o}, not 700)"
    return None


def _is_stale(path: str, pid: str | None) -> bool:
    """Nobody listens there. A socket that has not got its last name yet (see `control_server`) is
    stale when its maker is dead."""
    if pid is not None:
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            return False
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
