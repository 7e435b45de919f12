"""Records read back by place: many small reads made into few large ones.

A place is an offset and a length in the journal (a line) or in a checkpoint (an entry).
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.records.disk import Disk

GROUP = 256  # jobs whose records are read together
_GAP = 16 << 10  # bytes that are rather read than skipped
_RUN = 1 << 20


def read_places(disk: Disk, fd: int, offsets: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
    """The bytes at each place, in the order in which the places are given."""
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
