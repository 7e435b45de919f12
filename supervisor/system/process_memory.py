"""The memory of single processes in /proc: status, which is cheap, and smaps_rollup, which is expensive.

Memory counts if the kernel cannot drop it: anonymous memory, mapped shared memory and tmpfs files, and swapped
pages. Pages of other files do not count, written or not: the kernel writes them back and drops them when it
needs memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

HAS_PROC = sys.platform.startswith("linux")
HAS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")

_COUNTED = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_FIRST, _LAST = b"VmPeak:", b"VmSwap:"


class SharedMemory(NamedTuple):
    """Bytes of one process, or of several together."""

    fair: int  # a page that three processes map counts as a third
    private: int  # part of it: pages that no other process maps

    def __add__(self, other: object) -> SharedMemory:
        assert isinstance(other, SharedMemory)
        return SharedMemory(self.fair + other.fair, self.private + other.private)


class ProcessFamily(NamedTuple):
    """The processes of a worker, without zombies and vfork children, and an upper bound of their memory."""

    pids: Sequence[int]
    most: int  # bytes; shared memory is counted in each process


def family_of(pid: int) -> list[int]:
    """A process and its descendants, by the kernel's lists of children."""
    return list(_with_parents([pid]))


def family(roots: Sequence[int]) -> ProcessFamily:
    """These processes and their descendants, each once.

    Between vfork (as `subprocess` uses it) and exec, a child has its parent's memory, not a copy. The kernel then
    reports the same text for both, and the child is left out.
    """
    told: dict[int, bytes] = {}
    pids, most = [], 0
    for pid, parent in _with_parents(roots).items():
        status = read(f"/proc/{pid}/status")
        start, end = status.find(_FIRST), status.find(_LAST)
        if start < 0 or end < 0:  # it has ended, or is about to
            continue
        told[pid] = memory = status[start : status.find(b"\n", end) + 1]
        if memory != told.get(parent):
            pids.append(pid)
            most += _full(memory)
    return ProcessFamily(pids, most)


def _with_parents(roots: Sequence[int]) -> dict[int, int]:
    """Pids with their parents' pids, parents first."""
    parents = dict.fromkeys(roots, 0)
    waiting = list(roots)
    for member in waiting:
        try:
            tasks = os.listdir(f"/proc/{member}/task")
        except OSError:  # it has just ended
            continue
        for task in tasks:
            for child in map(int, read(f"/proc/{member}/task/{task}/children").split()):
                if child not in parents:
                    parents[child] = member
                    waiting.append(child)
    return parents


def full_memory(pid: int) -> int:
    """Bytes of a process, with all of what it shares."""
    return _full(read(f"/proc/{pid}/status"))


def _full(status: bytes) -> int:
    total = 0
    for line in status.splitlines():
        if line.startswith(_COUNTED):
            total += int(line.split()[1]) * 1024
    return total


def read_shared(pid: int) -> SharedMemory:
    """Read by a walk through the process's page tables: takes 4 to 8 ms per gigabyte."""
    found: dict[bytes, int] = {}
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines()[1:]:
        name, _, amount = line.partition(b":")
        if amount.endswith(b"kB"):
            found[name] = int(amount.split()[0]) * 1024
    if b"Pss" not in found:  # it has ended, or belongs to another user, or the kernel is too old
        most = full_memory(pid)
        return SharedMemory(most, most)
    mapped = found[b"Pss"]
    if b"Pss_Anon" in found:  # from Linux 5.4 on
        mapped = found[b"Pss_Anon"] + found.get(b"Pss_Shmem", 0)
    # Private_Dirty includes written pages of files, hence the minimum.
    private = min(mapped, found.get(b"Private_Dirty", 0))
    return SharedMemory(mapped + found.get(b"SwapPss", 0), private + found.get(b"SwapPss", 0))


def read(path: str) -> bytes:
    """The content of a small file in /proc; empty if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
