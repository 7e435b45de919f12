"""One end of the wire between supervisor and agent: two descriptors that never block."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections import deque

from supervisor.nodes.wire import MessageJoiner, WireError, frames_of
from supervisor.system.interpreter import PrivateDescriptors
from workers.transport.frames import READ_SIZE
from workers.transport.supervisor_queues import enlarge

_READS = 8  # at most in one call of `receive`: others have their turn


class Link:
    """reader, writer: descriptors, which it owns; the same one for a socket. Its messages are whole."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        self.ended = ""  # why nothing comes or goes any more
        self._joiner = MessageJoiner()
        self._frames: deque[memoryview] = deque()
        self.unsent = 0  # bytes
        self._selector: selectors.BaseSelector | None = None
        self._watched: dict[int, int] = {}
        self._deaf = False  # it reads no more
        self._full = False  # whether the last read found as much as it could take
        self._private = PrivateDescriptors()
        for descriptor in {reader, writer}:
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
            enlarge(descriptor, READ_SIZE)
            self._private.numbers.add(descriptor)

    def send(self, message: bytes) -> bool:
        """Write as much as the wire takes; true if something is left for `flush`. Nothing goes to an end that is
        over."""
        if not (self.ended or self._deaf):
            for frame in frames_of(message):
                self._frames.append(memoryview(frame))
                self.unsent += len(frame)
        return self.flush()

    def flush(self) -> bool:
        """True if something is left."""
        frames = self._frames
        while frames and not self.ended:
            try:
                written = os.write(self.writer, frames[0])
            except BlockingIOError:
                return True
            except OSError:  # it reads no more; what it has said, and its end, are still to be read
                self._deaf = True
                self._drop()
                break
            self.unsent -= written
            if written == len(frames[0]):
                frames.popleft()
            else:
                frames[0] = frames[0][written:]
        return bool(frames)

    def receive(self) -> list[bytes]:
        """The messages that have arrived. At the end of the stream `ended` is set. Raises WireError."""
        messages: list[bytes] = []
        self._full = False
        for _ in range(_READS):
            try:
                data = os.read(self.reader, READ_SIZE)
            except BlockingIOError:
                return messages
            except OSError as error:
                self._end(f"it cannot be read from: {error.strerror}")
                return messages
            if not data:
                self._end("it closed the connection")
                return messages
            try:
                messages += self._joiner.feed(data)
            except WireError as error:
                self._end(str(error))
                return messages
        self._full = True
        return messages

    def watch(self, selector: selectors.BaseSelector, data: object = None) -> None:
        """Let a selector wait for what is to be done here. To be called again after each other call."""
        self._selector = selector
        wanted = {} if self.ended else {self.reader: selectors.EVENT_READ}
        if self._frames:
            wanted[self.writer] = wanted.get(self.writer, 0) | selectors.EVENT_WRITE
        if wanted == self._watched:
            return
        for descriptor in self._watched:
            selector.unregister(descriptor)
        for descriptor, events in wanted.items():
            selector.register(descriptor, events, data)
        self._watched = wanted

    @property
    def pressing(self) -> bool:
        """Whether there is more to send or to receive than fits at once."""
        return bool(self._frames or self._full or self._joiner.inside)

    def hang_up(self) -> None:
        """Let it end at both sides, after what has arrived here. For a socket."""
        if self.ended:
            return
        end = socket.socket(fileno=self.writer)
        try:
            with contextlib.suppress(OSError):  # the other side has been quicker
                end.shutdown(socket.SHUT_RDWR)
        finally:
            end.detach()

    def _end(self, why: str) -> None:
        self.ended = self.ended or why
        self._drop()

    def _drop(self) -> None:
        self._frames.clear()
        self.unsent = 0

    def close(self) -> None:
        """To be called once."""
        self._end("it was closed")
        if self._selector is not None:
            self.watch(self._selector)
        self._private.numbers.clear()
        for descriptor in {self.reader, self.writer}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
