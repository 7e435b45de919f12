"""Parcels on their way, at either end: one side reads files and sends, the other writes them.

Many parcels go at once, piece by piece in turn, so that a small one does not wait for a large one. Neither side
holds more than `WINDOW` bytes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from supervisor.nodes.shipping.file_messages import (
    MESSAGE_COSTS,
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
)
from supervisor.system.confined_tree import ConfinedTree, ForbiddenName, leads_inside

Got = TypeVar("Got")

AGAIN_AFTER = 1.0  # seconds, when the other side had no room
MOST_AT_ONCE = 64  # parcels that are read in turn
MOST_LEFT_OUT = 20  # names that are told
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_UNREADABLE = (errno.EACCES, errno.EPERM)


class Parcel(msgspec.Struct):
    """What is to be sent: of the directory `root` the entries `names`, or all. `problem`: why it was not kept."""

    kind: ParcelKind
    incarnation: int
    lease: int
    root: str
    names: Sequence[str] | None = None
    completed: bool = False
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
        found: list[ParcelPart] = []
        most = min(most, WINDOW - self._unacknowledged)
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
                size = size_of(part)
                most -= size
                self._unacknowledged += size
                found.append(part)
        return found

    def taken(self, size: int) -> None:
        self._unacknowledged -= size

    def kept(self, answer: ParcelKept, now: float) -> Parcel | None:
        """The parcel that is done with; None if it has to be sent once more, or is unknown."""
        parcel = self._waiting.get(answer.number)
        if parcel is None:
            return None
        if answer.again:
            self._later.append((now + AGAIN_AFTER, answer.number))
            return None
        del self._waiting[answer.number]
        parcel.problem = parcel.problem or answer.problem
        return parcel

    def next_deadline(self) -> float | None:
        return min((due for due, _ in self._later), default=None)

    @property
    def ready(self) -> bool:
        """Whether `messages` has something to send."""
        return bool(self._streams or self._queued) and self._unacknowledged < WINDOW


def size_of(part: ParcelPart) -> int:
    """Bytes that a message counts in the window."""
    return MESSAGE_COSTS + (len(part.data) if isinstance(part, FileBytes) else 0)


def parts_of(number: int, parcel: Parcel) -> Iterator[ParcelPart]:
    """The messages of a parcel, read while they are asked for. Raises OSError. What vanishes meanwhile is left out."""
    yield ParcelBegins(number, parcel.kind, parcel.incarnation, parcel.lease, parcel.completed)
    root, left_out = os.fsencode(parcel.root), [""] * 0
    todo = deque([b""])
    if parcel.names is not None:
        todo = deque(os.fsencode(name) for name in parcel.names)
    while todo:
        path = todo.popleft()
        full = os.path.join(root, path) if path else root
        try:
            status = os.lstat(full)
            if stat.S_ISDIR(status.st_mode):
                names = _readable(os.listdir, full, status.st_mode)
                yield FolderIs(number, path, stat.S_IMODE(status.st_mode))
                todo.extendleft(os.path.join(path, name) for name in sorted(names, reverse=True))
            elif stat.S_ISREG(status.st_mode):
                descriptor = _readable(_open, full, status.st_mode)
                try:
                    yield FileBegins(number, path, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
                    while data := os.read(descriptor, PIECE):
                        yield FileBytes(number, data)
                finally:
                    os.close(descriptor)
            elif stat.S_ISLNK(status.st_mode) and (target := _inside(root, path, os.readlink(full))):
                yield LinkIs(number, path, target)
            elif len(left_out) < MOST_LEFT_OUT:
                left_out.append(_shown(path))
        except FileNotFoundError:
            continue
    yield ParcelEnds(number, left_out)


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
    """A parcel that is complete beside its place: its tree is to be moved there or discarded, then answered."""

    head: ParcelBegins
    tree: ConfinedTree
    left_out: list[str]


class ParcelReceiver:
    """Writes parcels beside their place, in the directory that `beside` gives. `answers` are to be sent back."""

    def __init__(self, beside: Callable[[ParcelBegins], str | None]) -> None:
        """`beside`: None for a parcel that nobody needs. It may raise OSError."""
        self._beside = beside
        self._open: dict[int, tuple[ParcelBegins, ConfinedTree | None]] = {}
        self._problems: dict[int, ParcelKept] = {}
        self.answers: list[Taken | ParcelKept] = []
        self._taken = 0

    def take(self, part: ParcelPart) -> Arrived | None:
        """The parcel, if this was its last part and it is needed."""
        self._taken += size_of(part)
        number = part.number
        if isinstance(part, ParcelBegins):
            self._open[number] = part, None
            if (tree := self._try(part, lambda: self._begin(part))) is not None:
                self._open[number] = part, tree
            return None
        head, tree = self._open.get(number, (None, None))
        if head is None:
            return None
        if isinstance(part, ParcelEnds | ParcelBroken):
            del self._open[number]
            problem = self._problems.pop(number, None)
            if isinstance(part, ParcelEnds) and tree is not None and problem is None:
                return Arrived(head, tree, part.left_out)
            if tree is not None:
                tree.discard()
            self.answers.append(problem or ParcelKept(number))
        elif tree is not None and number not in self._problems:
            self._try(head, lambda: _write(tree, part))
        return None

    def _begin(self, head: ParcelBegins) -> ConfinedTree | None:
        path = self._beside(head)
        return None if path is None else ConfinedTree(path)

    def _try(self, head: ParcelBegins, do: Callable[[], Got]) -> Got | None:
        try:
            return do()
        except (OSError, ForbiddenName) as error:
            self._problems[head.number] = refusal(head.number, error)
            return None

    def collect_answers(self) -> list[Taken | ParcelKept]:
        if self._taken:
            self.answers.append(Taken(self._taken))
            self._taken = 0
        answers, self.answers = self.answers, []
        return answers

    def discard(self) -> None:
        """Nothing more comes: remove what has not arrived as a whole."""
        for _, tree in self._open.values():
            if tree is not None:
                tree.discard()
        self._open.clear()


def refusal(number: int, error: OSError | ForbiddenName) -> ParcelKept:
    """The answer to a parcel that could not be put into its place."""
    if isinstance(error, ForbiddenName):
        return ParcelKept(number, f"its directory cannot hold {error}")
    return ParcelKept(number, f"{error.strerror}: {_shown(error.filename)}", again=error.errno in _NO_ROOM)


def _write(tree: ConfinedTree, part: ParcelPart) -> None:
    match part:
        case FolderIs(_, path, mode):
            tree.folder(path, mode)
        case FileBegins(_, path, mode, modified):
            tree.begin_file(path, mode, modified)
        case FileBytes(_, data):
            tree.write(data)
        case LinkIs(_, path, target):
            tree.link(path, target)
