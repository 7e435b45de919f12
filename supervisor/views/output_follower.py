"""`--show-output`: what the jobs print, line by line, while they run and when they end.

The output of a job that has run for a second is read from its worker's scratch file. The rest, and all output of
short jobs, is read from the log at the job's end. No file is written here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec

from supervisor.core.state.snapshot import WorkerSnapshot
from workers.isolation.output_files import log_path, scratch_path

_SETTLED = 1.0  # seconds; before that the scratch file may still be the previous job's
_MOST = 64 * 1024  # bytes shown at a time; more is only in the log
_HEADING = b"\n--- attempt "


class _Followed(msgspec.Struct):
    job: str
    attempt: int
    inode: int = 0
    offset: int = 0  # bytes of this attempt's output that have been read
    unfinished: bytes = b""  # the line that has no end yet


class OutputFollower:
    """Passes new complete lines to `emit(job id, text)`."""

    def __init__(self, directory: str, emit: Callable[[str, str], None]) -> None:
        self._directory = directory
        self._emit = emit
        self._followed: dict[int, _Followed] = {}  # by incarnation

    def poll(self, workers: Sequence[WorkerSnapshot]) -> None:
        """Show new output of the jobs that run now."""
        for worker in workers:
            if worker.job is None or worker.seconds < _SETTLED:
                continue
            followed = self._followed.get(worker.incarnation)
            if followed is None or (followed.job, followed.attempt) != (worker.job, worker.attempt):
                followed = self._followed[worker.incarnation] = _Followed(worker.job, worker.attempt)
            self._read_on(followed, scratch_path(self._directory, worker.worker, worker.incarnation))
        alive = {worker.incarnation for worker in workers}
        for incarnation in self._followed.keys() - alive:
            del self._followed[incarnation]

    def ended(self, job_id: str) -> None:
        """The job's log is complete: show what has not been shown yet."""
        followed = _Followed(job_id, 0)
        for incarnation, entry in self._followed.items():
            if entry.job == job_id:
                followed = self._followed.pop(incarnation)
                break
        try:
            with open(log_path(self._directory, job_id), "rb") as file:
                begin = _start_of_last_attempt(file.fileno()) + followed.offset
                data, skipped = _read(file.fileno(), begin)
        except OSError:
            return
        self._show(followed, data, skipped, last=True)

    def _read_on(self, followed: _Followed, path: str) -> None:
        try:
            with open(path, "rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if followed.inode not in (0, inode):
                    return  # the job has ended; the rest is in its log
                followed.inode = inode
                data, skipped = _read(file.fileno(), followed.offset)
        except OSError:
            return
        followed.offset += skipped + len(data)
        self._show(followed, data, skipped, last=False)

    def _show(self, followed: _Followed, data: bytes, skipped: int, *, last: bool) -> None:
        if skipped:
            followed.unfinished = b""
            self._emit(followed.job, f"... {skipped:,} bytes are only in the log")
        data = followed.unfinished + data
        end = len(data) if last else data.rfind(b"\n") + 1
        if end == 0 and len(data) > _MOST:  # a line without an end
            end = len(data)
        followed.unfinished = data[end:]
        if data[:end]:
            self._emit(followed.job, data[:end].decode(errors="replace"))


def _read(descriptor: int, begin: int) -> tuple[bytes, int]:
    """The data from `begin` on, at most its last 64 KB; and how many bytes are left out."""
    size = os.fstat(descriptor).st_size
    start = max(begin, size - _MOST)
    if start >= size:
        return b"", 0
    return os.pread(descriptor, size - start, start), start - begin


def _start_of_last_attempt(descriptor: int) -> int:
    """Logs of several attempts are appended to one another under headings."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - 4 * _MOST)
    data = os.pread(descriptor, size - start, start)
    heading = data.rfind(_HEADING)
    if heading < 0:
        return 0
    return start + data.index(b"\n", heading + 1) + 1 if b"\n" in data[heading + 1 :] else 0
