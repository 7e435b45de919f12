"""Frames over pipes: one private pair of queues for each worker process, never shared, never reused.

A frame is four bytes of length (big-endian) and a msgpack payload. What may be in a payload
is in `workers.messages`; this room only moves bytes. At the supervisor's end nothing blocks,
so a worker that is stopped in the middle of a message holds up nobody; at the worker's end
reads and writes block. There is no lock in here: a process that is killed at any instant
leaves at worst a torn frame, which the reader reports as `TornFrame`.

All limits are in bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import struct
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from workers.messages import FromWorker, ToWorker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LENGTH = struct.Struct(">I")
MAX_FRAME = 1 << 30
READ_SIZE = 1 << 20
_MAX_VECTOR = 512  # pieces for one writev; the system's limit is at least 1,024
_KEEP_BUFFER = 1 << 20  # an encoding buffer larger than this is not kept

Bytes = bytes | bytearray | memoryview


class QueueError(Exception):
    """The other side of a queue cannot be understood, or is gone."""


class TornFrame(QueueError):
    """The stream ended in the middle of a frame."""


class BadFrame(QueueError):
    """A frame announces a length that no message has."""


class QueueClosed(QueueError):
    """The stream ended between two frames, or the reader of it has gone."""


def pipe_pair() -> tuple[Connection, Connection]:
    """(reader, writer): a one-way pipe of multiprocessing, close-on-exec at both ends."""
    from multiprocessing import Pipe

    return Pipe(duplex=False)


def enlarge(descriptor: int) -> None:
    """Let a pipe hold as much as one read takes, where the system can and allows it."""
    command = getattr(fcntl, "F_SETPIPE_SZ", None)
    if command is not None:
        with contextlib.suppress(OSError):  # over the user's share of pipe memory
            fcntl.fcntl(descriptor, command, READ_SIZE)


def frame(payload: bytes) -> bytes:
    """One payload as a frame."""
    return LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames.

    A frame that arrives in pieces is assembled in a buffer of its final size, so that the
    cost stays linear in its length.
    """

    __slots__ = ("_body", "_filled", "_header")

    def __init__(self) -> None:
        self._header = b""  # a part of a frame's length
        self._body: bytearray | None = None  # the frame that is being assembled
        self._filled = 0

    def feed(self, data: Bytes) -> list[Bytes]:
        """The payloads that `data` completes; views into `data` are valid as long as it is.

        Raises BadFrame if the stream cannot be one of frames.
        """
        view = memoryview(data)
        frames: list[Bytes] = []
        at = self._continue(view, frames) if self._body is not None or self._header else 0
        end = len(view)
        unpack = LENGTH.unpack_from
        while end - at >= 4:
            stop = at + 4 + unpack(view, at)[0]
            if stop > end:
                break
            frames.append(view[at + 4 : stop])
            at = stop
        if at < end:
            self._begin(view[at:])
        return frames

    def _begin(self, rest: memoryview) -> None:
        """Keep the first part of a frame until the others arrive."""
        if len(rest) < 4:
            self._header = bytes(rest)
            return
        length = LENGTH.unpack_from(rest)[0]
        if length > MAX_FRAME:
            raise BadFrame(f"a frame of {length} bytes was announced, the limit is {MAX_FRAME}")
        self._body = bytearray(length)
        self._filled = len(rest) - 4
        self._body[: self._filled] = rest[4:]

    def _continue(self, view: memoryview, frames: list[Bytes]) -> int:
        """Go on with a frame that earlier bytes began; how much of `view` was used."""
        at = 0
        if self._header:
            at = min(4 - len(self._header), len(view))
            header = self._header + bytes(view[:at])
            self._header = b""
            self._begin(memoryview(header))
        if self._body is None:
            return at
        part = view[at : at + len(self._body) - self._filled]
        self._body[self._filled : self._filled + len(part)] = part
        self._filled += len(part)
        if self._filled == len(self._body):
            frames.append(self._body)
            self._body = None
        return at + len(part)

    def close(self) -> None:
        """The stream has ended. Raises TornFrame if a frame was not complete."""
        if self._body is not None:
            raise TornFrame(f"the stream ended after {self._filled} of {len(self._body)} bytes of a frame")
        if self._header:
            raise TornFrame("the stream ended within the length of a frame")


class Outbox:
    """The supervisor's end of what a worker says: reads without blocking.

    `read` returns decoded messages. `ended` is true once the stream is over.
    """

    # One buffer serves all outboxes: messages are decoded before the next read, and the
    # decoder copies what it keeps.
    _buffer = memoryview(bytearray(READ_SIZE))
    _decode = msgspec.msgpack.Decoder(FromWorker).decode

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        enlarge(descriptor)
        self._file = io.FileIO(descriptor, "r", closefd=False)
        self._reader = FrameReader()
        self._writer_is_dead = False
        self.ended = False

    def no_more_is_coming(self) -> None:
        """The writer is dead: an empty pipe is the end, though a process that it has left
        behind may still hold the other side open."""
        self._writer_is_dead = True

    def read(self) -> list[FromWorker]:
        """What has arrived, at most 1 MB of it; empty if nothing has.

        Raises QueueError if the bytes are not messages; a torn end is dropped (the worker
        died in the middle of it) and shows only as `ended`.
        """
        try:
            size = self._file.readinto(self._buffer)
        except OSError:
            size = 0
        if size is None:
            self.ended = self._writer_is_dead
            return []
        if size == 0:
            self.ended = True
            return []
        decode = self._decode
        try:
            return [decode(payload) for payload in self._reader.feed(self._buffer[:size])]
        except msgspec.MsgspecError as error:
            raise QueueError(f"a message cannot be decoded: {error}") from error


class FrameWriter:
    """The supervisor's end of what a worker is told: writes what fits, keeps the rest."""

    _encode = msgspec.msgpack.Encoder().encode

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._pieces: deque[memoryview] = deque()
        self.broken = False  # nobody reads any more

    def send(self, message: msgspec.Struct) -> bool:
        """Write a message as far as it fits; true if something is left for `flush`."""
        payload = self._encode(message)
        if len(payload) < 4096:
            self._pieces.append(memoryview(LENGTH.pack(len(payload)) + payload))
        else:
            self._pieces.append(memoryview(LENGTH.pack(len(payload))))
            self._pieces.append(memoryview(payload))
        return self.flush()

    def flush(self) -> bool:
        """Write what fits; true if something is left."""
        pieces = self._pieces
        while pieces and not self.broken:
            batch = [pieces[i] for i in range(min(len(pieces), _MAX_VECTOR))]
            try:
                written = os.writev(self._descriptor, batch)
            except BlockingIOError:
                return True
            except OSError:
                self.broken = True
                break
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.popleft())
            if written:
                pieces[0] = pieces[0][written:]
        pieces.clear()
        return False


class WorkerQueues:
    """The worker's ends: `send` and `receive` block, `readable` does not."""

    def __init__(self, inbox: int, outbox: int) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._reader = FrameReader()
        self._payloads: deque[Bytes] = deque()
        self._decode = msgspec.msgpack.Decoder(ToWorker).decode
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        self._buffer = bytearray(4)
        self._poll = select.poll()
        self._poll.register(inbox, select.POLLIN)

    def send(self, message: FromWorker) -> None:
        """Write one message; returns when all of it is in the pipe. Raises QueueClosed."""
        buffer = self._buffer
        self._encode_into(message, buffer, 4)
        size = len(buffer)
        LENGTH.pack_into(buffer, 0, size - 4)
        try:
            written = os.write(self._outbox, buffer)
            while written < size:
                written += os.write(self._outbox, memoryview(buffer)[written:])
        except OSError as error:
            raise QueueClosed(f"the supervisor does not listen any more: {error}") from error
        if size > _KEEP_BUFFER:
            self._buffer = bytearray(4)

    def receive_payload(self) -> Bytes:
        """The next frame, as it is. Raises QueueClosed at the end of the stream."""
        while not self._payloads:
            try:
                data = os.read(self._inbox, READ_SIZE)
            except OSError as error:  # a job has closed all descriptors
                raise QueueClosed(f"the queue cannot be read: {error}") from error
            if not data:
                self._reader.close()
                raise QueueClosed("the supervisor has closed the queue")
            self._payloads.extend(self._reader.feed(data))
        return self._payloads.popleft()

    def receive(self) -> ToWorker:
        """The next message; waits for it. Raises QueueClosed at the end of the stream."""
        message: ToWorker = self._decode(self.receive_payload())
        return message

    def readable(self) -> bool:
        """Whether `receive` has something to begin with."""
        return bool(self._payloads) or bool(self._poll.poll(0))
