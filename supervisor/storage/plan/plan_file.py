"""The plan file: every job ever planned, one JSON object per line; written, read, extended.

A later line with the same id wins. `{"id":...,"gone":true}` says that the script no longer has the job. Only
the offset and length of each line are kept in memory. The job table assigns the numbers of jobs.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat
from operator import add, attrgetter
from pathlib import Path

import msgspec

from supervisor.core.state.columns import get, is_contiguous
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import StorageError
from supervisor.storage.files.atomic_files import (
    NewFile,
    groups_of,
    offsets_of,
    resolved,
    unnamed_file,
    write_all,
)
from supervisor.storage.files.disk import Disk
from supervisor.storage.plan.plan_builder import EarlierPlan
from supervisor.storage.plan.plan_builder import PlanBuilder as PlanBuilder
from supervisor.storage.plan.plan_columns import read_columns, write_columns
from supervisor.storage.plan.plan_line import PlanEntry, bodies_batch, decode_entries, decode_entry, gone_line

_CHUNK = 4 << 20
_WINDOW = 64 << 10  # bytes that are read ahead
_NEAR = 4096  # bytes from the end of one read to the next, if they go on

_id, _domain, _gone = attrgetter("id"), attrgetter("domain"), attrgetter("gone")


def first_entries(disk: Disk, path: Path | str, most: int) -> list[PlanEntry]:
    """The first lines of a plan. Raises OSError, msgspec.DecodeError, UnicodeDecodeError."""
    fd = disk.open(resolved(path), os.O_RDONLY)
    found: list[PlanEntry] = []
    try:
        for _, lines, whole in groups_of(disk, fd, 0, disk.size(fd)):
            if len(found) >= most or not whole:
                break
            found += decode_entries(b"\n".join(lines[: most - len(found)]))
    finally:
        disk.close(fd)
    return found


class PlanFile:
    """The plan on disk. `offsets` and `lengths` are by job number; length 0: no line.

    damaged: number of unreadable lines before a readable one. torn: offset of a torn last line, or None.
    """

    def __init__(self, disk: Disk, path: str, fd: int) -> None:
        self.path = path
        self.offsets = array("Q")
        self.lengths = array("I")
        self.size = 0
        self.damaged = 0
        self.torn: int | None = None
        self._in_order = 0  # so many jobs, from the first on, whose lines follow each other in the file
        # Whether each line is known to have only id, domain and params. Of a file that was read that is not known.
        self._plain = False
        self._bad = 0  # unreadable lines with no good one after them so far
        self._disk = disk
        self._fd = fd
        self._window, self._window_at = b"", 0  # what was read ahead
        self._read_to = 0
        self._repeatable: EarlierPlan | None = None
        self._has_columns = False

    # ------------------------------------------------------------------- open, make

    @classmethod
    def create(cls, disk: Disk, path: Path | str, builder: PlanBuilder) -> PlanFile:
        """Write a new plan, synced; the builder's n-th job gets the number n."""
        with NewFile(disk, path) as file:
            for chunk in builder.chunks():
                file.write(chunk)
            file.publish(keep_open=True)
            plan = cls(disk, file.path, file.fd)
        plan._take_lengths(builder.lengths[:], plain=not builder.own)
        return plan

    @classmethod
    def unnamed(cls, disk: Disk, directory: Path | str, builder: PlanBuilder) -> PlanFile:
        """A plan in an unnamed file, which vanishes when the process ends (--no-resume)."""
        plan = cls(disk, "", unnamed_file(directory))
        for chunk in builder.chunks():
            write_all(disk, plan._fd, chunk)
        plan._take_lengths(builder.lengths[:], plain=not builder.own)
        return plan

    @classmethod
    def read(cls, disk: Disk, path: Path | str, table: JobTable) -> PlanFile | None:
        """Open an existing plan and register its jobs in the table; None if there is none."""
        target = resolved(path)
        try:
            fd = disk.open(target, os.O_RDONLY)
        except FileNotFoundError:
            return None
        plan = cls(disk, target, fd)
        plan._read_lines(table)
        return plan

    @classmethod
    def in_columns(cls, disk: Disk, path: Path | str, columns: Path, table: JobTable) -> PlanFile | None:
        """`read`, without its lines, if there are columns of this plan (see `plan_columns`); else None."""
        target = resolved(path)
        try:
            plan = cls(disk, target, disk.open(target, os.O_RDONLY))
        except FileNotFoundError:
            return None
        lengths = read_columns(disk, columns, plan._fd, table)
        if lengths is None:
            plan.close()
            return None
        plan._take_lengths(lengths)
        plan._has_columns = True
        return plan

    @classmethod
    def read_known(cls, disk: Disk, path: Path | str, table: JobTable) -> PlanFile | None:
        """`read` without a check for duplicate ids; the caller must verify the table's ids (see `journal_index`).

        None if the file is missing or unreadable, or has anything but one line for each job.
        """
        target = resolved(path)
        try:
            plan = cls(disk, target, disk.open(target, os.O_RDONLY))
        except FileNotFoundError:
            return None
        for offset, lines, whole in groups_of(disk, plan._fd, 0, disk.size(plan._fd)):
            if not (whole and plan._take_group(table, offset, lines, unique=True)):
                plan.close()
                return None
        return plan

    def _take_lengths(self, lengths: array[int], *, plain: bool = False) -> None:
        self.lengths = lengths
        self.offsets = array("Q", accumulate(self.lengths, initial=0))
        self.size = self.offsets.pop()
        self._in_order = len(self.lengths)
        self._plain = plain

    def _read_lines(self, table: JobTable) -> None:
        end = self._disk.size(self._fd)
        for offset, lines, whole in groups_of(self._disk, self._fd, 0, end):
            if not (whole and self._bad == 0 and self._take_group(table, offset, lines)):
                self._take_lines(table, offset, lines, whole=whole)
        self.torn = self.size if self.size < end else None

    def _take_group(self, table: JobTable, offset: int, lines: list[bytes], *, unique: bool = False) -> bool:
        """Take lines of new jobs at once, as nearly all are. False: nothing taken, decode each line."""
        try:
            found = decode_entries(b"\n".join(lines))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        if len(found) != len(lines) or len(self.offsets) != len(table) or any(map(_gone, found)):
            return False
        if not table.add_planned(list(map(_id, found)), list(map(_domain, found)), unique=unique):
            return False
        lengths = list(map(add, map(len, lines), repeat(1)))
        self._in_order += len(lines) if self._follows(len(self.offsets), offset) else 0
        *places, self.size = accumulate(lengths, initial=offset)
        self.offsets.extend(places)
        self.lengths.extend(lengths)
        return True

    def _take_lines(self, table: JobTable, offset: int, lines: list[bytes], *, whole: bool) -> None:
        for place, line in zip(offsets_of(offset, lines), lines, strict=False):
            try:
                found = decode_entry(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._bad += 1
                continue
            if not whole:
                break
            self.damaged += self._bad
            self._bad = 0
            self.size = place + len(line) + 1
            number = table.add(found.id, found.domain, wanted=False)
            table.wanted[number] = not found.gone
            if not found.gone:
                self._note(number, place, len(line) + 1)

    def _follows(self, job: int, offset: int) -> bool:
        """Whether a line of this job at this offset follows the lines of all jobs before it."""
        if job != self._in_order:
            return False
        return offset == (self.offsets[job - 1] + self.lengths[job - 1] if job else 0)

    def _note(self, job: int, offset: int, length: int) -> None:
        if self._follows(job, offset):
            self._in_order += 1
        else:
            self._in_order = min(self._in_order, job)  # it is written again
        missing = job + 1 - len(self.offsets)
        if missing == 1:
            self.offsets.append(offset)
            self.lengths.append(length)
            return
        if missing > 0:
            self.offsets.frombytes(bytes(missing * self.offsets.itemsize))
            self.lengths.frombytes(bytes(missing * self.lengths.itemsize))
        self.offsets[job] = offset
        self.lengths[job] = length

    # ------------------------------------------------------------------------- read

    def lines(self, jobs: Sequence[int]) -> bytes:
        """The lines of jobs, joined by newlines; one read if they follow each other in the file."""
        offsets, lengths = self.offsets, self.lengths
        if is_contiguous(jobs):
            if jobs[-1] < self._in_order:
                start = offsets[jobs[0]]
                return self._pread(offsets[jobs[-1]] + lengths[jobs[-1]] - 1 - start, start)
            these = slice(jobs[0], jobs[-1] + 1)
            *places, end = accumulate(lengths[these], initial=offsets[jobs[0]])
            if places == offsets[these].tolist():  # a line that was written again is elsewhere
                return self._pread(end - places[0] - 1, places[0])
        return b"\n".join([self.line(job) for job in jobs])

    def bodies(self, jobs: Sequence[int]) -> list[bytes] | None:
        """The bodies of the lines of jobs, each of which has one; None if a line has more than a plain one."""
        return bodies_batch(self.lines(jobs), len(jobs), plain=self._plain)

    def has(self, job: int) -> bool:
        """Whether the plan has a line of this job."""
        return job < len(self.lengths) and self.lengths[job] > 0

    def has_all(self, jobs: Sequence[int]) -> bool:
        if is_contiguous(jobs) and jobs[-1] < self._in_order:
            return True
        return max(jobs, default=-1) < len(self.lengths) and 0 not in get(self.lengths, jobs)

    def has_bytes_of(self, builder: PlanBuilder) -> bool:
        """Whether the file has the same bytes that `create` would write from this builder."""
        if self._repeatable is not None and (jobs := builder.repeats(self._repeatable)):
            return jobs == len(self.lengths) and builder.size == self.size
        if self.damaged or self.size != builder.size or len(self.lengths) != len(builder):
            return False
        position = 0
        for chunk in builder.chunks():
            if self._disk.pread(self._fd, len(chunk), position) != chunk:
                return False
            position += len(chunk)
        return position == self.size

    def repeatable(self, table: JobTable) -> EarlierPlan | None:
        """This plan, for a script to repeat; None unless it has exactly one line for each job of the table, in
        their order."""
        self._repeatable = _Repeatable(self, table) if self._is_clean() and self.size else None
        return self._repeatable

    def _is_clean(self) -> bool:
        if self._has_columns:  # those of any other plan were not written
            return True
        return not self.damaged and sum(self.lengths) == self.size and 0 not in self.lengths

    def write_columns(self, path: Path, table: JobTable) -> None:
        """Write the columns of this plan, if there are none, and it has one line for each job of the table."""
        if not self._has_columns and len(table) == len(self.lengths) and self._is_clean():
            write_columns(self._disk, path, self._fd, table, self.lengths)

    def line(self, job: int) -> bytes:
        """Without its newline; empty if the plan has no line of this job."""
        if not self.has(job):
            return b""
        return self._pread(self.lengths[job] - 1, self.offsets[job])

    def _pread(self, size: int, offset: int) -> bytes:
        """Read `size` bytes, ahead if reads are small and follow each other.

        Reading ahead stops at `self.size`: the bytes behind it, a torn line, may change.
        """
        at = offset - self._window_at
        if at < 0 or at + size > len(self._window):
            goes_on = 0 <= offset - self._read_to <= _NEAR
            self._read_to = offset + size
            if size > _WINDOW // 4 or not goes_on:
                return self._read(size, size, offset)
            text = self._read(size, max(size, min(_WINDOW, self.size - offset)), offset)
            self._window, self._window_at, at = text, offset, 0
        self._read_to = offset + size
        return self._window[at : at + size]

    def _read(self, least: int, most: int, offset: int) -> bytes:
        try:
            text = self._disk.pread(self._fd, most, offset)
        except OSError as error:
            raise StorageError(
                f"the plan {self.path} cannot be read: {error.strerror or error}. Fix the disk, then resume."
            ) from None
        if len(text) < least:
            raise StorageError(
                f"the plan {self.path} was cut short while it was in use. Resume: it is rebuilt."
            )
        return text

    # ----------------------------------------------------------------------- change

    def extend(self, lines: Iterable[tuple[int, bytes]], gone: Iterable[str] = ()) -> None:
        """Append lines (job number, line with newline) and mark ids as gone; synced.

        A torn last line, left by a kill, is cut off first.
        """
        self._plain = False
        fd = self._disk.open(self.path, os.O_RDWR | os.O_APPEND)
        self._disk.close(self._fd)
        self._fd, self._has_columns = fd, False
        if self.torn is not None:
            self._disk.truncate(fd, self.torn)
            self.torn = None
        text = bytearray()
        for job, line in lines:
            self._note(job, self.size + len(text), len(line))
            text += line
            if len(text) >= _CHUNK:
                self._write(text)
                text = bytearray()
        for job_id in gone:
            text += gone_line(job_id)
        self._write(text)
        self._disk.sync(fd)

    def _write(self, text: bytearray) -> None:
        write_all(self._disk, self._fd, text)
        self.size += len(text)

    def duplicate(self) -> PlanFile:
        """A copy for reading, with a descriptor of its own."""
        copy = PlanFile(self._disk, self.path, self._disk.duplicate(self._fd))
        copy.offsets, copy.lengths, copy.size = self.offsets, self.lengths, self.size
        copy._in_order, copy._plain = self._in_order, self._plain
        return copy

    def rebuild(self, builder: PlanBuilder, table: JobTable) -> None:
        """Write the file again: the script's lines, then the readable lines of other jobs."""
        others = [
            (job, self.line(job))
            for job in range(len(self.lengths))
            if self.lengths[job] and table.ids[job] not in builder.domains
        ]
        self._in_order = 0
        with NewFile(self._disk, self.path) as file:
            for job_id, line in zip(builder.domains, builder.lines(), strict=True):
                self._note(table.numbers[job_id], file.size, len(line))
                file.write(line)
            for job, line in others:
                self._note(job, file.size, len(line) + 1)
                file.write(line + b"\n" + gone_line(table.ids[job]))
            file.publish(keep_open=True)
            if self._fd >= 0:
                self._disk.close(self._fd)
            self._fd, self.size, self._window = file.fd, file.size, b""
            self._has_columns = False
        self.damaged, self.torn = 0, None

    def close(self) -> None:
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1


class _Repeatable:
    """See `EarlierPlan`."""

    def __init__(self, plan: PlanFile, table: JobTable) -> None:
        self.lengths = plan.lengths
        self._plan = plan
        self._table = table

    def text(self, offset: int, size: int) -> bytes:
        return self._plan._pread(max(0, min(size, self._plan.size - offset)), offset)

    def domains(self, jobs: int) -> dict[str, str | None]:
        names: list[str | None] = [None, *self._table.domains[1:]]
        return dict(
            zip(self._table.ids[:jobs], map(names.__getitem__, self._table.domain_of[:jobs]), strict=True)
        )
