"""What each worker slot did, in bins of time: busy seconds, attempts ended, attempts failed. Pure.

Bins are one second wide, and twice as wide each time that there are more than two million cells: what a night of
many workers takes stays within some ten megabytes. Only stretches of time in which something happened take memory,
so that weeks between two runs cost nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MOST_CELLS = 2_000_000

_CHUNK = 256  # bins that are allocated together


class Bin(NamedTuple):
    """start: seconds since the epoch. busy: seconds."""

    slot: int
    start: float
    busy: float
    ended: int
    failed: int


class _Chunk:
    __slots__ = ("busy", "ended", "failed")

    def __init__(self) -> None:
        self.busy = array("d", bytes(8 * _CHUNK))
        self.ended = array("I", bytes(array("I").itemsize * _CHUNK))
        self.failed = array("I", bytes(array("I").itemsize * _CHUNK))


class WorkerBins:
    """`width`: of the bins, in seconds."""

    def __init__(self, most_cells: int = MOST_CELLS) -> None:
        self.width = 1.0
        self._most = most_cells
        self._chunks: dict[int, dict[int, _Chunk]] = {}  # by slot, by number
        self._cells = 0

    def __len__(self) -> int:
        """Cells that take memory."""
        return self._cells

    @property
    def slots(self) -> list[int]:
        return sorted(self._chunks)

    def ended(self, slot: int, at: float, number: int, failed: int) -> None:
        """So many attempts ended then, so many of them badly."""
        self._reserve(slot, at, at)
        chunk, index = self._cell(slot, int(at // self.width))
        chunk.ended[index] += number
        chunk.failed[index] += failed

    def busy(self, slot: int, start: float, end: float) -> None:
        """A worker had work from `start` to `end`, seconds since the epoch, and nothing else meanwhile."""
        end = max(start, end)
        self._reserve(slot, start, end)
        width = self.width
        first, last = int(start // width), int(end // width)
        chunk, index = self._cell(slot, first)
        chunk.busy[index] += min(end, (first + 1) * width) - start
        if first == last:
            return
        chunk, index = self._cell(slot, last)
        chunk.busy[index] += end - last * width
        number = first + 1
        while number < last:  # what lies between is busy throughout
            chunk, index = self._cell(slot, number)
            more = min(_CHUNK - index, last - number)
            chunk.busy[index : index + more] = array("d", [width]) * more
            number += more

    def _reserve(self, slot: int, start: float, end: float) -> None:
        """Have cells for this time, however wide they must be for it."""
        while True:
            numbers = range(int(start // self.width) // _CHUNK, int(end // self.width) // _CHUNK + 1)
            chunks = self._chunks.setdefault(slot, {})
            room = (self._most - self._cells) // _CHUNK
            if len(numbers) == 1 and numbers[0] in chunks:
                return
            if len(numbers) - len(chunks) <= room:
                missing = [number for number in numbers if number not in chunks]
                if len(missing) <= room:
                    chunks.update((number, _Chunk()) for number in missing)
                    self._cells += _CHUNK * len(missing)
                    return
            self._double()

    def _cell(self, slot: int, number: int) -> tuple[_Chunk, int]:
        return self._chunks[slot][number // _CHUNK], number % _CHUNK

    def _double(self) -> None:
        kept = list(self)
        self.width *= 2
        self._chunks, self._cells = {slot: {} for slot in self._chunks}, 0
        for slot, start, busy, ended, failed in kept:
            number = int(start // self.width)
            chunks = self._chunks[slot]
            if number // _CHUNK not in chunks:
                chunks[number // _CHUNK] = _Chunk()
                self._cells += _CHUNK
            chunk, index = self._cell(slot, number)
            chunk.busy[index] += busy
            chunk.ended[index] += ended
            chunk.failed[index] += failed

    def __iter__(self) -> Iterator[Bin]:
        """The bins in which something happened, by slot and time."""
        for slot in self.slots:
            for number, chunk in sorted(self._chunks[slot].items()):
                for index in range(_CHUNK):
                    if chunk.ended[index] or chunk.busy[index]:
                        start = (number * _CHUNK + index) * self.width
                        yield Bin(slot, start, chunk.busy[index], chunk.ended[index], chunk.failed[index])


def merged(bins: Iterable[Bin], width: float) -> list[Bin]:
    """The same in wider bins: `width` is a multiple of theirs."""
    found: dict[tuple[int, int], list[float]] = {}
    for slot, start, busy, ended, failed in bins:
        cell = found.setdefault((slot, int(start // width)), [0.0, 0, 0])
        cell[0] += busy
        cell[1] += ended
        cell[2] += failed
    return [
        Bin(slot, number * width, busy, int(ended), int(failed))
        for (slot, number), (busy, ended, failed) in sorted(found.items())
    ]
