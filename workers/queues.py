"""The ends of the queues: one private pair of pipes for each worker process, never shared, never reused.

What goes through them are frames (`workers.frames`) of messages (`workers.messages`); this
room only moves bytes. At the supervisor's end nothing blocks, so a worker that is stopped in
the middle of a message holds up nobody; at the worker's end reads and writes block. No lock is
shared with the supervisor: a process that is killed at any instant leaves at worst a torn
frame, which the reader reports as `TornFrame`.

All limits are in bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import select
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from workers import descriptors
from workers.descriptors import Reading
from workers.fence import Fence
from workers.frames import HEAD, LENGTH, MARK, Bytes, FrameReader, QueueError, frame
from workers.messages import FromWorker, ToWorker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

READ_SIZE = 1 << 20
SMALL_READ = 1 << 15  # what is made of this many bytes of small messages fits into a cache
_MAX_VECTOR = 512  # pieces for one writev; the system's limit is at least 1,024
_KEEP_BUFFER = 1 << 20  # an encoding buffer larger than this is not kept

PIPE_BUF = select.PIPE_BUF  # what the system writes to a pipe in one piece
_ONE_BYTE = HEAD + 256  # bytes of a frame: below, one byte tells its length
# Only pipes answer it. Elsewhere nothing does, and it is asked in the dear way.
_PIPE_SIZE = getattr(fcntl, "F_GETPIPE_SZ", -1)
_encode_aside = msgspec.msgpack.Encoder().encode


class QueueClosed(QueueError):
    """The stream ended between two frames, or the reader of it has gone."""


def pipe_pair() -> tuple[Connection, Connection]:
    """(reader, writer): a one-way pipe of multiprocessing, close-on-exec at both ends."""
    from multiprocessing import Pipe

    return Pipe(duplex=False)


def pipe_room(worker: int) -> int:
    """How much each pipe of a worker may hold, by its slot; 0: what pipes hold anyway.

    Linux lets a user have 64 MB in pipes. Beyond that it makes each new one hold two pages, those
    of other programs and of our jobs as well, so that we leave them a good part of it.
    """
    return READ_SIZE if worker < 8 else READ_SIZE >> 3 if worker < 48 else 0


def enlarge(descriptor: int, room: int) -> None:
    """Let a pipe hold that much, where the system can and allows it."""
    command = getattr(fcntl, "F_SETPIPE_SZ", None)
    if room and command is not None:
        with contextlib.suppress(OSError):  # over the user's share of pipe memory
            fcntl.fcntl(descriptor, command, room)


class Outbox:
    """The supervisor's end of what a worker says: reads without blocking.

    `read` returns decoded messages. `ended` is true once the stream is over, `pressing` if
    there was as much to read as fits, or half a message: more should be read at once.
    """

    # One buffer serves all outboxes: messages are decoded before the next read, and the
    # decoder copies what it keeps. In front there is room for the head of a msgpack array.
    _room = bytearray(HEAD + READ_SIZE)
    _buffer = memoryview(_room)
    _decode = msgspec.msgpack.Decoder(FromWorker).decode
    _decode_many = msgspec.msgpack.Decoder(list[int | FromWorker]).decode

    def __init__(self, descriptor: int, room: int = READ_SIZE) -> None:
        os.set_blocking(descriptor, False)
        enlarge(descriptor, room)
        self._file = io.FileIO(descriptor, "r", closefd=False)
        self._reader = FrameReader()
        self._writer_is_dead = False
        self.ended = False
        self.pressing = False

    def no_more_is_coming(self) -> None:
        """The writer is dead: an empty pipe is the end, though a process that it has left
        behind may still hold the other side open."""
        self._writer_is_dead = True

    def read(self) -> list[FromWorker]:
        """What has arrived, a part of it if that is much; empty if nothing has.

        Raises QueueError if the bytes are not messages; those before them were said by jobs
        that are not to blame, and are its `before`. A torn end is dropped (the worker died in
        the middle of it) and shows only as `ended`.
        """
        self.pressing = False
        most = min(READ_SIZE, max(SMALL_READ, self._reader.missing))
        try:
            size = self._file.readinto(self._buffer[HEAD : HEAD + most])
        except OSError:
            size = 0
        if size is None:
            self.ended = self._writer_is_dead
            return []
        if size == 0:
            self.ended = True
            return []
        messages = self._messages(size)
        self.pressing = size == most or self._reader.inside
        return messages

    def _messages(self, size: int) -> list[FromWorker]:
        """What so many bytes in the buffer say."""
        reader = self._reader
        view = self._buffer[HEAD : HEAD + size]
        first, start = reader.resume(view)
        messages = [] if first is None else self._one_by_one([first], [])
        stop, count = reader.guess(self._room, HEAD + start, HEAD + size)
        stop -= HEAD
        found = self._many(start, stop, count)
        if found is None or not reader.is_part(view[stop:]):  # a large one, or one that is none
            stop, count = reader.walk(view, start)
            found = self._many(start, stop, count)
        if found is None:
            payloads = FrameReader().feed(view[start:stop])
            found = self._one_by_one(payloads, messages)
        else:
            found = messages + found
        reader.keep(view[stop:])
        if reader.bad is not None:
            reader.bad.before = found
            raise reader.bad
        return found

    def _many(self, start: int, stop: int, count: int) -> list[FromWorker] | None:
        """So many frames between two places, decoded in one call; None if that cannot be done.

        Lengths and payloads are read in turn, as one array. Its head takes the place of what
        was used already, or of the room in front.
        """
        if not count:
            return [] if start == stop else None
        self._buffer[start : start + HEAD] = b"\xdd%b" % (2 * count).to_bytes(4, "big")
        try:
            found: list[Any] = self._decode_many(self._buffer[start : HEAD + stop])
            whole = sum(found[::2]) + count * HEAD == stop - start
        except (msgspec.MsgspecError, TypeError):
            return None
        return found[1::2] if whole else None

    def _one_by_one(self, payloads: list[Bytes], messages: list[FromWorker]) -> list[FromWorker]:
        for payload in payloads:
            try:
                messages.append(self._decode(payload))
            except msgspec.MsgspecError as error:
                wrong = QueueError(f"a message cannot be decoded: {error}")
                wrong.before = messages
                raise wrong from error
        return messages


class FrameWriter:
    """The supervisor's end of what a worker is told: writes what fits, keeps the rest."""

    _encode = msgspec.msgpack.Encoder().encode

    def __init__(self, descriptor: int, room: int = READ_SIZE) -> None:
        os.set_blocking(descriptor, False)
        enlarge(descriptor, room)  # or a batch of leases would arrive in pieces, one a turn of the loop
        self._descriptor = descriptor
        self._pieces: deque[memoryview] = deque()
        self._reader = -1  # a reader of our own, which nobody reads from
        self.broken = False  # nobody reads any more

    def send(self, message: msgspec.Struct) -> bool:
        """Write a message as far as it fits; true if something is left for `flush`."""
        payload = self._encode(message)
        if len(payload) < 4096:
            self._pieces.append(memoryview(frame(payload)))
        else:
            self._pieces.append(memoryview(LENGTH.pack(MARK, len(payload))))
            self._pieces.append(memoryview(payload))
        return self.flush()

    @property
    def pressing(self) -> bool:
        """Whether something is left for `flush`."""
        return bool(self._pieces)

    def flush(self) -> bool:
        """Write what fits; true if something is left."""
        pieces = self._pieces
        while pieces and not self.broken:
            batch = [pieces[i] for i in range(min(len(pieces), _MAX_VECTOR))]
            try:
                written = os.writev(self._descriptor, batch)
            except BlockingIOError:
                return True
            except OSError as error:
                if isinstance(error, BrokenPipeError) and self._wait_for_reader():
                    continue
                self.broken = True
                break
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.popleft())
            if written:
                pieces[0] = pieces[0][written:]
        pieces.clear()
        return False

    def _wait_for_reader(self) -> bool:
        """A job may have closed the other end without knowing; the worker will open it again. Keep
        what is in the pipe meanwhile; false where that cannot be done."""
        if self._reader >= 0:
            return False
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            self._reader = os.open(f"/proc/self/fd/{self._descriptor}", flags)
        return self._reader >= 0

    def close(self) -> None:
        """What is open beside the descriptor itself."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1


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
        self._buffer = bytearray(LENGTH.pack(MARK, 0))
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
            LENGTH.pack_into(buffer, 0, MARK, size - HEAD)
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
            LENGTH.pack_into(self._buffer, 0, MARK, 0)

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
