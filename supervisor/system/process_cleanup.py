"""Kills processes that a run or a worker has left behind, found by tag, group, or pid and start time.

Every process of an experiment has the experiment's tag (`LONGHAUL_EXPERIMENT`) in its environment. Resource
trackers (Python's, loky's) are not killed with the others: they remove shared memory, semaphores and folders
once the processes that made these are dead, and then exit.

psutil is imported on first use: a quiet run never needs it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from supervisor.system.processes import descendants_by_root, process_table
from workers.forking.process_owner import TRACKER_GRACE, is_command_of_tracker, is_tracker, trackers_among
from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION

_EXITING = 4  # PF_EXITING of the kernel's flags
_HAS_PROC = sys.platform.startswith("linux")


def end_orphans(tag: str, needed: Collection[int], living: Collection[int] = ()) -> bool:
    """Kill processes with this tag that neither descend from a `needed` one nor come from a living worker.

    needed: pids. living: incarnations of living workers.
    True if there were any (they may need a moment to end), if one may be ending right now, or if processes
    could not be listed. Resource trackers are not killed.
    """
    # The process table is read last: a job that runs may start programs meanwhile.
    victims = [process for process in _tagged(tag, ()) if not _is_tracker(process)]
    if not victims:
        return _HAS_PROC and _any_exiting()
    try:
        families = descendants_by_root(process_table(), needed)
    except OSError:
        return True
    related = {pid for family in families.values() for pid in family}
    orphans = [p for p in victims if p.pid not in related and _incarnation(p) not in living]
    _kill(orphans)
    return bool(orphans)


def end_group(group: int) -> None:
    """Kill a process group, except its resource trackers: they exit once they have cleaned up."""
    members = [pid for pid in _all_pids() if _group_of(pid) == group]
    trackers = trackers_among(members)
    with contextlib.suppress(OSError):
        if not trackers:  # the group at once, so that it cannot start more meanwhile
            os.killpg(group, signal.SIGKILL)
    for pid in members:
        if pid not in trackers:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def end_processes(processes: Iterable[Any]) -> None:
    """Kill processes that were listed before, except resource trackers."""
    _kill(process for process in processes if not _is_tracker(process))


def sweep(
    tag: str, except_pids: Collection[int] = (), *, seconds: float = 2.0, spared: str = ""
) -> list[int]:
    """Kill all processes of this user with this tag, those of nodes included; returns their pids. `spared`: how tags
    begin whose processes stay.

    Resource trackers get time to clean up. Repeats until none is left, for at most `seconds`. This process and
    its ancestors are never killed, whatever their tag: this may be a run inside a job of another run.
    """
    return _end(lambda: _tagged(tag, except_pids, spared), time.monotonic() + seconds)


def end_recorded(workers: Iterable[tuple[int, float]], *, seconds: float = 2.0) -> list[int]:
    """Kill workers of an earlier run, by pid and start time (as of `start_time`), with their descendants;
    returns the pids that were killed.

    For processes that have lost the tag: a process can clear its environment, and start programs without one.
    A pid that is another process's by now is skipped.
    """
    spared = _self_and_ancestors()
    found = [_find_process(pid, begun) for pid, begun in workers if pid not in spared]
    roots = [process for process in found if process is not None]
    for root in roots:  # a stopped process starts no more
        with contextlib.suppress(Exception):  # it is gone, or not ours to stop
            root.suspend()
    deadline = time.monotonic() + seconds
    trackers = [process for root in roots for process in _descendants(root) if _is_tracker(process)]
    spared = {process.pid for process in trackers}
    below = _end(lambda: [p for root in roots for p in _descendants(root) if p.pid not in spared], deadline)
    ended = _end(lambda: [root for root in roots if _is_alive(root)], deadline)
    return [*ended, *below, *_end(lambda: [p for p in trackers if _is_alive(p)], deadline)]


def survivors(pids: Iterable[int]) -> list[int]:
    """The pids that still run although they were killed: frozen, or blocked in the kernel."""
    import psutil

    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            if _is_alive(psutil.Process(pid)):
                found.append(pid)
    return found


def _end(find: Callable[[], list[Any]], deadline: float) -> list[int]:
    """Kill the processes that `find` returns, until it returns none or the deadline is over; returns their pids.

    Resource trackers get TRACKER_GRACE to exit by themselves.
    """
    ended: dict[int, None] = {}
    trackers_until = min(deadline, time.monotonic() + TRACKER_GRACE)
    while found := find():
        trackers_may_run = time.monotonic() < trackers_until
        victims = [process for process in found if not (trackers_may_run and _is_tracker(process))]
        _kill(victims)
        ended.update(dict.fromkeys(process.pid for process in victims))
        if time.monotonic() >= deadline:
            break
        time.sleep(0.01)
    return list(ended)


def _is_tracker(process: Any) -> bool:
    if _HAS_PROC:
        try:
            return is_tracker(process.pid)
        except OSError:  # too many open files
            return False
    try:
        return is_command_of_tracker("\0".join(process.cmdline()).encode(errors="replace"))
    except Exception:  # it has ended, or cannot be read
        return False


def _incarnation(process: Any) -> int:
    """The incarnation of its worker, by its environment; 0 if that does not tell."""
    try:
        return int(process.environ().get(INCARNATION, ""))
    except Exception:  # it does not tell, has ended, or cannot be read
        return 0


def _all_pids() -> list[int]:
    try:
        if _HAS_PROC:
            return [int(name) for name in os.listdir("/proc") if name.isdigit()]
        import psutil

        return psutil.pids()
    except OSError:
        return []


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _find_process(pid: int, begun: float) -> Any:
    """The living process with this pid and start time, or None."""
    import psutil

    try:
        process = psutil.Process(pid)
        # Kept in hundredths of a second; the sum with the time of boot may round.
        same = abs(process.create_time() - begun) < 0.005
    except (psutil.Error, OSError):
        return None
    return process if same and _is_alive(process) else None


def _descendants(root: Any) -> list[Any]:
    try:
        return [process for process in root.children(recursive=True) if _is_alive(process)]
    except Exception:  # it has ended, or cannot be read
        return []


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):
        return False


def _any_exiting() -> bool:
    """Whether a process of this user is exiting: for less than a millisecond its environment, with the tag,
    cannot be read, but it is not dead yet."""
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


def _self_and_ancestors() -> set[int]:
    """This process and its ancestors."""
    import psutil

    try:
        return {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    except (psutil.Error, OSError):
        return {os.getpid(), os.getppid()}


def _tagged(tag: str, except_pids: Collection[int], spared: str = "") -> list[Any]:
    """Living processes with this tag, except this one, its ancestors, those pids, and those whose tag begins with
    `spared`."""
    pids = [pid for pid in _candidates(tag) if pid not in except_pids]
    if not pids:  # as in every run that ends normally
        return []
    import psutil

    found = []
    untouchable = _self_and_ancestors()
    for pid in pids:
        if pid in untouchable:
            continue
        try:
            process = psutil.Process(pid)
            if _has_tag(process, tag, spared) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _has_tag(process: Any, tag: str, spared: str) -> bool:
    """Whether it carries this tag, or that of one of the experiment's nodes (`<tag>/...`), and none that is spared."""
    found = process.environ().get(EXPERIMENT_TAG, "")
    ours = found == tag or found.startswith(tag + "/")
    return bool(ours and not (spared and found.startswith(spared)))


def _candidates(tag: str) -> list[int]:
    """Pids that may have this tag: a superset."""
    if not _HAS_PROC:
        import psutil

        try:
            return psutil.pids()
        except OSError:
            return []
    text = f"{EXPERIMENT_TAG}={tag}".encode()
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
