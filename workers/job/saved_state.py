"""Saved states of long jobs on disk: `current_job().save(state)` and `.load()`.

Two files for each job, `<job>.json` and `<job>~.json`, take turns: a save writes a new file,
syncs it, renames it over the *older* of the two and syncs the directory. So the newest state
is never touched by a save, and whatever a kill or a power cut interrupts, the last save that
returned can be loaded. Each file is one line of JSON; `save` counts the saves of the job, and
the last key is a CRC-32 of all bytes before it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
import time
import zlib
from typing import Any

import msgspec

from workers.job.file_names import file_name
from workers.values.json_encoding import Encoded, encode_state, restore_nonfinite

MAX_STATE = 64 << 20  # bytes of JSON
_CRC = b',"crc":"'
_TAIL = len(_CRC) + 8 + len(b'"}\n')
_NUMBER = re.compile(rb'\{"save":(\d{1,18}),')
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
# Some network file systems cannot sync a directory and say so with one of these.
_NOT_FOR_DIRECTORIES = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
# Saves of one process do not overlap. Those of two processes (a job and a child of it) may:
# both files are whole then, and the one that was renamed last is found.
_one_at_a_time = threading.Lock()


class _State(msgspec.Struct):
    save: int
    job: str
    attempt: int
    at: str
    nonfinite: list[tuple[str, str]]
    state: msgspec.Raw


class StateFiles:
    """The states of the jobs of one experiment, in `directory`, made at the first save.

    `disk` does the file operations (`StateDisk`); a test hands in one that fails or forgets.
    """

    def __init__(self, directory: str, disk: Any = None) -> None:
        self._directory = directory
        self._disk = disk or StateDisk()
        self._made = False

    def save(self, job_id: str, attempt: int, state: Any) -> None:
        """Returns when the state is on the disk. Raises Unencodable, StateTooLarge, OSError;
        the states that were there before are then still there."""
        encoded = _encoded(job_id, state)
        with _one_at_a_time:
            if not self._made:
                self._disk.make_directory(self._directory)
                self._made = True
            first, second = self._paths(job_id)
            numbers = self._number(first), self._number(second)
            document = _State(
                save=max(numbers) + 1,
                job=job_id,
                attempt=attempt,
                at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                nonfinite=encoded.nonfinite,
                state=msgspec.Raw(encoded.json),
            )
            text = msgspec.json.encode(document)[:-1]
            text += b'%s%08x"}\n' % (_CRC, zlib.crc32(text))
            self._put(first if numbers[0] <= numbers[1] else second, text)

    def load(self, job_id: str) -> tuple[Any, str]:
        """(newest undamaged state or None, notice for the user or ""). Raises OSError.

        A damaged file is set aside as `<job>~damaged.json`.
        """
        found: list[tuple[int, _State]] = []
        damaged: list[str] = []
        with _one_at_a_time:
            for path in self._paths(job_id):
                try:
                    text = self._disk.read(path)
                except FileNotFoundError:
                    continue
                state = _checked(text, job_id)
                if state is not None:
                    found.append((state.save, state))
                    continue
                damaged.append(path)
                with contextlib.suppress(OSError):
                    self._disk.rename(
                        path, os.path.join(self._directory, f"{file_name(job_id)}~damaged.json")
                    )
        newest = max(found, key=lambda entry: entry[0])[1] if found else None
        notice = _notice(job_id, damaged, newest) if damaged else ""
        if newest is None:
            return None, notice
        return restore_nonfinite(msgspec.json.decode(newest.state), newest.nonfinite), notice

    def _paths(self, job_id: str) -> tuple[str, str]:
        name = os.path.join(self._directory, file_name(job_id))
        return f"{name}.json", f"{name}~.json"  # no id gives a name that ends in ~

    def _number(self, path: str) -> int:
        """The number of the save in a file; 0 if the file is missing or no state."""
        try:
            match = _NUMBER.match(self._disk.read(path, 64))
        except OSError:
            return 0
        return int(match.group(1)) if match else 0

    def _put(self, path: str, text: bytes) -> None:
        disk = self._disk
        folder, name = os.path.split(path)
        temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
        with contextlib.suppress(FileNotFoundError):  # of an earlier process with our pid
            disk.remove(temporary)
        fd = disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            try:
                view = memoryview(text)
                while view:
                    view = view[disk.write(fd, view) :]
                disk.sync(fd)
            finally:
                disk.close(fd)
            disk.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                disk.remove(temporary)
            raise
        disk.sync_directory(folder)


class StatesInMemory:
    """Outside a worker: states are kept in memory, and a job can load what it has saved."""

    def __init__(self) -> None:
        self._saved: dict[str, tuple[bytes, list[tuple[str, str]]]] = {}

    def save(self, job_id: str, attempt: int, state: Any) -> None:
        """Raises what it would raise in a worker."""
        encoded = _encoded(job_id, state)
        self._saved[job_id] = encoded.json, encoded.nonfinite

    def load(self, job_id: str) -> tuple[Any, str]:
        if job_id not in self._saved:
            return None, ""
        text, nonfinite = self._saved[job_id]
        return restore_nonfinite(msgspec.json.decode(text), nonfinite), ""


def _encoded(job_id: str, state: Any) -> Encoded:
    encoded = encode_state(state)
    if len(encoded.json) > MAX_STATE:
        raise StateTooLarge(job_id, len(encoded.json))
    return encoded


class StateTooLarge(ValueError):
    """A state is more than `MAX_STATE` bytes of JSON."""

    def __init__(self, job_id: str, size: int) -> None:
        super().__init__(job_id, size)
        self.size = size

    def __str__(self) -> str:
        return (
            f"the state of {self.args[0]!r} is {self.size / 2**20:.1f} MB of JSON, more than "
            f"{MAX_STATE >> 20} MB; write what is large to files in current_job().directory and save their names"
        )


def _checked(text: bytes, job_id: str) -> _State | None:
    """The state in a file, None if it is damaged or that of another job."""
    body = text[:-_TAIL]
    if text[len(body) :] != b'%s%08x"}\n' % (_CRC, zlib.crc32(body)):
        return None
    try:
        state = msgspec.json.decode(body + b"}", type=_State)
    except msgspec.MsgspecError:
        return None
    return state if state.job == job_id else None


def _notice(job_id: str, damaged: list[str], newest: _State | None) -> str:
    files = " and ".join(os.path.basename(path) for path in damaged)
    text = f"saved state of {job_id}: {files} {'is' if len(damaged) == 1 else 'are'} damaged and set aside; "
    if newest is None:
        return text + "there is no other one, the job starts from the beginning"
    return text + f"the job goes on with save {newest.save} of {newest.at}"


class StateDisk:
    """The file operations that durability depends on. Every method raises OSError."""

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def read(self, path: str, size: int = -1) -> bytes:
        """The beginning of a file, or all of it."""
        with open(path, "rb", buffering=0) as file:
            return file.read(size) or b""

    def sync(self, fd: int) -> None:
        if _FULL_SYNC is not None:  # macOS: fsync reaches only the drive's cache
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, _FULL_SYNC)
                return
        os.fsync(fd)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        """The names of it and of the directory around it are synced, whoever made them: all
        that is put inside would go with them in a power cut."""
        os.makedirs(path, exist_ok=True)
        parent = os.path.dirname(path)
        self.sync_directory(parent)
        self.sync_directory(os.path.dirname(parent))

    def sync_directory(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:  # of a directory around ours that we may not read
            return
        try:
            self.sync(fd)
        except OSError as error:
            if error.errno not in _NOT_FOR_DIRECTORIES:
                raise
        finally:
            os.close(fd)
