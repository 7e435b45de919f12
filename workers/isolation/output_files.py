"""Files with the output of jobs: scratch files and logs. Used by workers and by the supervisor.

A worker prints to a scratch file. After a job that printed something, the scratch file becomes the job's log;
when the worker dies, the supervisor does this. A log longer than the limit keeps its head and tail. While the
job runs, the supervisor frees the blocks in the middle of the scratch file (`trim`), so a job that prints without
end does not fill the disk.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from workers.job.file_names import file_name
from workers.process.linux import punch_hole

_CHUNK = 1 << 20

STRAY_HEADING = "--- another start ---"

ZYGOTE_LOG = "%zygote.log"

_SCRATCH = ".worker"

_PART = ".part"

_STACKS = ".stacks"


def scratch_path(directory: str, worker: int, incarnation: int) -> str:
    """The scratch file that a worker prints to."""
    return os.path.join(directory, f"{_SCRATCH}{worker}-{incarnation}{_PART}")


def stacks_path(directory: str, worker: int, incarnation: int) -> str:
    """The file for the stacks of a worker. The supervisor removes it after the worker's death."""
    return os.path.join(directory, f"{_SCRATCH}{worker}-{incarnation}{_STACKS}")


def log_path(directory: str, job_id: str) -> str:
    """The log of a job."""
    return os.path.join(directory, file_name(job_id) + ".log")


def stray_path(directory: str, worker: int) -> str:
    """The log of what a worker printed outside of any job. The percent sign keeps the name
    apart from those of all jobs."""
    return os.path.join(directory, f"%worker{worker}.log")


# ------------------------------------------------------------------ files, on either side


def collect(scratch: str, directory: str, job_id: str, attempt: int, limit: int) -> int:
    """Make a scratch file the log of a job, or remove it if it is empty; bytes printed."""
    return move(scratch, log_path(directory, job_id), f"--- attempt {attempt} ---", limit)


def move(scratch: str, path: str, heading: str, limit: int) -> int:
    """Move a scratch file to `path`; if that exists, append to it under a heading.

    Beyond `limit` bytes only head and tail are kept. Returns the bytes printed; raises
    OSError if the disk fails.
    """
    try:
        size = os.stat(scratch).st_size
    except FileNotFoundError:
        return 0
    if size and not (size <= limit and _rename_if_new(scratch, path)):
        with open(path, "ab") as log, open(scratch, "rb") as printed:
            if log.tell():
                log.write(f"\n{heading}\n".encode())
            for piece in _head_and_tail(printed, size, limit):
                log.write(piece)
        os.unlink(scratch)
    elif not size:
        os.unlink(scratch)
    return size


def _rename_if_new(scratch: str, path: str) -> bool:
    """Rename without replacing anything; false if `path` exists."""
    try:
        os.link(scratch, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links in this file system
        if os.path.lexists(path):
            return False
        os.rename(scratch, path)
        return True
    os.unlink(scratch)
    return True


def _head_and_tail(file: io.BufferedReader, size: int, limit: int) -> Iterator[bytes]:
    if size <= limit:
        yield from _chunks(file, size)
        return
    head = limit // 2
    yield from _chunks(file, head)
    yield f"\n--- {size - limit} bytes left out ---\n".encode()
    file.seek(size - (limit - head))
    yield from _chunks(file, limit - head)


def _chunks(file: io.BufferedReader, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = file.read(min(size, _CHUNK))
        if not piece:
            return
        size -= len(piece)
        yield piece


def trim(scratch: str, limit: int) -> None:
    """Free the middle of a scratch file that has outgrown the limit; its size stays."""
    try:
        status = os.stat(scratch)
        if status.st_size <= limit or status.st_blocks * 512 <= limit + _CHUNK:
            return
        descriptor = os.open(scratch, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    start = limit // 2
    punch_hole(descriptor, start, status.st_size - limit)
    os.close(descriptor)


def tail(path: str, lines: int = 20, limit: int = 8192) -> str:
    """The last lines of a file, at most `limit` bytes; "" if there is none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            text = file.read(limit).decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip("\n").split("\n")[-lines:])


def leftovers(directory: str) -> list[str]:
    """Clean up scratch files of an earlier run whose supervisor was killed.

    Empty ones are removed; the others become `%lost-....log`, since their jobs are
    unknown. Returns the paths of those logs.
    """
    kept = []
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    for name in sorted(names):
        if name.startswith(_SCRATCH) and name.endswith(_STACKS):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))
        elif name.startswith(_SCRATCH) and name.endswith(_PART):
            path = os.path.join(directory, f"%lost-{name[1 : -len(_PART)]}.log")
            with contextlib.suppress(OSError):
                if move(os.path.join(directory, name), path, "--- again ---", sys.maxsize):
                    kept.append(path)
    return kept
