"""Captures what a job prints, by descriptor: from Python, C code and child programs alike.

Descriptors 1 and 2 of a worker lead to a scratch file. After a job that printed something
the scratch file becomes the job's log; when a worker dies, the supervisor does the same for
it. So a log exists from the first byte on, and a silent job costs one system call.

A log keeps head and tail of what is longer than the limit. While the job still runs, the
supervisor frees the blocks in the middle of the scratch file (`trim`), so that a job that prints without end
does not fill the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import sys
from functools import partial
from time import perf_counter

from workers.isolation.output_files import STRAY_HEADING, log_path, move, scratch_path, stray_path
from workers.isolation.streams import AlwaysWrote, StandardStreams, buffer_of
from workers.process.descriptors import FileIdentity, Probe, claim, identity_of, is_ours, register
from workers.process.linux import CStandardOutput

_CLOSING_TAKES = 20e-6  # seconds; a shorter job has not closed our descriptor together with many others


class CapturedOutput:
    """Descriptors 1 and 2 of the worker, and the log that is made of their output after each job."""

    def __init__(self, directory: str, worker: int, incarnation: int, limit: int) -> None:
        self._directory = directory
        self._worker = worker
        self._limit = limit
        self._path = scratch_path(directory, worker, incarnation)
        self._scratch = -1
        self._c = CStandardOutput()
        self._open()
        self._c.buffer_by_line()
        self._streams = StandardStreams()
        self._note_streams()
        self._input = _flags(0)
        self._known = False  # the scratch file was just verified to be ours
        self._too_quick = self._time_of_a_write() / 2

    def _open(self, lost: int = -1) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o666)
        if self._scratch >= 0:
            os.dup2(descriptor, self._scratch, inheritable=False)
            os.close(descriptor)
            register(self._scratch)
        else:
            self._scratch = claim(descriptor, lost)
        self._file = identity_of(self._scratch)
        self._point_streams()

    def _point_streams(self) -> None:
        os.dup2(self._scratch, 1)
        os.dup2(self._scratch, 2)

    def _is_ours(self) -> bool:
        """False if a job has closed our descriptor; a file of its own may have the number now."""
        return is_ours(self._scratch, self._file)

    def restore(self, *, thorough: bool = True) -> None:
        """Restore descriptors 0, 1 and 2 and the streams of Python after a job."""
        try:
            if not (self._known or self._is_ours()):
                raise OSError
            self._point_streams()
        except OSError:  # a very short job may have closed it since the last check
            lost, self._scratch = self._scratch, -1
            with contextlib.suppress(OSError):
                self._open(lost)
        self._known = False
        if self._input >= 0 and _flags(0) != self._input:
            _open_nothing(0)
            self._input = _flags(0)
        self._restore_streams(thorough=thorough)

    def unused(self) -> bool:
        """Whether the buffers of Python's streams and of C's tell that nothing was printed."""
        return not (self._out.wrote or self._err.wrote or self._c.pending())

    def probes(self) -> list[Probe]:
        """Probes that the scratch file is empty, that descriptors 1 and 2 lead to it, and that the streams
        are unchanged. If the output is `unused`, they replace `size` and `restore`.

        They would miss a file that a job has opened in place of ours only if it is empty.
        """
        empty = partial(os.lseek, self._scratch, 0, os.SEEK_END), 0
        ours = [(partial(os.dup2, self._scratch, number), number) for number in (1, 2)]
        return [empty, *ours, self._streams.probe()]

    def full_probe(self) -> Probe:
        """A probe that descriptor 0 is unchanged."""
        if self._input < 0:
            return partial(_flags, 0), self._input
        return partial(fcntl.fcntl, 0, fcntl.F_GETFL), self._input

    def thorough_probes(self) -> list[Probe]:
        """Probes that no stream was reconfigured."""
        return self._streams.thorough_probes()

    def files(self) -> dict[int, FileIdentity]:
        """The descriptor of the scratch file, and which file that is."""
        return {self._scratch: self._file}

    def _restore_streams(self, *, thorough: bool = True) -> None:
        if self._streams.restore(thorough=thorough):
            self._note_streams()

    def _note_streams(self) -> None:
        """Cache the streams: `size` uses them after every job."""
        streams = self._streams
        self._stdout, self._stderr = streams.stdout, streams.stderr
        self._out, self._err = map(buffer_of, streams.own)
        if streams.others:  # a stream in front of ours may buffer text
            self._out = AlwaysWrote()

    def _time_of_a_write(self) -> float:
        """The shortest time that a write to the scratch file takes here, in seconds; 0 if the disk fails."""
        times = []
        before = os.fstat(self._scratch).st_size  # the interpreter may have printed at its start
        try:
            for _ in range(3):
                start = perf_counter()
                os.write(self._scratch, b".")
                times.append(perf_counter() - start)
        except OSError:
            times.append(0.0)
        with contextlib.suppress(OSError):
            os.ftruncate(self._scratch, before)
        return min(times)

    def size(self, seconds: float) -> int:
        """Bytes printed since the last `collect`, after flushing all buffers. `seconds`: duration of the job; if
        it is shorter than a write, the file is not checked."""
        if seconds < self._too_quick and not (self._out.wrote or self._err.wrote):
            return 0
        if self._c.pending():
            self._c.flush()
        try:
            if sys.stdout is not self._stdout or sys.stderr is not self._stderr:
                self._restore_streams()
        except AttributeError:  # deleted
            self._restore_streams()
        if self._out.wrote or self._err.wrote:
            self._flush()
        if seconds > _CLOSING_TAKES:
            return self._printed()
        try:
            return os.lseek(self._scratch, 0, os.SEEK_END)
        except OSError:
            return 0

    def _printed(self) -> int:
        """Bytes in the scratch file; 0 if it cannot be read."""
        self._known = False
        for _ in range(2):
            try:
                status = os.fstat(self._scratch)
            except OSError:
                pass
            else:
                if (status[1], status[2]) == self._file:
                    self._known = True
                    return status[6]
            self.restore()
        return 0

    def _flush(self) -> None:
        self._streams.flush_others()
        self._out.wrote = self._err.wrote = False
        for stream in self._streams.own:
            try:
                io.TextIOWrapper.flush(stream)  # a job may have replaced the method
            except (OSError, ValueError):  # the disk is full, or the job closed it
                self._restore_streams()
                return

    def collect(self, job_id: str, attempt: int) -> int:
        """Make the output the log of this job. Returns the bytes printed, 0 if the disk fails."""
        return self._move(log_path(self._directory, job_id), f"--- attempt {attempt} ---")

    def collect_setup(self) -> None:
        """Store what the import and `setup()` have printed, which belongs to no job. The present streams become
        those of all jobs."""
        self._streams.keep()
        self._note_streams()
        if self.size(1.0):
            self._move(stray_path(self._directory, self._worker), STRAY_HEADING)

    def _move(self, path: str, heading: str) -> int:
        try:
            size = move(self._path, path, heading, self._limit)
            self._open()
            return size
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._scratch, 0)
            return 0

    def close(self) -> None:
        """Before the process exits: remove the scratch file if nothing was printed."""
        if self.size(1.0) == 0:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def _flags(descriptor: int) -> int:
    """The flags that it was opened with, a cheap check whether it is the same file; -1 if closed."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GETFL)
    except OSError:
        return -1


def _open_nothing(number: int) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor != number:
            os.dup2(descriptor, number)
            os.close(descriptor)
