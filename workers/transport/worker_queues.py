"""The ends of the queues: one private pair of pipes for each worker process, never shared, never reused.

What goes through them are frames (`workers.transport.frames`) of messages (`workers.transport.messages`); this
room only moves bytes. At the supervisor's end nothing blocks, so a worker that is stopped in
the middle of a message holds up nobody; at the worker's end reads and writes block. No lock is
shared with the supervisor: a process that is killed at any instant leaves at worst a torn
frame, which the reader reports as `TornFrame`.

All limits are in bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections import deque
from functools import partial

import msgspec

from workers.process import descriptors
from workers.process.descriptors import Reading
from workers.transport.frames import HEAD, LENGTH, UINT32_TYPE, Bytes, FrameReader, frame
from workers.transport.messages import FromWorker, ToWorker
from workers.transport.pipes import READ_SIZE, QueueClosed
from workers.transport.write_lock import Fence

_KEEP_BUFFER = 1 << 20  # an encoding buffer larger than this is not kept

PIPE_BUF = select.PIPE_BUF  # what the system writes to a pipe in one piece

_ONE_BYTE = HEAD + 256  # bytes of a frame: below, one byte tells its length

# Only pipes answer it. Elsewhere nothing does, and it is asked in the dear way.
_PIPE_SIZE = getattr(fcntl, "F_GETPIPE_SZ", -1)

_encode_aside = msgspec.msgpack.Encoder().encode


class WorkerQueues:
    """The worker's ends: `send` and `receive` block, `readable` does not.

    crowded: at the last look of `readable` the reserved number was in use.
    """

    # Made once, before workers are forked: it takes half a millisecond.
    _decode = msgspec.msgpack.Decoder(ToWorker).decode

    def __init__(self, inbox: int, outbox: int) -> None:
        self._inbox = inbox
        self._outbox = outbox
        for descriptor in (inbox, outbox):
            descriptors.know(descriptor)
        self._reader = FrameReader()
        self._payloads: deque[Bytes] = deque()
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        self._buffer = bytearray(LENGTH.pack(UINT32_TYPE, 0))
        self._poll = select.poll()
        self._poll.register(inbox, select.POLLIN)
        self._reserve = -1
        self._usual: list[tuple[int, int]] = []  # what poll finds when there is nothing to find
        self.crowded = False
        self._fence = Fence(outbox)
        self._files = descriptors.file_of(inbox), descriptors.file_of(outbox)
        self._elsewhere: tuple[int, int, int] | None = None

    def found_at(self, pid: int, inbox: int, outbox: int) -> None:
        """Where both pipes can be opened again: their other ends in the supervisor."""
        self._elsewhere = (pid, inbox, outbox)

    def hold(self) -> None:
        """Know both to be ours: to be called when code of others has run. What it has closed or put
        something else in the place of is opened again. Raises QueueClosed if it cannot be."""
        self._hold_inbox()
        self._hold_outbox()

    def hold_as_pipes(self) -> None:
        """The same at a tenth of the cost, as far as it takes to write into no file: what has taken
        the number of one of ours is found, unless it is another pipe."""
        try:
            fcntl.fcntl(self._inbox, _PIPE_SIZE)
            fcntl.fcntl(self._outbox, _PIPE_SIZE)
        except OSError:
            self.hold()

    def reading(self) -> Reading:
        """What `hold_as_pipes` asks of the outbox, for others to ask together with questions of their own."""
        if _PIPE_SIZE < 0:
            return partial(descriptors.is_ours, self._outbox, self._files[1]), True
        size = partial(fcntl.fcntl, self._outbox, _PIPE_SIZE)
        return size, size()

    def _hold_inbox(self) -> None:
        """So that what is read was meant for us. Raises QueueClosed."""
        if not descriptors.is_ours(self._inbox, self._files[0]):
            self._poll.unregister(self._inbox)
            self._inbox = self._another(self._inbox, 0, os.O_RDONLY)
            self._poll.register(self._inbox, select.POLLIN)

    def _hold_outbox(self) -> None:
        if not descriptors.is_ours(self._outbox, self._files[1]):
            self._outbox = self._fence.outbox = self._another(self._outbox, 1, os.O_WRONLY)

    def _another(self, lost: int, which: int, mode: int) -> int:
        descriptors.let_go(lost, self._files[which])
        if self._elsewhere is None:
            raise QueueClosed("a job has closed the queue")
        try:
            place = f"/proc/{self._elsewhere[0]}/fd/{self._elsewhere[1 + which]}"
            opened = os.open(place, mode | os.O_NONBLOCK | os.O_CLOEXEC)
            if descriptors.file_of(opened) != self._files[which]:
                os.close(opened)
                raise OSError("it is another one")
            os.set_blocking(opened, True)
            return descriptors.keep(opened, lost)
        except OSError as error:
            raise QueueClosed(
                f"a job has closed the queue, and it cannot be opened again: {error}"
            ) from error

    def leave_to_parent(self) -> None:
        """In a fork: nothing of ours is open there. A report opens the way for itself."""
        if self._elsewhere is not None:
            descriptors.let_go_of_all()
        self._fence.in_child()

    def send(self, message: FromWorker) -> None:
        """Write one message; returns when all of it is in the pipe. Raises QueueClosed."""
        buffer = self._buffer
        self._encode_into(message, buffer, HEAD)
        size = len(buffer)
        if size < _ONE_BYTE:  # the rest of the length is zero, and stays so
            buffer[HEAD - 1] = size - HEAD
        else:
            LENGTH.pack_into(buffer, 0, UINT32_TYPE, size - HEAD)
        try:
            if size <= PIPE_BUF:  # the system writes it in one piece, whoever else writes
                os.write(self._outbox, buffer)
            else:
                self._hold_outbox()
                self._send_long(buffer)
        except OSError as error:
            if error.errno == errno.EBADF and size <= PIPE_BUF:  # a short job has closed it
                self._hold_outbox()
                self.send(message)
                return
            raise QueueClosed(f"the supervisor does not listen any more: {error}") from error
        if size >= _ONE_BYTE:
            if size > _KEEP_BUFFER:
                self._buffer = bytearray(HEAD)
            LENGTH.pack_into(self._buffer, 0, UINT32_TYPE, 0)

    def _send_long(self, buffer: bytearray) -> None:
        """Nobody else may write while a part of the frame is in the pipe and a part is not."""
        with self._fence:
            view = memoryview(buffer)
            while view:
                view = view[os.write(self._outbox, view) :]

    def send_aside(self, message: FromWorker) -> bool:
        """Write a small message from any thread, signal handler or forked child; false, and
        nothing is written, if it would have to wait, or is too large to go in one piece."""
        framed = frame(_encode_aside(message))
        try:
            self._hold_outbox()
        except QueueClosed:
            return False
        if len(framed) > PIPE_BUF or not self._fence.try_enter():
            return False
        try:
            poll = select.poll()
            poll.register(self._outbox, select.POLLOUT)
            # Room for PIPE_BUF bytes: a write of that size does not wait.
            if [event for _, event in poll.poll(0)] != [select.POLLOUT]:
                return False
            os.write(self._outbox, framed)
        except OSError:  # the supervisor has gone; the next `send` says so
            return False
        finally:
            self._fence.leave()
        return True

    def receive_payload(self) -> Bytes:
        """The next frame, as it is. Raises QueueClosed at the end of the stream."""
        while not self._payloads:
            try:
                data = os.read(self._inbox, READ_SIZE)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise QueueClosed(f"the queue cannot be read: {error}") from error
                self._hold_inbox()  # a short job has closed all descriptors
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

    def reserve(self, number: int) -> None:
        """No descriptor should have this number. Since a new one gets the lowest that is free,
        somebody who has it has left many open; to look costs nothing beside the look at the inbox."""
        self._poll.register(number, 0)
        self._reserve = number
        self._usual = [(number, select.POLLNVAL)]

    def readable(self) -> bool:
        """Whether `receive` has something to begin with."""
        polled = self._poll.poll(0)
        if polled == self._usual:
            self.crowded = False
            return bool(self._payloads)
        self._hold_inbox()  # what has come may be of a file that a job has opened in its place
        found = dict(self._poll.poll(0))
        if self._reserve >= 0:
            self.crowded = not found.pop(self._reserve, 0) & select.POLLNVAL
        return bool(self._payloads or found)
