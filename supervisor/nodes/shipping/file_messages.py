"""Messages about files between agents and the supervisor.

A **parcel** is a set of files of one job that arrives as a whole: its artifacts, or its saved states with the
artifacts that they may name. Paths in it begin with `jobs` (the job's directory) or `states`. It goes up before the
outcome of its lease, and down before the next lease of its job.

Whoever sends output or parcels waits when `WINDOW` bytes are not acknowledged (`Taken`): neither side has to hold more,
and no turn of the supervisor takes long.
"""

from __future__ import annotations

from typing import Literal

import msgspec

PIECE = 64 << 10  # bytes of a file in one message: it fits into one frame
WINDOW = 4 << 20  # bytes of files that are under way, at most
# What a message counts beside the bytes in it: about as many bytes are written while a file is made.
MESSAGE_COSTS, FILE_COSTS = 100, 8 << 10

ParcelKind = Literal["artifacts", "state"]
# Whether a node shares the file system of the supervisor; auto: it does if it sees a file that is named to it.
FilesMode = Literal["auto", "shared", "ship"]

# -------------------------------------------------------------------------------- output, up


class Printed(msgspec.Struct, tag=40, array_like=True):
    """Bytes of what a worker prints. They stand at `offset` of its scratch file, which ends with them for now; 0
    begins it anew."""

    incarnation: int
    offset: int
    data: bytes


class LogEnds(msgspec.Struct, tag=41, array_like=True):
    """The scratch file of a worker is complete, and becomes a log.

    lease: of the job; -1: it was printed outside of any job. whole: it was cut to the limit on the node.
    """

    incarnation: int
    lease: int
    attempt: int
    whole: bool = False


class StacksWritten(msgspec.Struct, tag=42, array_like=True):
    """Stacks that a worker was asked for."""

    incarnation: int
    data: bytes


class ZygotePrinted(msgspec.Struct, tag=52, array_like=True):
    """What the process printed that forked the workers, and is over."""

    data: bytes


# -------------------------------------------------------------------- parcels, up and down


class ParcelBegins(msgspec.Struct, tag=43, array_like=True):
    """number: of the parcel, on this way of this node. completed: what the lease has ended with is a result. name: of
    the job's directory, on the way down; on the way up the supervisor knows it."""

    number: int
    kind: ParcelKind
    incarnation: int
    lease: int
    completed: bool = False
    name: str = ""


class FolderIs(msgspec.Struct, tag=44, array_like=True):
    """A folder; `path` in the parcel, as of the file system (bytes)."""

    number: int
    path: bytes
    mode: int


class FileBegins(msgspec.Struct, tag=45, array_like=True):
    """`modified`: nanoseconds since the epoch."""

    number: int
    path: bytes
    mode: int
    modified: int


class FileBytes(msgspec.Struct, tag=46, array_like=True):
    """The next bytes of the file that was begun last in this parcel."""

    number: int
    data: bytes


class LinkIs(msgspec.Struct, tag=47, array_like=True):
    """A symbolic link to something in the directory of the same job."""

    number: int
    path: bytes
    target: bytes


class ParcelEnds(msgspec.Struct, tag=48, array_like=True):
    """left_out: what was there and cannot be sent (sockets, links that lead out of the directory), for people."""

    number: int
    left_out: list[str] = []


class ParcelBroken(msgspec.Struct, tag=49, array_like=True):
    """The rest of this parcel does not come."""

    number: int


class Taken(msgspec.Struct, tag=50, array_like=True):
    """So many bytes (`cost_of`) were written or thrown away, since the last such message."""

    size: int


class ParcelKept(msgspec.Struct, tag=51, array_like=True):
    """All of the parcel is in its place. problem: why it could not be put there. again: it is to be sent once more,
    later. dropped: nobody needs it."""

    number: int
    problem: str = ""
    again: bool = False
    dropped: bool = False


ParcelPart = ParcelBegins | FolderIs | FileBegins | FileBytes | LinkIs | ParcelEnds | ParcelBroken
FileOrder = ParcelPart | Taken | ParcelKept  # down
FileReport = Printed | LogEnds | StacksWritten | ZygotePrinted | FileOrder  # up
PARCEL_PARTS = (ParcelBegins, FolderIs, FileBegins, FileBytes, LinkIs, ParcelEnds, ParcelBroken)
FILE_ORDERS = (*PARCEL_PARTS, Taken, ParcelKept)
FILE_REPORTS = (Printed, LogEnds, StacksWritten, ZygotePrinted, *FILE_ORDERS)


def cost_of(message: Printed | LogEnds | StacksWritten | ZygotePrinted | ParcelPart) -> int:
    """Bytes that it counts in the window."""
    if isinstance(message, Printed | FileBytes | StacksWritten | ZygotePrinted):
        return MESSAGE_COSTS + len(message.data)
    return FILE_COSTS if isinstance(message, LogEnds | FileBegins | FolderIs) else MESSAGE_COSTS
