"""Whose a process is whose parents have died, and which processes are there to clean up. Linux only.

A process that loses its parent becomes a child of the zygote, and the kernel keeps no record of
where it came from. It is told by its process group (a worker leads one), by what stands in its
environment, or by the session of one that is known. Only a process that has left all three is
nobody's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION
from workers.process.linux import children_of

TRACKER_GRACE = 1.0  # seconds from the end of those for whom they clean up

# Python's own resource tracker, those of loky and of joblib's copy of loky, and PyTorch's.
_TRACKER = re.compile(
    rb"[\0 ]-c[\0 ]from [\w.]*resource_tracker import main; ?main\(\d|^[^\0 ]*/torch_shm_manager\b"
)


class Bonds(NamedTuple):
    """What ties a process to others, also after its death until it is reaped."""

    parent: int
    group: int
    session: int


def bonds_of(pid: int) -> Bonds | None:
    """None if there is no such process."""
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The second field is the program's name in parentheses, which may hold anything.
    fields = stat[stat.rindex(b")") + 2 :].split(None, 4)
    return Bonds(int(fields[1]), int(fields[2]), int(fields[3]))


def incarnation_of(pid: int, tag: str) -> int | None:
    """The worker process that a process of the experiment `tag` comes from, by its
    environment; 0 if from none, None if it does not say."""
    variables = _read(f"/proc/{pid}/environ").split(b"\0")
    if f"{EXPERIMENT_TAG}={tag}".encode() not in variables:
        return None
    name = f"{INCARNATION}=".encode()
    for variable in variables:
        if variable.startswith(name) and variable[len(name) :].isdigit():
            return int(variable[len(name) :])
    return None


def owner_of(pid: int, tag: str, groups: Mapping[int, int], known: Mapping[int, int | None]) -> int | None:
    """The worker process that an adopted process comes from; 0 if from none, None if it
    cannot be said. `groups`: worker processes by pid. `known`: owners of other adopted ones."""
    bonds = bonds_of(pid)
    if bonds is None:
        return None
    if bonds.group in groups:
        return groups[bonds.group]
    owner = incarnation_of(pid, tag)
    if owner is None:
        owner = known.get(bonds.group, known.get(bonds.session))
    return owner


def is_tracker(pid: int) -> bool:
    """Whether a process removes shared memory, semaphores or folders once all those have
    ended that made them: it ends by itself then, and must not be killed with them."""
    return is_command_of_tracker(_read(f"/proc/{pid}/cmdline"))


def is_command_of_tracker(command: bytes) -> bool:
    """By its words, separated by a zero byte or a space."""
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
    """Empty if the process is gone or not to be looked at. Raises OSError if there is no
    room for another open file."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
