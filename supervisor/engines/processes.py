"""Processes as the system shows them: who descends from whom, what they use, whose they are.

Every process of an experiment carries its mark (`LONGHAUL_EXPERIMENT`) in its environment.
psutil is imported on first use: a quiet run never needs it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from supervisor.engines.interpreter import MARK

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EXITING = 4  # PF_EXITING of the kernel's flags
_HAS_PROC = sys.platform.startswith("linux")


def has_pidfds() -> bool:
    """Whether a process can be held by a descriptor: older kernels, and the sandboxes of some
    containers, cannot do it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except AttributeError:
        return False
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)  # it could, if there were room
    return True


class ProcessFacts(msgspec.Struct):
    parent: int
    cpu_seconds: float
    rss_bytes: int


def process_table() -> dict[int, ProcessFacts]:
    """All processes of this machine that can be seen. Raises OSError rather than leave one
    out (too many open files): a worker that is not in here would lose its children as orphans."""
    return _table_from_proc() if _HAS_PROC else _table_from_psutil()


def _table_from_proc() -> dict[int, ProcessFacts]:
    # One read for each process gives all that is wanted; psutil needs several.
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (facts := facts_of(int(name))) is not None:
            table[int(name)] = facts
    return table


def facts_of(pid: int) -> ProcessFacts | None:
    """Of one process, where there is /proc; None if it has just ended, or is hidden from us."""
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


def trees(table: dict[int, ProcessFacts], roots: Iterable[int]) -> dict[int, list[int]]:
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
    """Whether a process stands still because of SIGSTOP (or a debugger)."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    except (psutil.Error, OSError):
        return False


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal; true where that cannot be known."""
    if not _HAS_PROC:
        return True
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next(line for line in file if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)


def start_time(pid: int) -> float:
    """When a process started, in seconds since the epoch, as psutil tells it; 0.0 if it is gone."""
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


def end_orphans(mark: str, needed: Collection[int]) -> bool:
    """End marked processes that do not descend from one that is needed; true if there were
    any (they may take a moment to be gone), if one may be about to go, or if it was not
    possible to look."""
    # Who descends from whom is looked at last: a job that lives may start programs meanwhile.
    victims = _marked(mark, ())
    if not victims:
        return _HAS_PROC and _somebody_is_dying()
    try:
        families = trees(process_table(), needed)
    except OSError:
        return True
    related = {pid for family in families.values() for pid in family}
    orphans = [process for process in victims if process.pid not in related]
    _kill(orphans)
    return bool(orphans)


def sweep(mark: str, except_pids: Collection[int] = (), *, seconds: float = 2.0) -> list[int]:
    """End all processes of this user that carry `mark`; the pids that were ended.

    Looks again, for at most `seconds`, until none is left. This process and its ancestors
    are never touched, whatever they carry: this may be a run inside a job of another run.
    """
    return _end(lambda: _marked(mark, except_pids), time.monotonic() + seconds)


def end_recorded(workers: Iterable[tuple[int, float]], *, seconds: float = 2.0) -> list[int]:
    """End workers of an earlier run, known by pid and start time (as `start_time` gives it),
    with their descendants; the pids that were ended.

    For what a mark does not find: a process can lose its environment, and start programs
    without one. A pid that belongs to another process by now is left alone.
    """
    spared = _untouchable()
    found = [_the_same(pid, begun) for pid, begun in workers if pid not in spared]
    roots = [process for process in found if process is not None]
    for root in roots:  # a worker adopts its orphans: once it stands still, all stays below it
        with contextlib.suppress(Exception):  # it is gone, or not ours to stop
            root.suspend()
    deadline = time.monotonic() + seconds
    below = _end(lambda: [process for root in roots for process in _descendants(root)], deadline)
    return [*_end(lambda: [root for root in roots if _lives(root)], deadline), *below]


def still_there(pids: Iterable[int]) -> list[int]:
    """Those that live although they were killed: frozen, or stuck in the kernel."""
    import psutil

    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            if _lives(psutil.Process(pid)):
                found.append(pid)
    return found


def _end(find: Callable[[], list[Any]], deadline: float) -> list[int]:
    """Kill what is found, until nothing is or it is too late; the pids."""
    ended: dict[int, None] = {}
    while victims := find():
        _kill(victims)
        ended.update(dict.fromkeys(process.pid for process in victims))
        if time.monotonic() >= deadline:
            break
        time.sleep(0.01)
    return list(ended)


def _the_same(pid: int, begun: float) -> Any:
    """The process that has this pid and started then; None if there is none that lives."""
    import psutil

    try:
        process = psutil.Process(pid)
        # Kept in hundredths of a second; the sum with the time of boot may round.
        same = abs(process.create_time() - begun) < 0.005
    except (psutil.Error, OSError):
        return None
    return process if same and _lives(process) else None


def _descendants(root: Any) -> list[Any]:
    try:
        return [process for process in root.children(recursive=True) if _lives(process)]
    except Exception:  # it is gone, or cannot be looked at
        return []


def _lives(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):
        return False


def _somebody_is_dying() -> bool:
    """Whether a process of this user has lost its memory, and with it its mark, but is not
    dead yet: for less than a millisecond as a rule."""
    user = os.geteuid()
    try:
        names = os.listdir("/proc")
    except OSError:  # too many open files
        return True
    for name in filter(str.isdigit, names):
        try:
            if os.stat(f"/proc/{name}").st_uid != user:
                continue
            with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                stat = file.read(2048)
        except OSError:
            continue
        fields = stat[stat.rindex(b")") + 2 :].split()
        if int(fields[6]) & _EXITING and fields[0] not in (b"Z", b"X"):
            return True
    return False


def _kill(processes: Iterable[Any]) -> None:
    for process in processes:
        with contextlib.suppress(Exception):  # it is gone, or not ours to kill
            process.kill()


def _untouchable() -> set[int]:
    """This process and its ancestors."""
    import psutil

    try:
        return {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    except (psutil.Error, OSError):
        return {os.getpid(), os.getppid()}


def _marked(mark: str, spared: Collection[int]) -> list[Any]:
    """Live processes that carry `mark`, but for ourselves, our ancestors, and the spared."""
    pids = [pid for pid in _candidates(mark) if pid not in spared]
    if not pids:  # as in every run that ends in order
        return []
    import psutil

    found = []
    untouchable = _untouchable()
    for pid in pids:
        if pid in untouchable:
            continue
        try:
            process = psutil.Process(pid)
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _candidates(mark: str) -> list[int]:
    """Pids that may carry `mark`: a superset."""
    if not _HAS_PROC:
        import psutil

        try:
            return psutil.pids()
        except OSError:
            return []
    text = f"{MARK}={mark}".encode()
    found = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb", buffering=0) as file:
                if text in file.readall():
                    found.append(int(name))
        except OSError:
            continue
    return found
