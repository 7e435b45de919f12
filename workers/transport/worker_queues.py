"""The worker's ends of its queues, private to one worker process and never reused.

The pipes carry frames (`workers.transport.frames`) of messages (`workers.transport.messages`). Reads and writes
block here. A job may close the pipes, or put files of its own in their place: both ends are checked, and
opened again through the supervisor's ends. The supervisor's side is in `workers.transport.supervisor_queues`.
All limits are in bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import threading
from collections import deque
from functools import partial

import msgspec

from workers.process import descriptors
from workers.process.descriptors import FileIdentity, Probe
from workers.transport.frames import (
    HEAD,
    LENGTH,
    READ_SIZE,
    UINT32_TYPE,
    Bytes,
    FrameReader,
    QueueClosed,
    frame,
)
from workers.transport.messages import FromWorker, ToWorker

_KEEP_BUFFER = 1 << 20  # an encoding buffer larger than this is not kept

PIPE_BUF = select.PIPE_BUF  # what the system writes to a pipe in one piece

_ONE_BYTE = HEAD + 256  # bytes of a frame: below, one byte tells its length

# Only pipes answer this call. -1 where the system does not have it: then `is_ours` is asked, which costs more.
_PIPE_SIZE = getattr(fcntl, "F_GETPIPE_SZ", -1)

_encode_aside = msgspec.msgpack.Encoder().encode


class WorkerQueues:
    """The worker's ends: `send` and `receive` block, `readable` does not.

    crowded: when `readable` was last called, the watched descriptor number was in use.
    """

    # Made once, before workers are forked: it takes half a millisecond.
    _decode = msgspec.msgpack.Decoder(ToWorker).decode

    def __init__(self, inbox: int, outbox: int) -> None:
        self._inbox = inbox
        self._outbox = outbox
        for descriptor in (inbox, outbox):
            descriptors.register(descriptor)
        self._reader = FrameReader()
        self._payloads: deque[Bytes] = deque()
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        self._buffer = bytearray(LENGTH.pack(UINT32_TYPE, 0))
        self._poll = select.poll()
        self._poll.register(inbox, select.POLLIN)
        self._watched_descriptor = -1
        self._poll_when_idle: list[tuple[int, int]] = []  # the result of poll when nothing has arrived
        self.crowded = False
        self._write_lock = WriteLock(outbox)
        self._files = descriptors.identity_of(inbox), descriptors.identity_of(outbox)
        self._reopen_source: tuple[int, int, int] | None = None

    def set_reopen_source(self, pid: int, inbox: int, outbox: int) -> None:
        """Where both pipes can be opened again: descriptors of the other ends in process `pid`."""
        self._reopen_source = (pid, inbox, outbox)

    def reopen_if_lost(self) -> None:
        """Check both ends after code of the user has run, and open again what it has closed or replaced.
        Raises QueueClosed if that cannot be done."""
        self._reopen_inbox_if_lost()
        self._reopen_outbox_if_lost()

    def reopen_unless_pipes(self) -> None:
        """The same at a tenth of the cost, enough not to write into a user's file: finds everything that
        has taken the number of an end, except another pipe."""
        try:
            fcntl.fcntl(self._inbox, _PIPE_SIZE)
            fcntl.fcntl(self._outbox, _PIPE_SIZE)
        except OSError:
            self.reopen_if_lost()

    def probe(self) -> Probe:
        """The check of the outbox in `reopen_unless_pipes`, as a `Probe` for `ProcessState.set_probes`."""
        if _PIPE_SIZE < 0:
            return partial(descriptors.is_ours, self._outbox, self._files[1]), True
        size = partial(fcntl.fcntl, self._outbox, _PIPE_SIZE)
        return size, size()

    def files(self) -> dict[int, FileIdentity]:
        """The descriptors of both ends, and which files those are."""
        return dict(zip((self._inbox, self._outbox), self._files, strict=True))

    def _reopen_inbox_if_lost(self) -> None:
        """Raises QueueClosed."""
        if not descriptors.is_ours(self._inbox, self._files[0]):
            self._poll.unregister(self._inbox)
            self._inbox = self._reopen(self._inbox, 0, os.O_RDONLY)
            self._poll.register(self._inbox, select.POLLIN)

    def _reopen_outbox_if_lost(self) -> None:
        if not descriptors.is_ours(self._outbox, self._files[1]):
            self._outbox = self._write_lock.outbox = self._reopen(self._outbox, 1, os.O_WRONLY)

    def _reopen(self, lost: int, which: int, mode: int) -> int:
        descriptors.release(lost, self._files[which])
        if self._reopen_source is None:
            raise QueueClosed("a job has closed the queue")
        try:
            place = f"/proc/{self._reopen_source[0]}/fd/{self._reopen_source[1 + which]}"
            opened = os.open(place, mode | os.O_NONBLOCK | os.O_CLOEXEC)
            if descriptors.identity_of(opened) != self._files[which]:
                os.close(opened)
                raise OSError("the number leads to another file now")
            os.set_blocking(opened, True)
            return descriptors.claim(opened, lost)
        except OSError as error:
            raise QueueClosed(
                f"a job has closed the queue, and it cannot be opened again: {error}"
            ) from error

    def close_in_child(self) -> None:
        """In a forked child: close all private descriptors. `send_aside` opens the outbox again."""
        if self._reopen_source is not None:
            descriptors.release_all()
        self._write_lock.reset_in_child()

    def send(self, message: FromWorker) -> None:
        """Write one message; returns when all of it is in the pipe. Raises QueueClosed."""
        buffer = self._buffer
        self._encode_into(message, buffer, HEAD)
        size = len(buffer)
        if size < _ONE_BYTE:  # the other bytes of the length stay zero
            buffer[HEAD - 1] = size - HEAD
        else:
            LENGTH.pack_into(buffer, 0, UINT32_TYPE, size - HEAD)
        try:
            if size <= PIPE_BUF:  # the system writes it in one piece
                os.write(self._outbox, buffer)
            else:
                self._reopen_outbox_if_lost()
                self._send_long(buffer)
        except OSError as error:
            if error.errno == errno.EBADF and size <= PIPE_BUF:  # a short job has closed it
                self._reopen_outbox_if_lost()
                self.send(message)
                return
            raise QueueClosed(f"the supervisor has closed the queue: {error}") from error
        if size >= _ONE_BYTE:
            if size > _KEEP_BUFFER:
                self._buffer = bytearray(HEAD)
            LENGTH.pack_into(self._buffer, 0, UINT32_TYPE, 0)

    def _send_long(self, buffer: bytearray) -> None:
        """No other thread or child may write before the whole frame is in the pipe."""
        with self._write_lock:
            view = memoryview(buffer)
            while view:
                view = view[os.write(self._outbox, view) :]

    def send_aside(self, message: FromWorker) -> bool:
        """Write a small message from any thread, signal handler or forked child. False, and nothing is
        written, if that would block, or if the frame is larger than PIPE_BUF."""
        framed = frame(_encode_aside(message))
        try:
            self._reopen_outbox_if_lost()
        except QueueClosed:
            return False
        if len(framed) > PIPE_BUF or not self._write_lock.try_enter():
            return False
        try:
            poll = select.poll()
            poll.register(self._outbox, select.POLLOUT)
            # Room for PIPE_BUF bytes: a write of that size does not wait.
            if [event for _, event in poll.poll(0)] != [select.POLLOUT]:
                return False
            os.write(self._outbox, framed)
        except OSError:  # the supervisor has died; the next `send` raises
            return False
        finally:
            self._write_lock.leave()
        return True

    def receive_payload(self) -> Bytes:
        """The payload of the next frame. Raises QueueClosed at the end of the stream."""
        while not self._payloads:
            try:
                data = os.read(self._inbox, READ_SIZE)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise QueueClosed(f"the queue cannot be read: {error}") from error
                self._reopen_inbox_if_lost()  # a short job has closed all descriptors
                continue
            if not data:
                self._reader.close()
                raise QueueClosed("the supervisor has closed the queue")
            self._payloads.extend(self._reader.feed(data))
        return self._payloads.popleft()

    def receive(self) -> ToWorker:
        """The next message; waits for it. Raises QueueClosed at the end of the stream."""
        message: ToWorker = self._decode(self.receive_payload())
        return message

    def watch_descriptor(self, number: int) -> None:
        """Let `readable` notice when a descriptor has this number. New descriptors get the lowest free
        number, so then many are open. The check is free: it is part of polling the inbox."""
        self._poll.register(number, 0)
        self._watched_descriptor = number
        self._poll_when_idle = [(number, select.POLLNVAL)]

    def readable(self) -> bool:
        """Whether `receive` has something to begin with."""
        polled = self._poll.poll(0)
        if polled == self._poll_when_idle:
            self.crowded = False
            return bool(self._payloads)
        self._reopen_inbox_if_lost()  # a job may have opened another file under its number
        found = dict(self._poll.poll(0))
        if self._watched_descriptor >= 0:
            self.crowded = not found.pop(self._watched_descriptor, 0) & select.POLLNVAL
        return bool(self._payloads or found)


class WriteLock:
    """Keeps `WorkerQueues.send_aside` from writing into the middle of a long frame.

    A lock excludes other threads. A record lock of the system on the pipe excludes forked children; it is
    released when its holder dies. `send_aside` waits for neither: the holder may be the thread that a signal
    handler has interrupted.
    """

    def __init__(self, outbox: int) -> None:
        self.outbox = outbox
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        with contextlib.suppress(OSError):  # this system locks no pipes
            fcntl.lockf(self.outbox, fcntl.LOCK_EX)

    def __exit__(self, *exception: object) -> None:
        self.leave()

    def try_enter(self) -> bool:
        """Acquire both locks without waiting; false if one is taken."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            fcntl.lockf(self.outbox, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES) or os.getpid() != self._owner:
                self._lock.release()
                return False
        return True

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            fcntl.lockf(self.outbox, fcntl.LOCK_UN)
        self._lock.release()

    def reset_in_child(self) -> None:
        """In a forked child: a new lock, since another thread of the parent may have held it."""
        self._lock = threading.Lock()
