"""System calls of Linux for groups of processes, with substitutes for other systems.

Only thin wrappers around system calls; no policy. Every function says what it does where
the call does not exist.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import select
import signal
import sys
import threading

IS_LINUX = sys.platform.startswith("linux")

HIGH = 300  # the kernel closes high descriptors first when a process dies
_PR_SET_CHILD_SUBREAPER = 36
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_IO_LINE_BUFFERED = 1
_libc = ctypes.CDLL(None, use_errno=True)
_STDOUT_SYMBOL = "stdout" if IS_LINUX else "__stdoutp"


def become_subreaper() -> bool:
    """Adopt descendants whose parents have died; false where that cannot be done."""
    return IS_LINUX and _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def prefer_as_oom_victim(score: int = 500) -> None:
    """Make the kernel's OOM killer prefer this process to the supervisor."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < score:
                file.seek(0)
                file.write(str(score))
    except (OSError, ValueError):
        pass  # not Linux, or not allowed: the kernel chooses by size


def hold_lifeline(descriptor: int, *, alone: bool = False) -> int | None:
    """Die, with the whole process group, when the other end of this pipe is closed.

    On Linux the kernel sends SIGKILL, whatever the process is doing (a thread would not be
    scheduled while a job holds the GIL). The signal's owner belongs to the open file
    description, hence a fresh one; it is the group, not the process, so that plain children of a job are
    killed too, unless it is `alone`: then another process ends those. Elsewhere a thread waits. Returns a
    descriptor; closing it switches the lifeline off. None if a thread waits.
    """
    try:
        if not IS_LINUX:
            raise OSError("no /proc")
        fresh = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        _kill_on_input(fresh, os.getpid() if alone else -os.getpgid(0))
    except OSError:
        _watch_lifeline(descriptor)
        return None
    os.close(descriptor)
    if _is_closed(fresh):  # before the arming
        os.kill(os.getpid() if alone else 0, signal.SIGKILL)
    return fresh


def opened_anew(descriptor: int) -> int:
    """A fresh open file description of a pipe to read from, for `kill_group_at_end`."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def copied(descriptor: int, at_least: int) -> int:
    """A copy with at least this number, or any other if the limit of open files is lower."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, at_least)
    except OSError:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)


def kill_group_at_end(fresh: int) -> None:
    """Let the kernel kill the group of this process when the other end is closed, as long as any process has this
    description open, even after the death of this one."""
    _kill_on_input(fresh, -os.getpgid(0))
    if _is_closed(fresh):
        os.killpg(0, signal.SIGKILL)


def _is_closed(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(0))


def _kill_on_input(descriptor: int, owner: int) -> None:
    """`owner`: a process, or the negative of a group."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, owner)
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, int(signal.SIGKILL))
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)


def _watch_lifeline(descriptor: int) -> None:
    def watch() -> None:
        os.read(descriptor, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="longhaul-lifeline", daemon=True).start()


def punch_hole(descriptor: int, start: int, length: int) -> bool:
    """Free the blocks of a part of a file; its size stays. False if it cannot be done."""
    fallocate = getattr(_libc, "fallocate64" if sys.maxsize < 2**32 else "fallocate", None)
    if fallocate is None:
        return False
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    result = fallocate(descriptor, mode, ctypes.c_longlong(start), ctypes.c_longlong(length))
    return bool(result == 0)


class CStandardOutput:
    """The stdout buffer of the C library, in front of descriptor 1."""

    def __init__(self) -> None:
        self._stream: ctypes.c_void_p | None
        self._pointers: memoryview | None = None
        try:
            self._stream = ctypes.c_void_p.in_dll(_libc, _STDOUT_SYMBOL)
        except ValueError:
            self._stream = None
        else:
            if self._stream.value and _pointers_are_where_glibc_has_them():
                self._pointers = _write_pointers(self._stream.value)

    def buffer_by_line(self) -> None:
        """Flush after each line: a crash then loses at most one line."""
        if self._stream is not None:
            _libc.setvbuf(self._stream, None, _IO_LINE_BUFFERED, ctypes.c_size_t(0))

    def pending(self) -> bool:
        """Whether the buffer may not be empty; ten times faster than calling `flush`."""
        pointers = self._pointers
        return pointers is None or pointers[0] != pointers[1]

    def flush(self) -> None:
        """Only stdout: `fflush(NULL)` waits for streams that other threads hold."""
        if self._stream is not None:
            _libc.fflush(self._stream)


_WRITE_BASE = 4 * ctypes.sizeof(ctypes.c_void_p)  # in struct _IO_FILE; the write pointer follows it


def _write_pointers(stream: int) -> memoryview:
    """Start and fill pointer of the output buffer of a C stream."""
    pointers = (ctypes.c_size_t * 2).from_address(stream + _WRITE_BASE)
    return memoryview(pointers).cast("B").cast("L")  # as wide as a pointer on every Linux


@functools.cache
def _pointers_are_where_glibc_has_them() -> bool:
    """Tested on a stream of our own: other C libraries have other structures, but no smaller ones."""
    if not IS_LINUX:
        return False
    _libc.fopen.restype = ctypes.c_void_p
    stream = _libc.fopen(os.devnull.encode(), b"w")
    if not stream:
        return False
    try:
        _libc.fputs(b"four", ctypes.c_void_p(stream))
        begin, end = _write_pointers(stream)
        return end - begin == 4
    finally:
        _libc.fclose(ctypes.c_void_p(stream))


def show_in_environment(name: str, value: str) -> bool:
    """Put a value into the environment that others see of this process (/proc/PID/environ),
    which `os.environ` does not change. It has to be there with at least as many bytes, and to
    be the last of all; false if that is not so."""
    text = value.encode()
    getenv = _libc.getenv
    getenv.restype = ctypes.c_void_p
    address = getenv(name.encode())
    room = len(os.environb.get(name.encode(), b""))
    if address is None or len(text) > room:
        return False
    ctypes.memmove(address, text.ljust(room, b"\0"), room)
    try:
        with open("/proc/self/environ", "rb") as file:
            shown = file.read()
    except OSError:
        return False
    os.environ[name] = value
    return shown.rstrip(b"\0").endswith(b"\0" + name.encode() + b"=" + text)


class ShownVariable:
    """A variable as others see it of this process and of its forks (/proc/PID/environ), which
    `os.environ` does not change. To be made before any code of the user runs."""

    def __init__(self, name: str, placeholder: str) -> None:
        getenv = _libc.getenv
        getenv.restype = ctypes.c_void_p
        self._address = getenv(name.encode())
        self._text = f"{name}={placeholder}".encode()
        self._offset = len(name) + 1

    def show(self, value: str) -> None:
        """As wide as the placeholder. Nothing happens if a library has used the room for
        something else (setproctitle does)."""
        if self._address is None:
            return
        start = self._address - self._offset
        if ctypes.string_at(start, len(self._text)) == self._text:
            ctypes.memmove(self._address, value.encode(), len(self._text) - self._offset)


def child_signals() -> int | None:
    """A descriptor that can be read from when a child has died: SIGCHLD is blocked for it.
    None where that cannot be had."""
    make = getattr(_libc, "signalfd", None)
    if make is None:
        return None
    signals = ctypes.create_string_buffer(128)  # a sigset_t
    _libc.sigemptyset(signals)
    _libc.sigaddset(signals, int(signal.SIGCHLD))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    descriptor = make(-1, signals, os.O_CLOEXEC | os.O_NONBLOCK)
    return descriptor if descriptor >= 0 else None


def children_of(parent: int) -> list[int]:
    """Pids of the children of a process, zombies included. Raises OSError rather than leave
    one out (too many open files)."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        pass  # this kernel keeps no such list: check the parent of every process
    children = []
    for name in os.listdir("/proc"):
        if name.isdigit() and parent_of(int(name)) == parent:
            children.append(int(name))
    return children


def parent_of(pid: int) -> int | None:
    """The parent of a process; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(1024)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The second field is the program's name in parentheses, which may hold anything.
    return int(stat[stat.rindex(b")") + 2 :].split(None, 2)[1])


def thread_count() -> int:
    """Threads of this process, those of C libraries included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()
