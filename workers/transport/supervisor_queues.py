"""The supervisor's ends of a worker's queues: one private pair of pipes for each worker process.

The pipes carry frames (`workers.transport.frames`) of messages (`workers.transport.messages`). Nothing here
blocks, so a worker that is stopped in the middle of a message delays nobody. Supervisor and worker share no
lock: a process that is killed at any instant leaves at worst a torn frame. The worker's ends are in
`workers.transport.worker_queues`. All limits are in bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from workers.transport.frames import (
    HEAD,
    LENGTH,
    READ_SIZE,
    UINT32_TYPE,
    Bytes,
    FrameReader,
    QueueError,
    frame,
)
from workers.transport.messages import FromWorker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


SMALL_READ = 1 << 15  # the objects made from so many bytes of small messages fit into the cache

_AT_ONCE = select.PIPE_BUF - HEAD  # a frame of so many bytes is written completely or not at all

_USUAL_ROOM = 1 << 16  # bytes that a pipe holds where the system does not say

_MAX_VECTOR = 512  # pieces for one writev; the system's limit is at least 1,024


def pipe_pair() -> tuple[Connection, Connection]:
    """(reader, writer): a one-way pipe of multiprocessing, close-on-exec at both ends."""
    from multiprocessing import Pipe

    return Pipe(duplex=False)


def pipe_room(worker: int) -> int:
    """Capacity of each pipe of a worker, by its slot; 0: the system's default.

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


def room_of(descriptor: int) -> int:
    """How many bytes a pipe holds."""
    command = getattr(fcntl, "F_GETPIPE_SZ", None)
    if command is not None:
        with contextlib.suppress(OSError):  # not a pipe
            return fcntl.fcntl(descriptor, command)
    return _USUAL_ROOM


class OutboxReader:
    """The supervisor's end of a worker's outbox: reads without blocking.

    `read` returns decoded messages. `ended` is true once the stream is over, `pressing` if
    there was as much to read as fits, or half a message: more should be read at once.
    """

    # One buffer serves all outboxes: messages are decoded before the next read, and the
    # decoder copies what it keeps. In front there is room for the head of a msgpack array.
    _memory = bytearray(HEAD + READ_SIZE)
    _buffer = memoryview(_memory)
    _decode = msgspec.msgpack.Decoder(FromWorker).decode
    _decode_sequence = msgspec.msgpack.Decoder(list[int | FromWorker]).decode

    def __init__(self, descriptor: int, room: int = READ_SIZE) -> None:
        os.set_blocking(descriptor, False)
        enlarge(descriptor, room)
        self.room = room_of(descriptor)  # bytes that it holds
        self._file = io.FileIO(descriptor, "r", closefd=False)
        self._reader = FrameReader()
        self._writer_is_dead = False
        self.ended = False
        self.pressing = False

    def writer_died(self) -> None:
        """From now on an empty pipe is the end of the stream, even if a process that the dead worker has
        started still has the other side open."""
        self._writer_is_dead = True

    def read(self) -> list[FromWorker]:
        """The messages that have arrived, at most READ_SIZE bytes of them; empty if none has.

        Raises QueueError if the bytes are not messages; its `before` has the good messages in front of
        them. A torn end is dropped (the worker died while it wrote) and shows only as `ended`.
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
        """The messages in the first `size` bytes of the buffer."""
        reader = self._reader
        if not reader.inside and reader.is_one(self._memory, HEAD, size):
            return self._decode_singly([self._buffer[2 * HEAD : HEAD + size]], [])
        view = self._buffer[HEAD : HEAD + size]
        first, start = reader.resume(view)
        messages = [] if first is None else self._decode_singly([first], [])
        stop, count = reader.guess(self._memory, HEAD + start, HEAD + size)
        stop -= HEAD
        found = self._decode_batch(start, stop, count)
        if found is None or not reader.is_part(view[stop:]):  # a large one, or one that is none
            stop, count = reader.walk(view, start)
            found = self._decode_batch(start, stop, count)
        if found is None:
            payloads = FrameReader().feed(view[start:stop])
            found = self._decode_singly(payloads, messages)
        else:
            found = messages + found
        reader.keep(view[stop:])
        if reader.bad is not None:
            reader.bad.before = found
            raise reader.bad
        return found

    def _decode_batch(self, start: int, stop: int, count: int) -> list[FromWorker] | None:
        """`count` frames between two offsets, decoded in one call; None if that cannot be done.

        Lengths and payloads are read in turn, as one array. Its head takes the place of what
        was used already, or of the room in front.
        """
        if not count:
            return [] if start == stop else None
        self._buffer[start : start + HEAD] = b"\xdd%b" % (2 * count).to_bytes(4, "big")
        try:
            found: list[Any] = self._decode_sequence(self._buffer[start : HEAD + stop])
            whole = sum(found[::2]) + count * HEAD == stop - start
        except (msgspec.MsgspecError, TypeError):
            return None
        return found[1::2] if whole else None

    def _decode_singly(self, payloads: list[Bytes], messages: list[FromWorker]) -> list[FromWorker]:
        for payload in payloads:
            try:
                messages.append(self._decode(payload))
            except msgspec.MsgspecError as error:
                wrong = QueueError(f"a message cannot be decoded: {error}")
                wrong.before = messages
                raise wrong from error
        return messages


class InboxWriter:
    """The supervisor's end of a worker's inbox: writes what fits, keeps the rest."""

    _encode = msgspec.msgpack.Encoder().encode

    def __init__(self, descriptor: int, room: int = READ_SIZE) -> None:
        os.set_blocking(descriptor, False)
        enlarge(descriptor, room)  # or a batch of leases would arrive in pieces, one a turn of the loop
        self._descriptor = descriptor
        self._pieces: deque[memoryview] = deque()
        self._reader = -1  # our own reading end, never read from
        self.broken = False  # the pipe has no reader any more

    def send(self, message: msgspec.Struct) -> bool:
        """Write a message as far as it fits; true if something is left for `flush`."""
        payload = self._encode(message)
        if len(payload) <= _AT_ONCE:
            whole = frame(payload)
            if not self._pieces and self._takes(whole):
                return False
            self._pieces.append(memoryview(whole))
        else:
            self._pieces.append(memoryview(LENGTH.pack(UINT32_TYPE, len(payload))))
            self._pieces.append(memoryview(payload))
        return self.flush()

    def _takes(self, whole: bytes) -> bool:
        """Whether the pipe takes a frame of at most PIPE_BUF bytes now, as it nearly always does."""
        try:
            return not self.broken and os.write(self._descriptor, whole) == len(whole)
        except OSError:
            return False  # `flush` finds the reason

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
                if isinstance(error, BrokenPipeError) and self._hold_reader_open():
                    continue
                self.broken = True
                break
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.popleft())
            if written:
                pieces[0] = pieces[0][written:]
        pieces.clear()
        return False

    def _hold_reader_open(self) -> bool:
        """Open the reading end here, so that the pipe keeps its content: a job may have closed it in the
        worker, which opens it again later. False where that cannot be done."""
        if self._reader >= 0:
            return False
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            self._reader = os.open(f"/proc/self/fd/{self._descriptor}", flags)
        return self._reader >= 0

    def close(self) -> None:
        """Close what was opened here; the descriptor itself belongs to the caller."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
