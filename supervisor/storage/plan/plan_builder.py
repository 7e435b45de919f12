"""Collects the lines of a script's plan before anything is changed on disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import CannotCreate, UsageError
from supervisor.core.terms.jobs import NOTHING_OWN, OwnSettings
from supervisor.storage.files.atomic_files import unnamed_file, write_all
from supervisor.storage.files.disk import Disk
from supervisor.storage.plan.plan_line import plan_line, plan_lines

_CHUNK = 4 << 20

_WINDOW = 256 << 10  # bytes of an earlier plan that are read at once


class EarlierPlan(Protocol):
    """A plan on disk with exactly one line for each job, in the order of the jobs."""

    lengths: array[int]

    def text(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from an offset. Raises StorageError."""

    def domains(self, jobs: int) -> dict[str, str | None]:
        """Domain by id of the first `jobs` jobs."""


class PlanBuilder:
    """Collects the jobs of a script in a spool.

    earlier: a plan that the script is expected to repeat. While it yields the same lines in the same order,
    they are compared and not collected.
    own: settings by id, of the jobs that have settings of their own.
    """

    def __init__(self, earlier: EarlierPlan | None = None) -> None:
        self.own: dict[str, OwnSettings] = {}
        self.size = 0
        self._domains: dict[str, str | None] = {}
        self._lengths = array("I")
        self._earlier = earlier
        self._followed = 0  # jobs that are those of the earlier plan
        self._start, self._window = 0, b""
        self._spool = Spool()

    def __len__(self) -> int:
        return self._followed or len(self._domains)

    @property
    def domains(self) -> dict[str, str | None]:
        """Domain by id, in the order in which the jobs were added."""
        self._stand_alone()
        return self._domains

    @property
    def lengths(self) -> array[int]:
        """Of the lines with their newlines."""
        self._stand_alone()
        return self._lengths

    def repeats(self, earlier: EarlierPlan) -> int:
        """How many jobs of the earlier plan the script has repeated; 0 if it has yielded any other job."""
        return self._followed if self._earlier is earlier else 0

    def add(
        self, job_id: str, domain: str | None, params_json: bytes, own: OwnSettings = NOTHING_OWN
    ) -> None:
        """Add one job. The reference for `add_batch`. Raises UsageError for an id that is there already."""
        line = plan_line(job_id, domain, params_json, own)
        if own is not NOTHING_OWN:
            self.own[job_id] = own
        if self._follow(line, 1):
            return
        if job_id in self.domains:
            first = next(place for place, known in enumerate(self.domains, 1) if known == job_id)
            raise UsageError(
                f"two jobs have the id {job_id!r}: the jobs at positions {first} and {len(self.domains) + 1} "
                f"of the plan. Give each job an id of its own (params that differ make ids that differ)."
            )
        self._write(line)
        self._domains[job_id] = domain
        self._lengths.append(len(line))

    def add_batch(
        self,
        ids: Sequence[str],
        domains: Sequence[str | None],
        params: Sequence[dict[str, Any]],
        text: bytes | None = None,
    ) -> bool:
        """`add` for many jobs whose params are made of JSON's own types. `text`: their lines, if they are made already.

        False if an id is there already: the plan is to be refused, and `add` names the id. Raises
        UnicodeEncodeError for a lone surrogate.
        """
        text = plan_lines(ids, domains, params) if text is None else text
        if self._follow(text, len(ids)):
            return True
        known, before = self.domains, len(self.domains)
        known.update(zip(ids, domains, strict=True))
        if len(known) < before + len(ids):  # an id was known, or occurs twice
            self._domains = dict(islice(known.items(), before))
            return False
        self._write(text)
        self._lengths.extend(map(len, text.splitlines(keepends=True)))  # no \r: JSON escapes it
        return True

    @property
    def follows(self) -> bool:
        """Whether all jobs so far were those of the earlier plan."""
        return self._earlier is not None

    def expects(self, text: bytes) -> bool:
        """Whether the earlier plan goes on with these lines."""
        if self._earlier is None:
            return False
        at = self.size - self._start
        if at + len(text) > len(self._window):
            self._start, at = self.size, 0
            self._window = self._earlier.text(self.size, max(_WINDOW, len(text)))
        return self._window[at : at + len(text)] == text

    def _follow(self, text: bytes, jobs: int) -> bool:
        """Whether the earlier plan goes on with these lines of `jobs` jobs."""
        if not self.expects(text):
            self._stand_alone()
            return False
        self._followed += jobs
        self.size += len(text)
        return True

    def _stand_alone(self) -> None:
        """Collect the lines that were only compared so far; from now on every line is collected."""
        earlier, self._earlier = self._earlier, None
        if earlier is None:
            return
        jobs, self._followed = self._followed, 0
        size, self.size, self._window = self.size, 0, b""
        self._domains = earlier.domains(jobs)
        self._lengths = earlier.lengths[:jobs]
        while self.size < size:
            self._write(earlier.text(self.size, min(_CHUNK, size - self.size)))

    def _write(self, text: bytes) -> None:
        try:
            self._spool.write(text)
        except OSError as error:
            raise CannotCreate(
                f"the plan cannot be collected in {tempfile.gettempdir()}: {error.strerror}; "
                f"make room there or set TMPDIR"
            ) from None
        self.size += len(text)

    def chunks(self) -> Iterator[bytes]:
        """The whole text, in pieces."""
        self._stand_alone()
        return self._spool.chunks()

    def lines(self) -> Iterator[bytes]:
        """Each line with its newline."""
        self._stand_alone()
        return self._spool.lines()

    def fill(self, table: JobTable) -> None:
        """Register every job in the table, as wanted."""
        ids, domains = list(self.domains), list(self.domains.values())
        if not table.add_planned(ids, domains, unique=not len(table)):
            for job_id, domain in self.domains.items():
                table.add(job_id, domain)
        self.set_own_settings(table)

    def set_own_settings(self, table: JobTable) -> None:
        """Set the jobs' own settings in the table, which must have all of these jobs."""
        table.own = {table.numbers[job_id]: own for job_id, own in self.own.items()}

    def close(self) -> None:
        """Drop the lines."""
        self._spool.close()

    def __del__(self) -> None:
        self.close()  # also of a plan that was refused


IN_MEMORY = 32 << 20  # bytes

_PIECE = 1 << 20


class Spool:
    """Append bytes, read them back from the start any number of times: the first 32 MB stay in memory, the rest
    goes to an unnamed temporary file. Methods raise OSError.
    """

    def __init__(self) -> None:
        self.size = 0
        self._kept: list[bytes] = []  # the first bytes
        self._last = bytearray()  # the last bytes, fewer than a piece
        self._disk = Disk()
        self._fd = -1
        self._in_file = 0  # bytes

    def write(self, text: bytes) -> None:
        self._last += text
        self.size += len(text)
        if len(self._last) >= _PIECE:
            piece, self._last = bytes(self._last), bytearray()
            self._put_away(piece)

    def _put_away(self, piece: bytes) -> None:
        if self._fd < 0 and self.size <= IN_MEMORY:
            self._kept.append(piece)
            return
        if self._fd < 0:
            self._fd = unnamed_file(tempfile.gettempdir())
        write_all(self._disk, self._fd, piece)
        self._in_file += len(piece)

    def chunks(self) -> Iterator[bytes]:
        """All bytes in pieces that need not end at a newline."""
        yield from self._kept
        for position in range(0, self._in_file, _PIECE):
            yield self._disk.pread(self._fd, min(_PIECE, self._in_file - position), position)
        yield bytes(self._last)

    def lines(self) -> Iterator[bytes]:
        """Each line with its newline, which the last one must have."""
        begun: list[bytes] = []
        for chunk in self.chunks():
            first, *others = chunk.split(b"\n")
            begun.append(first)
            if others:
                yield b"".join([*begun, b"\n"])
                *whole, rest = others
                yield from [line + b"\n" for line in whole]
                begun = [rest]

    def close(self) -> None:
        """Drop all bytes and close the file."""
        self._kept.clear()
        self._last = bytearray()
        if self._fd >= 0:
            fd, self._fd, self._in_file = self._fd, -1, 0
            with contextlib.suppress(OSError):
                os.close(fd)
