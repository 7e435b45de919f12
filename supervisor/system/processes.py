"""Facts about processes: descendants, CPU time, memory, signals, start time.

psutil is imported on first use: a quiet run never needs it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable

import msgspec

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_HAS_PROC = sys.platform.startswith("linux")


def has_pidfds() -> bool:
    """Whether pidfds work: older kernels, and the sandboxes of some containers, lack them."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except AttributeError:
        return False
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)  # it works, but there are too many open files
    return True


def boot_id() -> str:
    """Where pids mean what they mean here: the boot of the machine, and the PID namespace, of which every container
    has its own."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))
    with contextlib.suppress(OSError):
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    return boot


class ProcessFacts(msgspec.Struct):
    parent: int
    cpu_seconds: float
    rss_bytes: int


def process_table() -> dict[int, ProcessFacts]:
    """All visible processes of this machine. Raises OSError (too many open files) rather than leave one out:
    the children of a missing worker would count as orphans."""
    return _table_from_proc() if _HAS_PROC else _table_from_psutil()


def _table_from_proc() -> dict[int, ProcessFacts]:
    # One read per process; psutil needs several.
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (facts := facts_of(int(name))) is not None:
            table[int(name)] = facts
    return table


def facts_of(pid: int) -> ProcessFacts | None:
    """Facts about one process, from /proc; None if it has just ended, or is hidden."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        stat = os.read(descriptor, 2048)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    fields = stat[stat.rindex(b")") + 2 :].split()
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    return ProcessFacts(int(fields[1]), cpu, int(fields[21]) * _PAGE)


def _table_from_psutil() -> dict[int, ProcessFacts]:
    import psutil

    table = {}
    for process in psutil.process_iter(["ppid", "cpu_times", "memory_info"]):
        facts = process.info
        cpu, memory = facts["cpu_times"], facts["memory_info"]
        seconds = cpu.user + cpu.system if cpu else 0.0
        table[process.pid] = ProcessFacts(facts["ppid"] or 0, seconds, memory.rss if memory else 0)
    return table


def descendants_by_root(table: dict[int, ProcessFacts], roots: Iterable[int]) -> dict[int, list[int]]:
    """For each root: its pid and those of its descendants."""
    children: dict[int, list[int]] = {}
    for pid, facts in table.items():
        children.setdefault(facts.parent, []).append(pid)
    found = {}
    for root in roots:
        members = [root] if root in table else []
        for pid in members:
            members.extend(child for child in children.get(pid, ()) if child != pid)
        found[root] = members
    return found


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by SIGSTOP or a debugger."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    except (psutil.Error, OSError):
        return False


def has_handler(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal; true where that is unknown."""
    if not _HAS_PROC:
        return True
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next(line for line in file if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)


Program = tuple[bytes, ...]  # addresses of its code and stack, which change with exec


def program_of(pid: int) -> Program | None:
    """A value that changes when a process executes another program; None if it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(2048)
    except OSError:
        return None
    place = tuple(stat[stat.rindex(b")") + 2 :].split()[23:26])
    return place if any(word not in (b"0", b"1") for word in place) else None


def has_open(pid: int, path: str) -> bool:
    """Whether a process has this file open under a descriptor above 2; true where that is unknown."""
    if not _HAS_PROC:
        return True
    try:
        wanted = os.stat(path)
        numbers = sorted(map(int, os.listdir(f"/proc/{pid}/fd")), reverse=True)
    except OSError:
        return False
    for number in numbers:  # ours is among the highest
        with contextlib.suppress(OSError):
            if number > 2 and os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), wanted):
                return True
    return False


def has_pending(pid: int, signum: int) -> bool:
    """Whether a signal that was sent to a process is pending, or its handler still runs in the main thread.
    False where that is unknown."""
    if not _HAS_PROC:
        return False
    bits = 0
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith((b"SigPnd:", b"ShdPnd:", b"SigBlk:")):
                    bits |= int(line.split()[1], 16)
    except OSError:
        return False
    return bool(bits >> (signum - 1) & 1)


def start_time(pid: int) -> float:
    """When a process started, in seconds since the epoch, as psutil computes it; 0.0 if it has ended."""
    if _HAS_PROC:
        return _start_from_proc(pid)
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return 0.0


def _start_from_proc(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(2048)
        with open("/proc/stat", "rb") as lines:
            booted = next(float(line.split()[1]) for line in lines if line.startswith(b"btime"))
    except (OSError, StopIteration):
        return 0.0
    # The second field is the program's name in parentheses, which may hold anything.
    return int(stat[stat.rindex(b")") + 2 :].split()[19]) / _TICKS + booted
