"""Writes what nodes send that share no file system with this one: the same files as workers on this machine write.

What workers print goes into the same scratch files and logs. Artifacts are not synced, as here. Saved states are.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable

from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.system.confined_tree import ConfinedTree, ForbiddenName
from workers.isolation.output_files import (
    STRAY_HEADING,
    ZYGOTE_LOG,
    collect,
    move,
    scratch_path,
    stacks_path,
    stray_path,
    trim,
)
from workers.job.file_names import file_name


class ShippedFiles:
    """The files of one experiment, whose lock is held. limit: bytes of a job's output that are kept. tell: gets a
    sentence for the user."""

    def __init__(self, layout: Layout, limit: int, tell: Callable[[str], None]) -> None:
        self._layout = layout
        self._limit = limit
        self.tell = tell
        self._disk = Disk()
        self._output = str(layout.output_directory)
        self.jobs_directory = str(layout.jobs_directory)
        self.states_directory = str(layout.states_directory)
        self._numbers = 0
        self._saved: set[str] | None = None  # names of files with states

    def make_token(self) -> str:
        """A file that is seen by nodes that share this file system, with its own name in it. Raises OSError."""
        token = secrets.token_hex(8)
        path = self._layout.from_nodes / token
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(token)
        return str(path)

    def close(self) -> None:
        """Remove what is not in its place."""
        shutil.rmtree(self._layout.from_nodes, ignore_errors=True)

    # ----------------------------------------------------------------------- output

    def printed(self, worker: int, incarnation: int, offset: int, data: bytes) -> None:
        """What the disk refuses is lost, as the output of a worker here."""
        path = scratch_path(self._output, worker, incarnation)
        with contextlib.suppress(OSError):
            os.makedirs(self._output, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags | (0 if offset else os.O_TRUNC), 0o666)
            try:
                os.ftruncate(descriptor, offset)
                os.lseek(descriptor, offset, os.SEEK_SET)
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
        if offset + len(data) > self._limit:
            trim(path, self._limit)

    def log_ended(self, worker: int, incarnation: int, job: str | None, attempt: int, *, whole: bool) -> None:
        """The scratch file becomes the log of a job, or of what the worker printed outside of any. `whole`: it was
        cut to the limit already."""
        scratch = scratch_path(self._output, worker, incarnation)
        limit = sys.maxsize if whole else self._limit
        with contextlib.suppress(OSError):
            if job is None:
                move(scratch, self.stray_log(worker), STRAY_HEADING, limit)
            else:
                collect(scratch, self._output, job, attempt, limit)

    def drop_output(self, worker: int, incarnation: int) -> None:
        with contextlib.suppress(OSError):
            os.unlink(scratch_path(self._output, worker, incarnation))

    def stray_log(self, worker: int) -> str:
        return stray_path(self._output, worker)

    def stacks_written(self, worker: int, incarnation: int, data: bytes) -> None:
        with (
            contextlib.suppress(OSError),
            open(stacks_path(self._output, worker, incarnation), "ab") as file,
        ):
            file.write(data)

    def zygote_printed(self, data: bytes) -> None:
        with contextlib.suppress(OSError), open(os.path.join(self._output, ZYGOTE_LOG), "ab") as file:
            file.write(data)

    def worker_ended(self, worker: int, incarnation: int) -> None:
        with contextlib.suppress(OSError):
            os.unlink(stacks_path(self._output, worker, incarnation))

    # ---------------------------------------------------------- artifacts and states

    def beside(self) -> str:
        self._numbers += 1
        directory = self._layout.from_nodes
        directory.mkdir(parents=True, exist_ok=True)
        return str(directory / f"parcel-{self._numbers}")

    def keep_artifacts(self, job: str, tree: ConfinedTree) -> None:
        os.makedirs(self.jobs_directory, exist_ok=True)
        tree.move_to(os.path.join(self.jobs_directory, file_name(job)))

    def keep_states(self, job: str, states: ConfinedTree, artifacts: ConfinedTree | None) -> None:
        """The artifacts that the states may name are there before them. Raises ForbiddenName, too, if another file is
        among the states."""
        names = states.files()
        if others := set(names).difference(_state_names(job)):
            raise ForbiddenName(", ".join(map(repr, sorted(others))))
        states.sync()
        if artifacts is not None:
            self.keep_artifacts(job, artifacts)
        self._disk.make_directory(self.states_directory)
        for name in names:
            self._disk.rename(os.path.join(states.path, name), os.path.join(self.states_directory, name))
        self._disk.sync_directory(self.states_directory)
        self._known_states().update(names)

    def states_of(self, job: str) -> list[str]:
        known = self._known_states()
        names = [name for name in _state_names(job) if name in known]
        return [name for name in names if os.path.exists(os.path.join(self.states_directory, name))]

    def has_states(self) -> bool:
        return bool(self._known_states())

    def _known_states(self) -> set[str]:
        """All that were there at the first look, and came since; some may be removed by now."""
        if self._saved is None:
            try:
                self._saved = set(os.listdir(self.states_directory))
            except OSError:
                self._saved = set()
        return self._saved


def _state_names(job: str) -> tuple[str, str]:
    name = file_name(job)
    return f"{name}.json", f"{name}~.json"
