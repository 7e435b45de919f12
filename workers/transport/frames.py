"""Frames: how messages are written into a stream of bytes.

A frame is the length of its payload as a msgpack integer of five bytes, and a msgpack payload:
so a run of frames is a msgpack sequence, and many messages are decoded in one call. What may be
in a payload is in `workers.transport.messages`. No descriptor and no process enters here: the pipes
are read and written in `supervisor_queues` and `worker_queues`.

All limits are in bytes.
"""

from __future__ import annotations

import struct
from typing import Any

UINT32_TYPE = 0xCE  # the first byte of a 32-bit integer in msgpack
LENGTH = struct.Struct(">BI")  # UINT32_TYPE, then the integer
HEAD = LENGTH.size
MAX_FRAME = 1 << 30
READ_SIZE = 1 << 20  # of one read from a pipe
_SMALL = b"\xce\0\0"  # how a frame of less than 64 KB begins

Bytes = bytes | bytearray | memoryview


class QueueError(Exception):
    """The other side of a queue cannot be understood, or is gone.

    `before`: messages that had arrived whole before it.
    """

    before: list[Any] | None = None


class QueueClosed(QueueError):
    """The stream ended between two frames, or its reader has gone."""


class TornFrame(QueueError):
    """The stream ended in the middle of a frame."""


class BadFrame(QueueError):
    """A frame announces a length that no message has."""


def frame(payload: bytes) -> bytes:
    """One payload as a frame."""
    return LENGTH.pack(UINT32_TYPE, len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames.

    A frame that arrives in pieces is assembled in a buffer of its final size, so that the
    cost stays linear in its length.
    """

    __slots__ = ("_body", "_filled", "_header", "bad")

    def __init__(self) -> None:
        self.bad: BadFrame | None = None  # why nothing that follows can be a frame
        self._header = b""  # a part of a frame's length
        self._body: bytearray | None = None  # the frame that is being assembled
        self._filled = 0

    @property
    def inside(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return self._body is not None or bool(self._header)

    @property
    def missing(self) -> int:
        """How many bytes the frame that has begun still lacks, as far as that is known."""
        return 0 if self._body is None else len(self._body) - self._filled

    def resume(self, view: memoryview) -> tuple[Bytes | None, int]:
        """Go on with a frame that earlier bytes began: its payload if it is complete, and where
        in `view` the next one begins. `bad` is set if that cannot be a frame."""
        if not self.inside:
            return None, 0
        try:
            return self._continue(view)
        except BadFrame as error:
            self.bad = error
            return None, len(view)

    @staticmethod
    def is_one(room: bytearray, start: int, size: int) -> bool:
        """Whether `size` bytes from `start` on are exactly one frame."""
        return size >= HEAD and LENGTH.unpack_from(room, start) == (UINT32_TYPE, size - HEAD)

    @staticmethod
    def guess(room: bytearray, start: int, end: int) -> tuple[int, int]:
        """The end of the last whole frame in `room[start:end]`, and the number of frames, without a walk from
        frame to frame. Right if all frames are small and none contains the bytes that a small frame begins
        with. The caller checks that by decoding them."""
        last = room.rfind(_SMALL, start, end)
        if last < 0:
            return start, 0
        after = end + 1 if end - last < HEAD else last + HEAD + LENGTH.unpack_from(room, last)[1]
        stop = after if after <= end else last
        return stop, room.count(_SMALL, start, stop)

    @staticmethod
    def walk(view: memoryview, start: int) -> tuple[int, int]:
        """The result of `guess`, by a walk from frame to frame."""
        stop, size, count = start, len(view), 0
        unpack = LENGTH.unpack_from
        while size - stop >= HEAD:
            type_byte, length = unpack(view, stop)
            after = stop + HEAD + length
            if type_byte != UINT32_TYPE or after > size:
                break
            stop = after
            count += 1
        return stop, count

    @staticmethod
    def is_part(rest: memoryview) -> bool:
        """Whether this is empty, or may be an incomplete frame."""
        if len(rest) < HEAD:
            return True
        type_byte, length = LENGTH.unpack_from(rest)
        return bool(type_byte == UINT32_TYPE and HEAD + length > len(rest))

    def keep(self, rest: memoryview) -> None:
        """What follows the last whole frame. `bad` is set if nothing that follows can be one."""
        if rest:
            try:
                self._begin(rest)
            except BadFrame as error:
                self.bad = error

    def feed(self, data: Bytes) -> list[Bytes]:
        """The payloads that `data` completes; views into `data` are valid as long as it is.

        Raises BadFrame if the stream cannot be one of frames.
        """
        view = memoryview(data)
        first, at = self.resume(view)
        stop, count = self.walk(view, at)
        self.keep(view[stop:])
        if self.bad is not None:
            raise self.bad
        payloads: list[Bytes] = [] if first is None else [first]
        for _ in range(count):
            stop = at + HEAD + LENGTH.unpack_from(view, at)[1]
            payloads.append(view[at + HEAD : stop])
            at = stop
        return payloads

    def _begin(self, rest: memoryview) -> None:
        """Keep the first part of a frame until the others arrive."""
        if len(rest) < HEAD:
            self._header = bytes(rest)
            return
        type_byte, length = LENGTH.unpack_from(rest)
        if type_byte != UINT32_TYPE:
            raise BadFrame(f"a frame began with the byte {type_byte:#04x}, which none does")
        if length > MAX_FRAME:
            raise BadFrame(f"a frame of {length} bytes was announced, the limit is {MAX_FRAME}")
        self._body = bytearray(length)
        self._filled = len(rest) - HEAD
        self._body[: self._filled] = rest[HEAD:]

    def _continue(self, view: memoryview) -> tuple[Bytes | None, int]:
        """Go on with a frame that earlier bytes began: its payload if it is complete, and how
        much of `view` was used."""
        at = 0
        if self._header:
            at = min(HEAD - len(self._header), len(view))
            header = self._header + bytes(view[:at])
            self._header = b""
            self._begin(memoryview(header))
        body = self._body
        if body is None:
            return None, at
        part = view[at : at + len(body) - self._filled]
        body[self._filled : self._filled + len(part)] = part
        self._filled += len(part)
        if self._filled < len(body):
            return None, at + len(part)
        self._body = None
        return body, at + len(part)

    def close(self) -> None:
        """The stream has ended. Raises TornFrame if a frame was not complete."""
        if self._body is not None:
            raise TornFrame(f"the stream ended after {self._filled} of {len(self._body)} bytes of a frame")
        if self._header:
            raise TornFrame("the stream ended within the length of a frame")
