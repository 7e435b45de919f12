"""What each worker slot did, in bins of time: busy seconds, attempts ended, attempts failed. Pure.

Bins are one second wide, and twice as wide each time that there are more than two million cells: what a night of
many workers takes stays within some ten megabytes. Only stretches of time in which something happened take memory,
so that weeks between two runs cost nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from math import inf
from operator import add
from typing import Any, Final, NamedTuple

MOST_CELLS = 2_000_000

_BITS = 8
_CHUNK = 1 << _BITS  # bins that are allocated together


class Bin(NamedTuple):
    """start: seconds since the epoch. busy: seconds."""

    slot: int
    start: float
    busy: float
    ended: int
    failed: int


# Of most pieces nothing has failed: they share this column, which nobody writes to. Seven digits of the busy seconds of
# one bin are enough.
_NO_FAILURE = array("I", bytes(array("I").itemsize * _CHUNK))
_BUSY: Final = "f"


class _Chunk:
    """The three columns of bins that follow each other."""

    __slots__ = ("busy", "ended", "failed")

    def __init__(self) -> None:
        self.busy = array(_BUSY, bytes(array(_BUSY).itemsize * _CHUNK))
        self.ended = array("I", bytes(array("I").itemsize * _CHUNK))
        self.failed = _NO_FAILURE

    def columns(self) -> tuple[array[Any], ...]:
        """To be read."""
        return self.busy, self.ended, self.failed

    def failures(self) -> array[int]:
        """To be written to."""
        if self.failed is _NO_FAILURE:
            self.failed = _NO_FAILURE[:]
        return self.failed

    def _pairs(self, other: _Chunk) -> Iterator[tuple[array[Any], array[Any]]]:
        yield self.busy, other.busy
        yield self.ended, other.ended
        if other.failed is not _NO_FAILURE:
            yield self.failures(), other.failed

    def add(self, other: _Chunk) -> None:
        for mine, more in self._pairs(other):
            mine[:] = array(mine.typecode, map(add, mine, more))

    def add_halved(self, other: _Chunk, half: int) -> None:
        """The sums of pairs of the other's bins, into the first or the second half of this one."""
        start = half * _CHUNK // 2
        for mine, more in self._pairs(other):
            mine[start : start + _CHUNK // 2] = array(mine.typecode, map(add, more[0::2], more[1::2]))

    def filled(self) -> int:
        return _CHUNK - min(self.busy.count(0.0), self.ended.count(0))


_UNUSED = _Chunk()

_Chunks = dict[int, dict[int, _Chunk]]  # by slot, by number


class WorkerBins:
    """`width`: of the bins, in seconds."""

    def __init__(self, most_cells: int = MOST_CELLS) -> None:
        self.width = 1.0
        self._most = most_cells
        self._chunks: _Chunks = {}
        self._cells = 0

    def __len__(self) -> int:
        """Cells that take memory."""
        return self._cells

    @property
    def slots(self) -> list[int]:
        return sorted(self._chunks)

    # ------------------------------------------------------------------------ filling

    def add_batch(
        self, slot: int, ends: Sequence[float], seconds: Sequence[float], bad: Sequence[int]
    ) -> None:
        """Attempts of one slot: when they ended, in seconds since the epoch, how long they took, and 1 for those that
        ended badly."""
        width, chunks, current = self.width, self._chunks.setdefault(slot, {}), -1
        busy, ended = _UNUSED.busy, _UNUSED.ended
        chunk = _UNUSED
        for end, took, failure in zip(ends, seconds, bad, strict=True):
            number = int(end // width)
            if number >> _BITS != current:
                self._reserve(slot, end, end)
                if self.width != width:
                    width, chunks = self.width, self._chunks[slot]
                    number = int(end // width)
                current = number >> _BITS
                chunk = chunks[current]
                busy, ended = chunk.busy, chunk.ended
            index = number & (_CHUNK - 1)
            ended[index] += 1
            if failure:
                chunk.failures()[index] += 1
            since = end - number * width
            first = number if took <= since else int((end - took) // width)
            if first == number:
                busy[index] += took
                continue
            if first >> _BITS == current:  # as `busy` does it, for the usual case
                busy[index] += since
                busy[first & (_CHUNK - 1)] += (first + 1) * width - (end - took)
                if (between := number - first - 1) > 0:
                    busy[index - between : index] = array(_BUSY, [width]) * between
                continue
            self.busy(slot, end - took, end)
            if self.width != width:
                width, chunks, current = self.width, self._chunks[slot], -1

    def busy(self, slot: int, start: float, end: float) -> None:
        """A worker had work from `start` to `end`, seconds since the epoch, and nothing else meanwhile."""
        end = max(start, end)
        self._reserve(slot, start, end)
        width, chunks = self.width, self._chunks[slot]
        first, last = int(start // width), int(end // width)
        if first == last:
            chunks[first >> _BITS].busy[first & (_CHUNK - 1)] += end - start
            return
        chunks[first >> _BITS].busy[first & (_CHUNK - 1)] += (first + 1) * width - start
        chunks[last >> _BITS].busy[last & (_CHUNK - 1)] += end - last * width
        number = first + 1
        while number < last:  # what lies between is busy throughout
            index = number & (_CHUNK - 1)
            more = min(_CHUNK - index, last - number)
            chunks[number >> _BITS].busy[index : index + more] = array(_BUSY, [width]) * more
            number += more

    def _reserve(self, slot: int, start: float, end: float) -> None:
        """Have cells for this time, however wide they must be for it."""
        while True:
            chunks, width = self._chunks.setdefault(slot, {}), self.width
            first, last = int(start // width) >> _BITS, int(end // width) >> _BITS
            if first in chunks and (first == last or (last == first + 1 and last in chunks)):
                return
            room = (self._most - self._cells) // _CHUNK
            # Each slot needs a piece or two, however wide the bins are: then more of them is no reason to widen.
            least = self._cells <= 2 * _CHUNK * len(self._chunks)
            if last - first - len(chunks) < room or least:
                missing = [number for number in range(first, last + 1) if number not in chunks]
                if len(missing) <= room or (least and len(missing) <= 2):
                    chunks.update((number, _Chunk()) for number in missing)
                    self._cells += _CHUNK * len(missing)
                    return
            self._become(self.widened())

    def _become(self, other: WorkerBins) -> None:
        self.width, self._chunks, self._cells = other.width, other._chunks, other._cells

    # ------------------------------------------------------------------------ reading

    def widened(self) -> WorkerBins:
        """The same in bins that are twice as wide."""
        found = WorkerBins(self._most)
        found.width = 2 * self.width
        for slot, chunks in self._chunks.items():
            wide: dict[int, _Chunk] = {}
            for number, chunk in chunks.items():
                into = wide.get(number >> 1)
                if into is None:
                    into = wide[number >> 1] = _Chunk()
                into.add_halved(chunk, number & 1)
            found._chunks[slot] = wide
            found._cells += _CHUNK * len(wide)
        return found

    def at_most(self, cells: int) -> WorkerBins:
        """The same in bins so wide that so many of them are filled, at most."""
        found = self
        while found.filled() > cells:
            found = found.widened()
        return found

    def filled(self) -> int:
        """About how many bins there are in which something happened."""
        return sum(chunk.filled() for chunks in self._chunks.values() for chunk in chunks.values())

    def together(self) -> WorkerBins:
        """All slots as one, number 0."""
        found = WorkerBins(self._most)
        found.width = self.width
        sums = found._chunks[0] = {}
        for chunks in self._chunks.values():
            for number, chunk in chunks.items():
                into = sums.get(number)
                if into is None:
                    into = sums[number] = _Chunk()
                into.add(chunk)
        found._cells = _CHUNK * len(sums)
        return found

    def __iter__(self) -> Iterator[Bin]:
        """The bins in which something happened, by slot and time."""
        return self.between(-inf, inf)

    def between(self, start: float, end: float) -> Iterator[Bin]:
        """Those of them that reach into a stretch of time; what lies outside costs nothing. Whole pieces of
        `_CHUNK` bins are left out, so that some bins before and after it may come along."""
        for slot in self.slots:
            for number, chunk in sorted(self._chunks[slot].items()):
                first = (number << _BITS) * self.width
                if first > end or first + _CHUNK * self.width < start:
                    continue
                rows = zip(*chunk.columns(), strict=True)
                for at, (busy, ended, failed) in enumerate(rows, number << _BITS):
                    if ended or busy:
                        yield Bin(slot, at * self.width, busy, ended, failed)
