"""The jobs of a batch that is damaged: the same for everybody, as a Python function and as a shell script.

Each job notes when it begins and when it has done its work, so that what a program says of a job can be
compared with what the job did.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import time
from pathlib import Path
from typing import NamedTuple

CRASH = "crash"
SHORT, LONG = 0.005, 2.0  # seconds
RESUMED = ".resumed"  # a file beside the notes: from now on all jobs are short ones


class Batch(NamedTuple):
    """`jobs` jobs, numbered from 1, of so many `seconds`. From the number `long_from` on they are long; the one
    numbered `crash` always dies of SIGSEGV; 0: none. `folder` has all files of it."""

    folder: str
    jobs: int
    long_from: int = 0
    crash: int = 0
    seconds: float = SHORT

    @property
    def notes(self) -> Path:
        """The file to which each job writes `begun NUMBER PID` and `done NUMBER PID`."""
        return Path(self.folder, "notes")

    def tasks(self) -> list[str]:
        """One string for each job: NUMBER:SECONDS:NOTES. It does not change between two starts of the batch."""
        return [f"{number}:{self._seconds(number)}:{self.notes}" for number in range(1, self.jobs + 1)]

    def _seconds(self, number: int) -> float | str:
        if number == self.crash:
            return CRASH
        return LONG if 0 < self.long_from <= number else self.seconds


def number_of(task: str) -> int:
    return int(task.partition(":")[0])


def job(task: str) -> int:
    """One job of the batch: its number, if it ends at all."""
    number, seconds, notes = task.split(":", 2)
    _note(notes, "begun", number)
    if seconds == CRASH:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)
    time.sleep(SHORT if os.path.exists(notes + RESUMED) else float(seconds))
    _note(notes, "done", number)
    return int(number)


def _note(notes: str, word: str, number: str) -> None:
    """Written by one call, so that the lines of several processes do not mix."""
    fd = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, f"{word} {number} {os.getpid()}\n".encode())
    finally:
        os.close(fd)


# The same job for who runs programs: SCRIPT NUMBER:SECONDS:NOTES.
SCRIPT = f"""#!/bin/sh
number=${{1%%:*}} rest=${{1#*:}}
seconds=${{rest%%:*}} notes=${{rest#*:}}
echo "begun $number $$" >> "$notes"
if [ "$seconds" = {CRASH} ]; then ulimit -c 0; kill -SEGV $$; fi
if [ -e "$notes{RESUMED}" ]; then seconds={SHORT}; fi
sleep "$seconds"
echo "done $number $$" >> "$notes"
"""


def write_script(path: Path) -> Path:
    path.write_text(SCRIPT)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
