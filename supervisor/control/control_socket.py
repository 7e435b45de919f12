"""Names and directory of control sockets: a directory that other users cannot enter.

`$XDG_RUNTIME_DIR/longhaul`, else `longhaul-<uid>` in the temporary directory, else in /tmp.
The directory must be no link, must belong to this user, and must be closed to all others; another one is not
used. A socket's whole path has to fit into 107 bytes (103 on macOS). So its name is short: a hash of the path of
the experiment's lock file.
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

MAX_PATH = 103
_NAME = re.compile(r"[0-9a-f]{16}(?:\.(\d+))?")
_LONGEST_NAME = 28  # with a pid behind it
_MAX_CHECKED = 1000  # names in the directory


class NoControlSocket(Exception):
    """No control socket can be created; the message says why."""


def find_directory() -> str:
    """The first usable directory, created if necessary. Raises NoControlSocket."""
    reasons = []
    for path in _candidates():
        # The path is written to JSON files.
        problem = "has a name that is not UTF-8" if has_surrogates(path) else _problem(path)
        if problem is None:
            return path
        reasons.append(f"{path} {problem}")
    raise NoControlSocket("; ".join(reasons))


def socket_name(lock: str | os.PathLike[str]) -> str:
    """The name of the socket of the supervisor that holds this lock file."""
    return hashlib.blake2b(os.fsencode(os.path.realpath(lock)), digest_size=8).hexdigest()


def remove_stale_sockets(directory: str) -> None:
    """Remove the sockets of dead supervisors."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory)[:_MAX_CHECKED]:
            match = _NAME.fullmatch(name)
            if match and _is_stale(os.path.join(directory, name), match.group(1)):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(directory, name))


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end, from the kernel. Raises OSError."""
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
    if len(os.fsencode(path)) + 1 + _LONGEST_NAME > MAX_PATH:
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
    """Whether no process listens there. A socket with a pid in its name is not renamed yet (`control_server`): it is
    stale if that process is dead."""
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
