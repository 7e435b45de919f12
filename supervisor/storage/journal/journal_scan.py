"""One pass over a journal file: its lines, and what is damaged, missing or torn.

How a line is made is known to `journal_format`, what it means to `recovery`.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from typing import NamedTuple

from supervisor.core.terms.records import Opened
from supervisor.storage.files.atomic_files import groups_of, offsets_of
from supervisor.storage.files.disk import Disk
from supervisor.storage.journal.journal_format import (
    candidates,
    decode_record,
    numbered_from,
    recover_seed,
    seed_of,
    verify,
    verify_batch,
)

HEAD_BYTES = 4 << 20  # that are searched for the seed
_VOTES, _VOTING_LENGTH = 50, 4096  # lines whose seeds are compared; a longer line takes too much time

FRAGMENT = 4096  # bytes of a damaged stretch that are kept, to find the jobs in it


class Damage(NamedTuple):
    """A range of bytes that does not verify. `fragment` holds its first bytes."""

    offset: int
    length: int
    fragment: bytes


class ScanStart(NamedTuple):
    """The end of the lines that a pass may skip: number of the last one, offset of its end, and CRC-32 of all
    bytes before."""

    n: int
    position: int
    checksum: int


class KnownRun(NamedTuple):
    """Lines that are known from an index (`checkpoint.journal_stretches`), the first of number `n`: jobs from number
    `job` on, completed at their first attempt, under leases from `lease` on; `at`: of the last one."""

    n: int
    job: int
    jobs: int
    lease: int
    at: str
    seconds: array[float]
    lengths: array[int]


class Piece(NamedTuple):
    """The bytes from `start` to `end` of a journal, and what is known of them."""

    start: int
    end: int
    run: KnownRun | None


class _Summing(Disk):
    """Computes the checksum of what is read."""

    def __init__(self, disk: Disk, checksum: int) -> None:
        self.checksum = checksum
        self.disk = disk

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        data = self.disk.pread(fd, size, offset)
        self.checksum = zlib.crc32(data, self.checksum)
        return data


class Scan:
    """One pass over a journal file: iterate over (n, offset, line), then read the findings.

    Lines that do not verify are skipped. Good records inside a damaged stretch are found too, as when a
    newline was overwritten. `begin` (`ScanStart`) skips lines that are known.

    After the pass
    --------------
    end: where the last good line ends; what follows is a torn tail.
    damage: damaged stretches with a good line after them. missing: (from, to) record numbers.
    unterminated: the last good line has no newline.
    rebuilt: a good record was found inside a damaged stretch; the file must be rewritten.
    checksum: CRC-32 of all bytes of the file.
    """

    def __init__(
        self, disk: Disk, fd: int, seed: int, *, begin: ScanStart | None = None, end: int | None = None
    ) -> None:
        self._fd = fd
        self._seed = seed
        self._open_damage: list[Damage] = []
        self.size = disk.size(fd) if end is None else end
        self._begin = begin.position if begin is not None else 0
        self._disk = _Summing(disk, begin.checksum if begin is not None else 0)
        self.end = self._begin
        self.first_n = self.last_n = begin.n if begin is not None else 0
        self.unterminated = False
        self.rebuilt = False
        self.damage: list[Damage] = []
        self.missing: list[tuple[int, int]] = []

    @property
    def intact(self) -> bool:
        """Whether nothing is damaged or missing; a torn tail is allowed."""
        return not (self.damage or self.missing or self.rebuilt)

    @property
    def torn(self) -> int:
        """Bytes after the last good line."""
        return self.size - self.end

    @property
    def checksum(self) -> int:
        return self._disk.checksum

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        for n, offset, lines in self.groups():
            yield from zip(count(n), offsets_of(offset, lines), lines)

    def groups(self) -> Iterator[tuple[int, int, list[bytes]]]:
        """(number of the first, offset of the first, lines): good lines that follow each other."""
        yield from self._groups(self._disk, self._begin, self.size)

    def groups_and_runs(
        self, pieces: Iterable[Piece], end: int, checksum: int
    ) -> Iterator[tuple[int, int, list[bytes] | KnownRun]]:
        """`groups`, but runs that are known are not read. `pieces`: up to the offset `end`, where the CRC-32 of all
        bytes is `checksum`."""
        disk = self._disk.disk
        for piece in pieces:
            run = piece.run
            if run is not None and self._goes_on_with(run):
                self.last_n += run.jobs
                self.end = piece.end
                yield run.n, piece.start, run
            else:
                yield from self._groups(disk, piece.start, piece.end)
        self._disk.checksum = checksum
        yield from self._groups(self._disk, end, self.size)

    def _goes_on_with(self, run: KnownRun) -> bool:
        return run.n == self.last_n + 1 and not self._open_damage

    def _groups(self, disk: Disk, start: int, end: int) -> Iterator[tuple[int, int, list[bytes]]]:
        for offset, lines, whole in groups_of(disk, self._fd, start, end):
            if not self.last_n and whole:  # the first line is verified alone, the others follow it
                yield from self._check_line(offset, lines[0], whole)
                offset, lines = offset + len(lines[0]) + 1, lines[1:]
            if whole and self._follow(lines):
                first, self.last_n = self.last_n + 1, self.last_n + len(lines)
                self.end = offset + sum(map(len, lines)) + len(lines)
                yield first, offset, lines
            else:
                for place, line in zip(offsets_of(offset, lines), lines, strict=False):
                    yield from self._check_line(place, line, whole)

    def _follow(self, lines: list[bytes]) -> bool:
        """Whether all of these lines are good and continue the numbers, which is nearly always so."""
        if self._open_damage or not self.last_n:
            return False
        return numbered_from(lines, self.last_n + 1) and verify_batch(lines, self._seed)

    def _check_line(self, offset: int, line: bytes, whole: bool) -> Iterator[tuple[int, int, list[bytes]]]:
        n = verify(line, self._seed)
        if n and self._accept(n):
            self._good(offset + len(line), whole)
            yield n, offset, [line]
        else:
            for found, place, inner in self._salvage(offset, line):
                yield found, place, [inner]

    def _accept(self, n: int) -> bool:
        """Note the number of a good line; False if it does not rise."""
        if n <= self.last_n:
            return False
        if self.last_n and n != self.last_n + 1:
            self.missing.append((self.last_n + 1, n - 1))
        self.first_n = self.first_n or n
        self.last_n = n
        return True

    def _good(self, end: int, whole: bool) -> None:
        self.damage += self._open_damage
        self._open_damage = []
        self.unterminated = not whole
        self.end = end + whole

    def _salvage(self, offset: int, line: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Good records inside a stretch that is not one line."""
        found = False
        for start, inner in candidates(line):
            n = verify(inner, self._seed) if len(inner) < len(line) else 0
            if n and self._accept(n):
                found = self.rebuilt = True
                self._good(offset + start + len(inner), True)
                yield n, offset + start, inner
        if not found or self.end < offset + len(line):
            self._open_damage.append(Damage(offset, len(line) + 1, line[:FRAGMENT]))


# ------------------------------------------------------------------------- first line


def read_opened(disk: Disk, fd: int) -> Opened | None:
    """The first line of a journal, if it verifies with the seed made of its own uuid and generation."""
    line = disk.pread(fd, 1 << 16, 0).partition(b"\n")[0]
    opened = decode_record(line)
    if not isinstance(opened, Opened) or not verify(line, seed_of(opened.uuid, opened.generation)):
        return None
    return opened


def guess_seed(disk: Disk, fd: int) -> int | None:
    """The seed of a journal whose first line is damaged: the one that most of its other lines have.

    The first line holds the uuid and the generation. Without it, and without a checkpoint, the other
    lines could not be verified, and the results in them would be lost.
    """
    votes: Counter[int] = Counter()
    for line in disk.pread(fd, HEAD_BYTES, 0).split(b"\n"):
        if len(line) <= _VOTING_LENGTH and (seed := recover_seed(line)) is not None:
            votes[seed] += 1
        if votes.total() >= _VOTES:
            break
    best = votes.most_common(1)
    return best[0][0] if best and best[0][1] > 1 else None
