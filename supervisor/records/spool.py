"""Text that is collected before anybody knows where it belongs: in memory, and what is too much
for that in a temporary file without a name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from supervisor.records.disk import Disk
from supervisor.records.files import unnamed_file, write_all

IN_MEMORY = 32 << 20  # bytes; what comes after them goes to the file, they stay
_PIECE = 1 << 20


class Spool:
    """Takes bytes in their order and gives them back, from the first, as often as is asked.

    Methods raise OSError.
    """

    def __init__(self) -> None:
        self.size = 0
        self._kept: list[bytes] = []  # the first bytes
        self._last = bytearray()  # what came last; not yet enough for a piece
        self._disk = Disk()
        self._fd = -1
        self._in_file = 0  # bytes

    def write(self, text: bytes) -> None:
        self._last += text
        self.size += len(text)
        if len(self._last) >= _PIECE:
            piece, self._last = bytes(self._last), bytearray()
            self._put_away(piece)

    def _put_away(self, piece: bytes) -> None:
        if self._fd < 0 and self.size <= IN_MEMORY:
            self._kept.append(piece)
            return
        if self._fd < 0:
            self._fd = unnamed_file(tempfile.gettempdir())
        write_all(self._disk, self._fd, piece)
        self._in_file += len(piece)

    def chunks(self) -> Iterator[bytes]:
        """All of it, in pieces; they do not end where lines do."""
        yield from self._kept
        for position in range(0, self._in_file, _PIECE):
            yield self._disk.pread(self._fd, min(_PIECE, self._in_file - position), position)
        yield bytes(self._last)

    def lines(self) -> Iterator[bytes]:
        """Each line with its newline, which the last one must have."""
        begun: list[bytes] = []
        for chunk in self.chunks():
            first, *others = chunk.split(b"\n")
            begun.append(first)
            if others:
                yield b"".join([*begun, b"\n"])
                *whole, rest = others
                yield from [line + b"\n" for line in whole]
                begun = [rest]

    def close(self) -> None:
        """Forget all of it."""
        self._kept.clear()
        self._last = bytearray()
        if self._fd >= 0:
            fd, self._fd, self._in_file = self._fd, -1, 0
            with contextlib.suppress(OSError):
                os.close(fd)
