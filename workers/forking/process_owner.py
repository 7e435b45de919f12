"""Which worker an orphaned process comes from, and which processes are resource trackers. Linux only.

An orphan becomes a child of the zygote, and the kernel does not record its former parent. Its owner is found by
its process group (a worker leads one), by its environment, or by the group or session of a known orphan. A
process that has left all of these has no owner.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION
from workers.process.linux import children_of

TRACKER_GRACE = 1.0  # seconds to clean up, from the end of the processes that they serve

# Python's own resource tracker, those of loky and of joblib's copy of loky, and PyTorch's.
_TRACKER = re.compile(
    rb"[\0 ]-c[\0 ]from [\w.]*resource_tracker import main; ?main\(\d|^[^\0 ]*/torch_shm_manager\b"
)


class ProcessIds(NamedTuple):
    """Ids of parent, process group and session; valid until the process is reaped."""

    parent: int
    group: int
    session: int


def process_ids_of(pid: int) -> ProcessIds | None:
    """None if there is no such process."""
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The second field is the program's name in parentheses, which may hold anything.
    fields = stat[stat.rindex(b")") + 2 :].split(None, 4)
    return ProcessIds(int(fields[1]), int(fields[2]), int(fields[3]))


def incarnation_of(pid: int, tag: str) -> int | None:
    """The incarnation of the worker that a process of experiment `tag` comes from, by its environment; 0 for
    no worker, None if the environment does not tell."""
    variables = _read(f"/proc/{pid}/environ").split(b"\0")
    if f"{EXPERIMENT_TAG}={tag}".encode() not in variables:
        return None
    name = f"{INCARNATION}=".encode()
    for variable in variables:
        if variable.startswith(name) and variable[len(name) :].isdigit():
            return int(variable[len(name) :])
    return None


def owner_of(pid: int, tag: str, groups: Mapping[int, int], known: Mapping[int, int | None]) -> int | None:
    """The incarnation of the worker that an orphan comes from; 0 for no worker, None if unknown.

    groups: incarnations of the workers by pid. known: owners of other orphans by pid.
    """
    ids = process_ids_of(pid)
    if ids is None:
        return None
    if ids.group in groups:
        return groups[ids.group]
    owner = incarnation_of(pid, tag)
    if owner is None:
        owner = known.get(ids.group, known.get(ids.session))
    return owner


def is_tracker(pid: int) -> bool:
    """Whether a process is a resource tracker: it removes shared memory, semaphores or folders once the
    processes that made them have ended, and then exits. It must not be killed with them."""
    return is_command_of_tracker(_read(f"/proc/{pid}/cmdline"))


def is_command_of_tracker(command: bytes) -> bool:
    """`command`: words separated by zero bytes or spaces."""
    return _TRACKER.search(command) is not None


def with_descendants(pids: Iterable[int]) -> list[int]:
    """These processes and all below them. Raises OSError rather than leave one out."""
    found = dict.fromkeys(pids)
    queue = list(found)
    for pid in queue:
        new = [child for child in _children(pid) if child not in found]
        found.update(dict.fromkeys(new))
        queue += new
    return queue


def trackers_among(pids: Collection[int]) -> set[int]:
    return {pid for pid in pids if is_tracker(pid)}


def _children(pid: int) -> list[int]:
    """Of all its threads."""
    if not os.path.exists(f"/proc/{pid}/task/{pid}/children"):
        return children_of(pid)
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass  # it has just ended
    return found


def _read(path: str) -> bytes:
    """Empty if the process has ended or may not be read. Raises OSError if there is no
    room for another open file."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
