"""Whether workers can be forked after the import of the script: not if it has opened something that they must
not share.

Processes that share a pipe, connection, terminal or event loop read from one stream, so one job may get the
answer that was meant for another one, or wait for ever. A lock of multiprocessing has one state, and a child
process one parent. If anything of this kind is found, workers are not forked after the import: each imports
the script itself.

Files are reopened instead (`workers.forking.reopened_files`). Shared memory and mapped files that have a name
are shared on purpose, and stay.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import stat
import sys
import time
import warnings
from typing import Any

from workers.forking.process_owner import trackers_among
from workers.process.linux import children_of, thread_count

File = tuple[int, int]  # device, inode

_TRACKERS = (
    "multiprocessing.resource_tracker",
    "loky.backend.resource_tracker",
    "joblib.externals.loky.backend.resource_tracker",
)
_MASTER = os.makedev(5, 2)  # /dev/ptmx
_TERMINALS = range(136, 144)  # major numbers of /dev/pts/*
# Locks, values and arrays of multiprocessing, and memory that is mapped without a file: without a name only
# forks can share them.
_MAPPED = ("/sem.", "/pym-", "/dev/zero ")
_REMOVED = "(deleted)"
_TRIAL_FORK_SECONDS = 1.0  # for a child that only exits
_POLL_EVERY = 0.001  # seconds
# Libraries whose objects refuse to be used in a fork: module, class, and where it notes its process.
_REFUSING = (("filelock", "BaseFileLock", "_creator_pid"),)


def descriptors_now() -> dict[int, File]:
    """The open descriptors of this process, and their files; empty without /proc."""
    found: dict[int, File] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                status = os.fstat(int(name))
                found[int(name)] = (status.st_dev, status.st_ino)
    return found


def fork_obstacle(before: dict[int, File]) -> str:
    """Why workers cannot be forked from this process, or "". `before`: the open descriptors before the import
    of the user's code."""
    if thread_count() > 1:
        _stop_library_threads()
    if (threads := thread_count()) > 1:
        return f"{threads} threads run after the user's code was imported"
    found = opened_since(before)
    return f"{found} is open after the user's code was imported" if found else ""


def opened_since(before: dict[int, File]) -> str:
    """The name of the first thing found that workers must not share, or "". `before`: the descriptors that
    were open before the user's code was imported."""
    known = set(before.items())
    trackers = _descriptors_of_trackers()
    for number, file in descriptors_now().items():
        if number > 2 and (number, file) not in known and number not in trackers:
            with contextlib.suppress(OSError):
                if _has_one_stream(number):
                    return os.readlink(f"/proc/self/fd/{number}")
    return _mapping() or _child() or _refusing()


def _descriptors_of_trackers() -> set[Any]:
    """Resource trackers are shared on purpose: messages to them do not mix."""
    modules = (sys.modules.get(name) for name in _TRACKERS)
    return {getattr(getattr(module, "_resource_tracker", None), "_fd", None) for module in modules}


def _has_one_stream(number: int) -> bool:
    status = os.fstat(number)
    if stat.S_ISSOCK(status.st_mode):
        # Datagrams do not mix: those of a log, or of measurements, are sent and not answered.
        with socket.socket(fileno=os.dup(number)) as copy:
            return copy.type in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == _MASTER or os.major(status.st_rdev) in _TERMINALS
    return stat.S_ISFIFO(status.st_mode) or stat.S_IFMT(status.st_mode) == 0  # epoll, eventfd, timerfd


def _mapping() -> str:
    found = []
    with contextlib.suppress(OSError), open("/proc/self/maps", errors="surrogateescape") as file:
        for line in file:
            _, access, _, _, _, *name = line.rstrip("\n").split(maxsplit=5)
            if access == "rw-s" and name and name[0].endswith(_REMOVED):
                found += [name[0]] if any(part in name[0] for part in _MAPPED) else []
    locks = [name for name in found if "/sem." in name]
    if len(locks) == 1 and _is_of_a_progress_bar():
        found.remove(locks[0])
    return found[0] if found else ""


def _is_of_a_progress_bar() -> bool:
    """tqdm makes a lock with its first bar, and holds it no longer than it takes to draw one."""
    lock = getattr(sys.modules.get("tqdm.std"), "TqdmDefaultWriteLock", None)
    return getattr(lock, "mp_lock", None) is not None


def _child() -> str:
    """A child process that the script has started and may wait for; not a daemon."""
    with contextlib.suppress(OSError):
        children = set(children_of(os.getpid()))
        children -= set(trackers_among(children)) if children else set()
        process: Any = sys.modules.get("multiprocessing.process")
        if not children:
            return ""
        if process is not None and process._children:
            return "a process of multiprocessing"
        popen = getattr(sys.modules.get("subprocess"), "Popen", ())
        for found in gc.get_objects():
            if isinstance(found, popen) and found.returncode is None and found.pid in children:
                return f"process {found.pid}"
    return ""


def _refusing() -> str:
    for module, name, process in _REFUSING:
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type):
            for found in gc.get_objects():
                if isinstance(found, kind) and getattr(found, process, None) == os.getpid():
                    return f"a {module}.{type(found).__name__}"
    return ""


def _stop_library_threads() -> None:
    """Fork once for nothing: some libraries (OpenBLAS of NumPy) start threads on import, end them at a fork, and
    start them again when they are needed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    deadline = time.monotonic() + _TRIAL_FORK_SECONDS
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(_POLL_EVERY)
