"""What the kernel tells of the memory of single processes (/proc): the cheap file and the dear one.

Counted is what the kernel cannot drop: memory of a process's own (anonymous), shared memory and
tmpfs files as far as they are mapped, and what was swapped out. Pages of other files are not
counted, written ones neither: the kernel writes them back and drops them when it needs room.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

HAS_PROC = sys.platform.startswith("linux")
HAS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")

_HELD = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_FIRST, _LAST = b"VmPeak:", b"VmSwap:"


class SharedMemory(NamedTuple):
    """Bytes of one process, or of several together."""

    fair: int  # a page that three processes map counts a third
    private: int  # of that, pages that nobody else maps

    def __add__(self, other: object) -> SharedMemory:
        assert isinstance(other, SharedMemory)
        return SharedMemory(self.fair + other.fair, self.private + other.private)


class ProcessFamily(NamedTuple):
    """A worker's processes, zombies and twins left out, and the most that they can hold."""

    pids: Sequence[int]
    most: int  # bytes: memory that several of them share is counted in each


def family_of(pid: int) -> list[int]:
    """A process and all below it, by the lists of children that the kernel keeps."""
    return list(_with_parents([pid]))


def family(roots: Sequence[int]) -> ProcessFamily:
    """These processes and all below them, each once.

    A child between vfork (as `subprocess` does it) and exec has its parent's memory, not a copy:
    the kernel then tells the same of both, byte by byte, and it is left out.
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
            most += _held(memory)
    return ProcessFamily(pids, most)


def _with_parents(roots: Sequence[int]) -> dict[int, int]:
    """Pids and who is above them, parents first."""
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


def held(pid: int) -> int:
    """Bytes that a process maps, those that it shares with others included."""
    return _held(read(f"/proc/{pid}/status"))


def _held(status: bytes) -> int:
    total = 0
    for line in status.splitlines():
        if line.startswith(_HELD):
            total += int(line.split()[1]) * 1024
    return total


def read_shared(pid: int) -> SharedMemory:
    """By a walk through the process's page tables: 4 to 8 ms for a gigabyte."""
    found: dict[bytes, int] = {}
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines()[1:]:
        name, _, amount = line.partition(b":")
        if amount.endswith(b"kB"):
            found[name] = int(amount.split()[0]) * 1024
    if b"Pss" not in found:  # it has ended, or belongs to another user, or the kernel is too old
        most = held(pid)
        return SharedMemory(most, most)
    mapped = found[b"Pss"]
    if b"Pss_Anon" in found:  # from Linux 5.4 on
        mapped = found[b"Pss_Anon"] + found.get(b"Pss_Shmem", 0)
    # Written pages of files are among the private ones too, but never more than all that counts.
    private = min(mapped, found.get(b"Private_Dirty", 0))
    return SharedMemory(mapped + found.get(b"SwapPss", 0), private + found.get(b"SwapPss", 0))


def read(path: str) -> bytes:
    """A small file of the kernel's; empty if it cannot be read."""
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
