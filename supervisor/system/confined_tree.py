"""Files that are put together in a directory by names that another machine has sent.

Nothing outside of that directory is touched, whatever the names are: no name leads upwards, no symbolic link is
followed or leads out. When all is there, it is moved to its place at once, or file by file if something is there
already: each file is then the old or the new one, whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ForbiddenName(Exception):
    """A name that leads out of the directory, or is none."""


class ConfinedTree:
    """A new directory `path`, whose parent exists. Methods raise ForbiddenName, and OSError as the system gives it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = -1
        self._modified = 0
        self._modes: dict[bytes, int] = {}  # of folders: set last, since nothing can be put into some
        self._known: tuple[tuple[bytes, ...], int] | None = (
            None  # the folder that was used last, and its descriptor
        )
        os.mkdir(path, 0o700)

    def folder(self, path: bytes, mode: int) -> None:
        """`path` b"": the directory itself."""
        if path:
            self._folder(_names(path))
        self._modes[path] = stat.S_IMODE(mode)

    def begin_file(self, path: bytes, mode: int, modified: int) -> None:
        """The file that `write` adds to from now on. `modified`: nanoseconds since the epoch."""
        self._end_file()
        *folder, name = _names(path)
        self._file = os.open(name, _NEW_FILE, 0o600, dir_fd=self._folder(tuple(folder)))
        os.fchmod(self._file, stat.S_IMODE(mode))
        self._modified = modified

    def write(self, data: bytes) -> None:
        if self._file < 0:
            raise ForbiddenName("bytes of no file")
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def link(self, path: bytes, target: bytes) -> None:
        """A symbolic link within the directory."""
        *folder, name = _names(path)
        if not leads_inside(path, target):
            raise ForbiddenName(f"a link to {target!r}")
        os.symlink(target, name, dir_fd=self._folder(tuple(folder)))

    def _end_file(self) -> None:
        if self._file >= 0:
            descriptor, self._file = self._file, -1
            try:
                os.utime(descriptor, ns=(self._modified, self._modified))
            finally:
                os.close(descriptor)

    def _folder(self, names: tuple[bytes, ...]) -> int:
        """A descriptor of this folder, which is made if it is missing."""
        if self._known is not None and self._known[0] == names:
            return self._known[1]
        self._forget_folder()
        descriptor = os.open(self.path, _DIRECTORY)
        for name in names:
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=descriptor)
                inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = inner
        self._known = names, descriptor
        return descriptor

    def _forget_folder(self) -> None:
        if self._known is not None:
            os.close(self._known[1])
            self._known = None

    def files(self) -> list[str]:
        """The names in the directory itself."""
        return sorted(os.listdir(self.path))

    def sync(self) -> None:
        """Bring the files that stand in the directory onto the disk. Nothing else may stand there."""
        self._end_file()
        for name in self.files():
            path = os.path.join(self.path, name)
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ForbiddenName(repr(name))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def move_to(self, target: str) -> None:
        """Move all into the directory `target`, or make it that. What is there and has other names stays."""
        self._end_file()
        self._forget_folder()
        merge(self.path, target)
        for path in sorted(self._modes, key=len, reverse=True):
            with contextlib.suppress(OSError):
                os.chmod(os.path.join(os.fsencode(target), path) if path else target, self._modes[path])
        self.path = ""

    def discard(self) -> None:
        """Remove what was not moved."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._forget_folder()
        if self.path:
            remove_tree(self.path)


def merge(source: str, target: str) -> None:
    """Move a directory to `target`, or what is in it into the one that is there, which its owner may then change."""
    try:
        os.rename(source, target)  # takes the place of nothing, or of an empty directory
        return
    except OSError:
        if not os.path.isdir(target) or os.path.islink(target):
            raise
    os.chmod(target, stat.S_IMODE(os.stat(target).st_mode) | 0o700)
    with os.scandir(source) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        old, new = os.path.join(source, name), os.path.join(target, name)
        if is_folder and os.path.isdir(new) and not os.path.islink(new):
            merge(old, new)
            continue
        if is_folder and os.path.lexists(new):
            os.unlink(new)
        elif not is_folder and os.path.isdir(new) and not os.path.islink(new):
            remove_tree(new)
        os.rename(old, new)
    os.rmdir(source)


def remove_tree(path: str) -> None:
    """Remove a directory, also one with folders in it that its owner may not change; as far as that is possible."""
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        return
    for folder, names, _ in os.walk(path):
        for name in [".", *names]:
            inner = os.path.join(folder, name)
            if not os.path.islink(inner):
                with contextlib.suppress(OSError):
                    os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def leads_inside(path: bytes, target: bytes) -> bool:
    """Whether a link at `path` with this target leads to something in the same tree."""
    depth = path.count(b"/")
    if not target or target.startswith(b"/") or b"\0" in target:
        return False
    for name in target.split(b"/"):
        depth += -1 if name == b".." else name not in (b"", b".")
        if depth < 0:
            return False
    return True


def _names(path: bytes) -> tuple[bytes, ...]:
    names = tuple(path.split(b"/"))
    if b"\0" in path or any(name in (b"", b".", b"..") for name in names):
        raise ForbiddenName(repr(path))
    return names
