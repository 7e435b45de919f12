"""Parcels on their way, at either end: one side reads files and sends, the other writes them.

Many parcels go at once, piece by piece in turn, so that a small one does not wait for a large one. Neither side
holds more than `WINDOW` bytes.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from supervisor.nodes.shipping.file_messages import (
    PIECE,
    WINDOW,
    FileBegins,
    FileBytes,
    FolderIs,
    LinkIs,
    ParcelBegins,
    ParcelBroken,
    ParcelEnds,
    ParcelKept,
    ParcelKind,
    ParcelPart,
    Taken,
    cost_of,
)
from supervisor.system.confined_tree import ConfinedTree, ForbiddenName, leads_inside

Got = TypeVar("Got")
Signature = tuple[int, int, int]  # when a file was modified, its size, which file it is

AGAIN_AFTER = 1.0  # seconds, when the other side had no room
MOST_AT_ONCE = 64  # parcels that are read in turn
IN_PARCEL = (
    2  # folders from the top of a parcel to what is in the directory of a job: no link leads out of that
)
_SETTLED = 2 * 10**9  # nanoseconds
_ROOMS = (b"jobs", b"states")
MOST_LEFT_OUT = 20  # names that are told
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_UNREADABLE = (errno.EACCES, errno.EPERM)


class Entry(NamedTuple):
    """A file or a folder `source`, and its path in the parcel."""

    path: str
    source: str


class Parcel(msgspec.Struct):
    """What is to be sent, in this order: what comes first is read first.

    name: of the job's directory, on the way down. known: files that the other side has already, as they were then.
    sent: those of this parcel that will not change unnoticed. problem: why it was not kept.
    """

    kind: ParcelKind
    incarnation: int
    lease: int
    entries: Sequence[Entry]
    completed: bool = False
    name: str = ""
    known: Mapping[bytes, Signature] = {}
    sent: dict[bytes, Signature] = {}
    problem: str = ""


class ParcelSender:
    """Sends parcels, and keeps them until the other side has them."""

    def __init__(self) -> None:
        self._next = 1
        self._unacknowledged = 0  # bytes
        self._streams: deque[tuple[int, Iterator[ParcelPart]]] = deque()  # read in turn
        self._queued: deque[int] = deque()
        self._waiting: dict[int, Parcel] = {}
        self._later: list[tuple[float, int]] = []  # when to send them again
        self._broken: list[ParcelPart] = []

    def add(self, parcel: Parcel) -> int:
        """The number of the parcel."""
        number, self._next = self._next, self._next + 1
        self._waiting[number] = parcel
        self._queued.append(number)
        return number

    def messages(self, most: int, now: float) -> list[ParcelPart]:
        """What may be sent now, at most about `most` bytes."""
        for due, number in [later for later in self._later if later[0] <= now]:
            self._later.remove((due, number))
            self._queued.append(number)
        found, self._broken = self._broken, []
        self._unacknowledged += sum(map(cost_of, found))
        most = min(most, self.room)
        while self.ready and most > 0:
            while self._queued and len(self._streams) < MOST_AT_ONCE:
                number = self._queued.popleft()
                self._streams.append((number, parts_of(number, self._waiting[number])))
            number, stream = self._streams[0]
            try:
                part = next(stream, None)
            except OSError as error:
                self._waiting[number].problem = f"{error.strerror}: {_shown(error.filename)}"
                part = ParcelBroken(number)
            if part is None or isinstance(part, ParcelBroken):
                self._streams.popleft()
            else:
                self._streams.rotate(-1)
            if part is not None:
                size = cost_of(part)
                most -= size
                self._unacknowledged += size
                found.append(part)
        return found

    @property
    def room(self) -> int:
        """Bytes that may be sent; others than parcels `spend` some of them."""
        return WINDOW - self._unacknowledged

    def spend(self, size: int) -> None:
        self._unacknowledged += size

    def taken(self, size: int) -> None:
        self._unacknowledged -= size

    def kept(self, answer: ParcelKept, now: float) -> Parcel | None:
        """The parcel that is done with; None if it has to be sent once more, or is unknown."""
        parcel = self._waiting.get(answer.number)
        if parcel is None:
            return None
        for stream in [stream for stream in self._streams if stream[0] == answer.number]:
            self._streams.remove(stream)
            self._broken.append(ParcelBroken(answer.number))
        if answer.again:
            self._later.append((now + AGAIN_AFTER, answer.number))
            return None
        del self._waiting[answer.number]
        if answer.dropped:
            parcel.sent = {}
        parcel.problem = parcel.problem or answer.problem
        return parcel

    def next_deadline(self) -> float | None:
        return min((due for due, _ in self._later), default=None)

    @property
    def ready(self) -> bool:
        """Whether `messages` has something to send."""
        return bool(self._broken or self._streams or self._queued) and self.room > 0


def signature_of(status: os.stat_result) -> Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino


def is_settled(signature: Signature) -> bool:
    """Whether a file that is changed from now on has another signature: clocks of file systems are coarse."""
    return time.time_ns() - signature[0] > _SETTLED


def parts_of(number: int, parcel: Parcel) -> Iterator[ParcelPart]:
    """The messages of a parcel, read while they are asked for. Raises OSError. What vanishes meanwhile is left out."""
    yield ParcelBegins(number, parcel.kind, parcel.incarnation, parcel.lease, parcel.completed, parcel.name)
    left_out: list[str] = []
    parcel.sent = {}
    for entry in parcel.entries:
        yield from _parts_of_entry(number, parcel, entry, left_out)
    yield ParcelEnds(number, left_out)


def _parts_of_entry(number: int, parcel: Parcel, entry: Entry, left_out: list[str]) -> Iterator[ParcelPart]:
    top, root = os.fsencode(entry.path), os.fsencode(entry.source)
    todo = deque([b""])
    while todo:
        inner = todo.popleft()
        source, path = (os.path.join(root, inner), os.path.join(top, inner)) if inner else (root, top)
        try:
            status = os.lstat(source)
            if stat.S_ISDIR(status.st_mode):
                names = _readable(os.listdir, source, status.st_mode)
                yield FolderIs(number, path, stat.S_IMODE(status.st_mode))
                todo.extendleft(os.path.join(inner, name) for name in sorted(names, reverse=True))
            elif stat.S_ISREG(status.st_mode):
                yield from _parts_of_file(number, parcel, path, source, status)
            elif stat.S_ISLNK(status.st_mode) and (target := _inside(root, inner, os.readlink(source))):
                yield LinkIs(number, path, target)
            elif len(left_out) < MOST_LEFT_OUT:
                left_out.append(_shown(inner))
        except FileNotFoundError:
            continue


def _parts_of_file(
    number: int, parcel: Parcel, path: bytes, source: bytes, status: os.stat_result
) -> Iterator[ParcelPart]:
    signature = signature_of(status)
    if parcel.known.get(path) == signature:
        return
    descriptor = _readable(_open, source, status.st_mode)
    try:
        yield FileBegins(number, path, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        while data := os.read(descriptor, PIECE):
            yield FileBytes(number, data)
    finally:
        os.close(descriptor)
    if is_settled(signature):
        parcel.sent[path] = signature


def _open(path: bytes) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _readable(read: Callable[[bytes], Got], path: bytes, mode: int) -> Got:
    """Read what its owner may not read: a job may have chosen such a mode."""
    try:
        return read(path)
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
    os.chmod(path, stat.S_IMODE(mode) | 0o700)
    try:
        return read(path)
    finally:
        os.chmod(path, stat.S_IMODE(mode))


def _inside(root: bytes, path: bytes, target: bytes) -> bytes:
    """The target of a link that stays in the parcel, b"" if it does not. One that begins with the root is made
    relative: the root is another one there."""
    if target == root or target.startswith(root + b"/"):
        target = os.path.relpath(target, os.path.dirname(os.path.join(root, path)))
    return target if leads_inside(path, target) else b""


def _shown(path: object) -> str:
    return os.fsencode(str(path) if not isinstance(path, bytes) else path).decode(errors="replace")


class Arrived(msgspec.Struct):
    """A parcel beside its place: when it is complete, its trees are to be moved there or discarded, and it is to be
    answered.

    artifacts, states: what is in the directory of the job, and its states; None: nothing.
    """

    head: ParcelBegins
    path: str
    left_out: list[str] = []
    artifacts: ConfinedTree | None = None
    states: ConfinedTree | None = None

    def tree_of(self, path: bytes) -> tuple[ConfinedTree, bytes]:
        """The tree, and the path in it. Raises ForbiddenName, OSError."""
        room, _, inner = path.partition(b"/")
        if room not in _ROOMS or (not inner and path != _ROOMS[0]):
            raise ForbiddenName(repr(path))
        if room == _ROOMS[0]:
            self.artifacts = self.artifacts or ConfinedTree(self.path)
            return self.artifacts, inner
        self.states = self.states or ConfinedTree(self.path + "-states")
        return self.states, inner

    def discard(self) -> None:
        for tree in (self.artifacts, self.states):
            if tree is not None:
                tree.discard()


class ParcelReceiver:
    """Writes parcels beside their place, in the directory that `beside` gives. `answers` are to be sent back."""

    def __init__(self, beside: Callable[[ParcelBegins], str | None]) -> None:
        """`beside`: None for a parcel that nobody needs. It may raise OSError."""
        self._beside = beside
        self._open: dict[int, Arrived] = {}
        self._writing: dict[int, ConfinedTree] = {}  # of the file that was begun last
        self.answers: list[Taken | ParcelKept] = []
        self._taken = 0

    def take(self, part: ParcelPart) -> Arrived | None:
        """The parcel, if this was its last part and it is needed."""
        self.count(cost_of(part))
        number = part.number
        if isinstance(part, ParcelBegins):
            self._begin(part)
        elif isinstance(part, ParcelEnds | ParcelBroken):
            self._writing.pop(number, None)
            if (parcel := self._open.pop(number, None)) is not None:
                if isinstance(part, ParcelEnds):
                    parcel.left_out = part.left_out
                    return parcel
                parcel.discard()
                self.answers.append(ParcelKept(number))
        elif number in self._open:
            try:
                self._write(self._open[number], part)
            except (OSError, ForbiddenName) as error:
                self._refuse(refusal(number, error))
        return None

    def count(self, size: int) -> None:
        """So many bytes have come, of parcels or others, and need room no longer."""
        self._taken += size

    def _begin(self, head: ParcelBegins) -> None:
        """Who sends a parcel that is not needed, or cannot be kept, is told at once, and sends no more of it."""
        try:
            if (path := self._beside(head)) is None:
                self._refuse(ParcelKept(head.number, dropped=True))
            else:
                self._open[head.number] = Arrived(head, path)
        except OSError as error:
            self._refuse(refusal(head.number, error))

    def _refuse(self, answer: ParcelKept) -> None:
        if (parcel := self._open.pop(answer.number, None)) is not None:
            parcel.discard()
        self.answers.append(answer)

    def _write(self, parcel: Arrived, part: ParcelPart) -> None:
        if isinstance(part, FileBytes):
            if (writing := self._writing.get(part.number)) is None:
                raise ForbiddenName("bytes of no file")
            writing.write(part.data)
        elif isinstance(part, FolderIs | FileBegins | LinkIs):
            tree, path = parcel.tree_of(part.path)
            match part:
                case FolderIs(_, _, mode):
                    tree.folder(path, mode)
                case FileBegins(_, _, mode, modified):
                    tree.begin_file(path, mode, modified)
                    self._writing[part.number] = tree
                case LinkIs(_, _, target):
                    tree.link(path, target)

    def collect_answers(self) -> list[Taken | ParcelKept]:
        if self._taken:
            self.answers.append(Taken(self._taken))
            self._taken = 0
        answers, self.answers = self.answers, []
        return answers

    def discard(self) -> None:
        """Nothing more comes: remove what has not arrived as a whole."""
        for parcel in self._open.values():
            parcel.discard()
        self._open.clear()


def refusal(number: int, error: OSError | ForbiddenName) -> ParcelKept:
    """The answer to a parcel that could not be put into its place."""
    if isinstance(error, ForbiddenName):
        return ParcelKept(number, f"its directory cannot hold {error}")
    return ParcelKept(number, f"{error.strerror}: {_shown(error.filename)}", again=error.errno in _NO_ROOM)
