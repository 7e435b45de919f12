"""Where each job's record is, and many small reads of records as few large ones.

A place is an offset and a length, in the journal (a line) or in a checkpoint (an entry).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, count, pairwise, repeat
from operator import add, ne, sub
from typing import Any

from supervisor.core.state.columns import get, is_contiguous, put
from supervisor.storage.files.disk import Disk

GROUP = 512  # jobs whose records are read together, at most

_HEAVY = 4 << 20  # bytes of records after which a group is full

_GAP = 16 << 10  # bytes between two places that are cheaper to read than to skip

_RUN = 1 << 20  # bytes of one read of scattered places

_SPAN = 16 << 20  # bytes from the first to the last place of one read

_STRETCHES = 16  # that are read one by one


def grouped(jobs: Sequence[int], lengths: Sequence[int]) -> Iterator[Sequence[int]]:
    """Jobs in groups whose records are read together. `lengths`: bytes of each record, by job number."""
    for start in range(0, len(jobs), GROUP):
        group = jobs[start : start + GROUP]
        sizes = get(lengths, group) if group[-1] < len(lengths) else [_HEAVY] * len(group)
        if sum(sizes) <= _HEAVY:
            yield group
            continue
        begun = size = 0
        for index, more in enumerate(sizes):
            if size and size + more > _HEAVY:
                yield group[begun:index]
                begun, size = index, 0
            size += more
        yield group[begun:]


def read_records(disk: Disk, fd: int, offsets: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
    """The bytes at each place, in the order in which the places are given. The reference for `read_batch`
    and `read_joined`."""
    if (near := read_batch(disk, fd, offsets, lengths)) is not None:
        text, begins = near
        return [text[at : at + length] for at, length in zip(begins, lengths, strict=True)]
    return _read_scattered(disk, fd, offsets, lengths)


def read_batch(
    disk: Disk, fd: int, offsets: Sequence[int], lengths: Sequence[int]
) -> tuple[bytes, Iterable[int]] | None:
    """One read from the first to the last of these places: its bytes, and where each place begins in them.

    None if the places are far apart, which is rare.
    """
    if not offsets:
        return b"", []
    start, last = min(offsets), max(offsets)
    end = last + lengths[offsets.index(last)]  # no two places overlap
    if end - start > min(_SPAN, 8 * sum(lengths) + 16 * _GAP):
        return None
    return disk.pread(fd, end - start, start), map(sub, offsets, repeat(start))


def read_joined(disk: Disk, fd: int, offsets: Sequence[int], lengths: Sequence[int]) -> bytes | None:
    """The bytes of these places, joined in the order given; None if the places are many and far apart."""
    return read_stretches(disk, fd, offsets, lengths, stretches_of(offsets, lengths))


def stretches_of(offsets: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int]]:
    """From which index to which places follow each other in the file, in the order given.

    Of jobs that two workers had in turn there are few such stretches, mostly one.
    """
    if not offsets:
        return []
    cuts = compress(count(1), map(ne, map(add, offsets, lengths), offsets[1:]))
    return list(pairwise([0, *cuts, len(offsets)]))


def read_stretches(
    disk: Disk, fd: int, offsets: Sequence[int], lengths: Sequence[int], stretches: Sequence[tuple[int, int]]
) -> bytes | None:
    """`read_joined`. Few stretches are read one by one: the next batch of one worker may begin a megabyte before the
    end of the other's."""
    if len(stretches) > _STRETCHES:
        if (near := read_batch(disk, fd, offsets, lengths)) is None:
            return None
        text, begins = near[0], list(near[1])
        return b"".join([text[begins[i] : begins[j - 1] + lengths[j - 1]] for i, j in stretches])
    starts = [offsets[i] for i, _ in stretches]
    sizes = [offsets[j - 1] + lengths[j - 1] - offsets[i] for i, j in stretches]
    return b"".join(map(disk.pread, repeat(fd), sizes, starts))


def _read_scattered(disk: Disk, fd: int, offsets: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    found = [b""] * len(offsets)
    index = 0
    while index < len(order):
        start = offsets[order[index]]
        end = start + lengths[order[index]]
        stop = index + 1
        while stop < len(order):
            place = offsets[order[stop]]
            if place - end > _GAP or place + lengths[order[stop]] - start > _RUN:
                break
            end = max(end, place + lengths[order[stop]])
            stop += 1
        text = disk.pread(fd, end - start, start)
        for which in order[index:stop]:
            at = offsets[which] - start
            found[which] = text[at : at + lengths[which]]
        index = stop
    return found


NOWHERE, IN_JOURNAL, IN_CHECKPOINT = 0, 1, 2


class RecordLocations:
    """Where the record of each finished job is, by job number."""

    def __init__(self) -> None:
        self.origin = bytearray()
        self.recorded_state = bytearray()  # the job's state according to the record there
        self.offset = array("Q")
        self.length = array("I")
        self.lease = array("Q")

    def grow(self, jobs: int) -> None:
        missing = jobs - len(self.origin)
        if missing > 0:
            missing += 1024
            self.origin.extend(bytes(missing))
            self.recorded_state.extend(bytes(missing))
            for column in (self.offset, self.length, self.lease):
                column.frombytes(bytes(missing * column.itemsize))

    def note(self, job: int, origin: int, state: int, offset: int, length: int, lease: int) -> None:
        if job >= len(self.origin):
            self.grow(job + 1)
        self.origin[job] = origin
        self.recorded_state[job] = state
        self.offset[job] = offset
        self.length[job] = length
        self.lease[job] = lease

    def note_batch(
        self, jobs: Sequence[int], origin: int, states: bytes, offsets: Any, lengths: Any, leases: Any
    ) -> None:
        """`note` for many jobs."""
        self.grow((jobs[-1] if is_contiguous(jobs) else max(jobs, default=-1)) + 1)
        put(self.recorded_state, jobs, states)
        put(self.lease, jobs, array("Q", leases))
        self.move_batch(jobs, origin, offsets, lengths)

    def move_batch(self, jobs: Sequence[int], origin: int, offsets: Any, lengths: Any) -> None:
        """The records of these jobs, found in another file or at other offsets."""
        put(self.origin, jobs, bytes([origin]) * len(jobs))
        put(self.offset, jobs, array("Q", offsets))
        put(self.length, jobs, array("I", lengths))
