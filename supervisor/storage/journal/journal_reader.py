"""Reads a journal: the records of given jobs by offset, or all records in order.

Read-only, also while a supervisor writes. Lines that are torn or do not verify are skipped (`longhaul
verify` reports them). A missing journal has no records; that is no error here.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence

from supervisor.core.state.columns import get
from supervisor.core.terms.errors import StorageError
from supervisor.core.terms.records import AnyRecord, Ended, Leased
from supervisor.storage.files.atomic_files import resolved
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_format import (
    Content,
    contents,
    contents_batch,
    decode_record,
    ended_part,
    ended_parts_batch,
    is_unsuccessful_end,
    named_parts_batch,
    seed_of,
    tells_what_is_given,
    verify,
    verify_batch,
)
from supervisor.storage.journal.journal_scan import Scan, guess_seed, read_opened
from supervisor.storage.journal.record_locations import (
    read_batch,
    read_joined,
    read_records,
    read_stretches,
    stretches_of,
)

# The Ended parts (see `journal_format.ended_part`) of finished jobs, by number.
ReadParts = Callable[[Sequence[int]], list[bytes]]


class JournalReader:
    """Reads the Ended parts of jobs from a journal, by offset.

    offsets, lengths: of the jobs' lines, by job number. intact: the whole file was just verified, so single
    lines are not. Raises OSError for a line that does not verify: damage must not be copied into a checkpoint
    under a new checksum.
    """

    def __init__(
        self,
        disk: Disk,
        fd: int,
        seed: int,
        offsets: array[int],
        lengths: array[int],
        *,
        intact: bool = False,
    ) -> None:
        self._disk = disk
        self._fd = fd
        self._seed = seed
        self.offsets = offsets
        self.lengths = lengths  # bytes, by job number
        self._intact = intact

    def __call__(self, jobs: Sequence[int]) -> list[bytes]:
        if self._intact:
            offsets, lengths = get(self.offsets, jobs), get(self.lengths, jobs)
            if (near := read_batch(self._disk, self._fd, offsets, lengths)) is not None:
                return ended_parts_batch(*near, lengths)
        return list(map(ended_part, self._lines(jobs)))

    def named_parts(self, jobs: Sequence[int], between: bytes) -> list[bytes] | None:
        """The id of each job, as JSON, `between`, and its part, as `named_parts_batch` gives them; None if they cannot
        be taken in that way."""
        if not self._intact:
            return None
        offsets, lengths = get(self.offsets, jobs), get(self.lengths, jobs)
        stretches = stretches_of(offsets, lengths)
        text = read_stretches(self._disk, self._fd, offsets, lengths, stretches)
        if text is None:
            return None
        lowest = min((offsets[first], first) for first, _ in stretches)[1]
        highest = max((offsets[end - 1], end - 1) for _, end in stretches)[1]
        ends = [sum(lengths[:place]) for place in (lowest, highest)]
        return named_parts_batch(text, lengths, ends, between)

    def contents(self, jobs: Sequence[int]) -> list[Content]:
        """The results or errors of these jobs."""
        if self._intact:
            place = (get(self.offsets, jobs), get(self.lengths, jobs))
            if text := read_joined(self._disk, self._fd, *place):
                return contents_batch(text)
        return contents(self._lines(jobs))

    def _lines(self, jobs: Sequence[int]) -> list[bytes]:
        offsets = get(self.offsets, jobs)
        lengths = [length - 1 for length in get(self.lengths, jobs)]
        lines = read_records(self._disk, self._fd, offsets, lengths)
        if not self._intact and not verify_batch(lines, self._seed):
            bad = next(at for at, line in zip(offsets, lines, strict=True) if not verify(line, self._seed))
            raise OSError(None, f"the record at byte {bad} of the journal cannot be read back")
        return lines


def history(layout: Layout, chosen: Callable[[bytes], bool] | None = None) -> Iterator[AnyRecord]:
    """All records in order, or those whose lines `chosen` accepts (before they are decoded).

    Raises StorageError if the file cannot be read.
    """
    disk = Disk()
    try:
        fd = disk.open(resolved(layout.journal), os.O_RDONLY)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(layout, error) from None
    try:
        opened = read_opened(disk, fd)
        seed = guess_seed(disk, fd) if opened is None else seed_of(opened.uuid, opened.generation)
        if seed is None:
            return
        yield from records_in(disk, fd, seed, chosen)
    except OSError as error:
        raise _unreadable(layout, error) from None
    finally:
        disk.close(fd)


def records_in(
    disk: Disk, fd: int, seed: int, chosen: Callable[[bytes], bool] | None = None
) -> Iterator[AnyRecord]:
    """`history` of an open file. Raises OSError."""
    for _, _, line in Scan(disk, fd, seed):
        if chosen is None or chosen(line):
            record = decode_record(line)
            if record is not None:
                yield record


def hand_outs_with_needs(disk: Disk, fd: int, seed: int) -> Iterator[Leased]:
    """The hand-outs of jobs that said what they need or ran on a node, in order, from an open file; none if there is
    no file (`fd` below 0). Reads all of it; raises OSError."""
    for record in records_in(disk, fd, seed, tells_what_is_given) if fd >= 0 else ():
        if isinstance(record, Leased):
            yield record


def bad_ends(layout: Layout) -> Iterator[Ended]:
    """The attempts that ended without a result."""
    for record in history(layout, is_unsuccessful_end):
        if isinstance(record, Ended):
            yield record


def _unreadable(layout: Layout, error: OSError) -> StorageError:
    return StorageError(
        f"the journal {layout.journal} cannot be read: {error.strerror or error}. "
        "Make it readable or fix the disk, then try again."
    )
