"""The ends of the queues: one private pair of pipes for each worker process, never shared, never reused.

What goes through them are frames (`workers.transport.frames`) of messages (`workers.transport.messages`); this
room only moves bytes. At the supervisor's end nothing blocks, so a worker that is stopped in
the middle of a message holds up nobody; at the worker's end reads and writes block. No lock is
shared with the supervisor: a process that is killed at any instant leaves at worst a torn
frame, which the reader reports as `TornFrame`.

All limits are in bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from workers.transport.frames import HEAD, LENGTH, UINT32_TYPE, Bytes, FrameReader, QueueError, frame
from workers.transport.messages import FromWorker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


READ_SIZE = 1 << 20

SMALL_READ = 1 << 15  # what is made of this many bytes of small messages fits into a cache

_MAX_VECTOR = 512  # pieces for one writev; the system's limit is at least 1,024


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
            self._pieces.append(memoryview(LENGTH.pack(UINT32_TYPE, len(payload))))
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
