"""What one worker prints, on its way from the node to the supervisor.

The agent reads the worker's scratch file while jobs print, and the rest of it when a job has ended. It keeps the
file open: what was a job's stays readable whatever becomes of its name.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque

import msgspec

from supervisor.nodes.shipping.file_messages import (
    FILE_COSTS,
    PIECE,
    LogEnds,
    Printed,
    StacksWritten,
    ZygotePrinted,
)
from workers.isolation.output_files import ZYGOTE_LOG, scratch_path, stacks_path, stray_path
from workers.transport.messages import WorkerSpec

# Bytes before the end of a dead worker's output that its engine may have written anew (`last_stack`).
_REWRITTEN = 300 << 10
NO_LEASE = -1


class _SentFile(msgspec.Struct):
    """A file that is being sent: what stands before `sent` is on the supervisor's disk, or left out."""

    descriptor: int
    sent: int = 0


class _EndedLog(msgspec.Struct):
    """The complete output of a job, in `path`, or of what was printed outside of any."""

    followed: _SentFile
    path: str
    lease: int
    attempt: int
    whole: bool


class OutputShipping:
    """The output of the worker with this spec. `messages` gives what is to be sent."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._incarnation = spec.incarnation
        self._limit = spec.output_limit
        self._scratch = scratch_path(spec.output_directory, spec.worker, spec.incarnation)
        self._stacks = stacks_path(spec.output_directory, spec.worker, spec.incarnation)
        self.stray = stray_path(spec.output_directory, spec.worker)
        self._stacks_sent = 0
        self._live: _SentFile | None = None
        self._logs: deque[_EndedLog] = deque()

    @property
    def waiting(self) -> bool:
        """Whether a log is not complete on the supervisor's disk."""
        return bool(self._logs)

    def waits_for(self, lease: int) -> bool:
        return any(log.lease == lease for log in self._logs)

    def ended(self, path: str, size: int, lease: int, attempt: int, *, dead: bool = False) -> None:
        """What a job has printed, `size` bytes, is complete: its worker, or for a dead one the engine, has made the
        log `path` of it."""
        live, whole = self._live, False
        if live is not None and _became(live.descriptor, path, size):
            self._live = None
            if dead:
                live.sent = max(0, min(live.sent, _size(live.descriptor)) - _REWRITTEN)
        else:
            try:
                followed = _SentFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:  # the disk of the node is full: it is lost, as here
                return
            if live is not None:  # of a later job, which has to wait for this one
                live.sent = 0
            live, whole = followed, size > self._limit
        self._logs.append(_EndedLog(live, path, lease, attempt, whole))

    def messages(self, most: int) -> list[Printed | LogEnds]:
        """About `most` bytes of what has not been sent."""
        found: list[Printed | LogEnds] = []
        while self._logs and most > 0:
            log = self._logs[0]
            most = self._read(log.followed, most, found, whole=log.whole)
            if log.followed.sent < _size(log.followed.descriptor):
                return found
            found.append(LogEnds(self._incarnation, log.lease, log.attempt, log.whole))
            most -= FILE_COSTS
            self._forget(self._logs.popleft())
        if self._logs:
            return found
        if self._live is not None and not os.fstat(self._live.descriptor).st_nlink:
            os.close(self._live.descriptor)  # of a job whose end was told without it
            self._live = None
        if self._live is None:
            self._live = self._open_scratch()
        if self._live is not None:
            self._read(self._live, most, found)
        return found

    def _open_scratch(self) -> _SentFile | None:
        try:
            if not os.stat(self._scratch).st_size:
                return None
            return _SentFile(os.open(self._scratch, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    def _read(
        self, file: _SentFile, most: int, found: list[Printed | LogEnds], *, whole: bool = False
    ) -> int:
        """Read on; how many bytes may still be read. Of what outgrows the limit only head and tail are sent."""
        size = _size(file.descriptor)
        if size < file.sent:  # a job has cut the file
            file.sent = 0
        head = self._limit // 2
        while most > 0 and file.sent < size:
            end = size
            if size > self._limit and not whole:
                tail = size - (self._limit - head)
                if head <= file.sent < tail:
                    file.sent = tail
                end = head if file.sent < head else size
            data = os.pread(file.descriptor, min(PIECE, end - file.sent), file.sent)
            if not data:
                break
            found.append(Printed(self._incarnation, file.sent, data))
            file.sent += len(data)
            most -= len(data)
        return most

    def _forget(self, log: _EndedLog) -> None:
        os.close(log.followed.descriptor)
        with contextlib.suppress(OSError):
            os.unlink(log.path)

    def stacks(self) -> list[StacksWritten]:
        """Stacks that were written since the last call."""
        try:
            with open(self._stacks, "rb") as file:
                file.seek(self._stacks_sent)
                data = file.read(PIECE)
        except OSError:
            return []
        self._stacks_sent += len(data)
        return [StacksWritten(self._incarnation, data)] if data else []

    def close(self) -> None:
        for log in self._logs:
            os.close(log.followed.descriptor)
        self._logs.clear()
        if self._live is not None:
            os.close(self._live.descriptor)
            self._live = None


class ZygoteOutput:
    """What the processes that fork the workers have printed: they leave it in `%zygote.log` when they end.

    here, there: the directory of the log on the node, and on the supervisor's machine.
    """

    def __init__(self, here: str, there: str) -> None:
        self._here, self._there = here, there
        self._sent = 0

    def read(self) -> list[ZygotePrinted]:
        """What has come since the last call, at most one piece."""
        try:
            with open(os.path.join(self._here, ZYGOTE_LOG), "rb") as file:
                file.seek(self._sent)
                data = file.read(PIECE)
        except OSError:
            return []
        self._sent += len(data)
        return [ZygotePrinted(data)] if data else []

    def as_there(self, text: str) -> str:
        """A text that names the log, for whoever reads it there."""
        return text.replace(self._here, self._there)


def _became(descriptor: int, path: str, size: int) -> bool:
    """Whether the scratch file became this log of `size` bytes: by its name alone, or cut to the limit. Many short jobs
    may have ended since it was opened."""
    status = os.fstat(descriptor)
    try:
        return os.path.samestat(status, os.stat(path)) or (status.st_nlink == 0 and status.st_size == size)
    except OSError:
        return False


def _size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size
