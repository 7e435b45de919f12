"""`longhaul output JOB`: the output of a job; with --follow, until it ends."""

from __future__ import annotations

import argparse
import os
import sys
import time

import msgspec

from supervisor.commands.lookup import add_experiment, add_job, find_job, the_experiment
from supervisor.commands.tables import on_terminal
from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.wording import one_line, printed_lines
from supervisor.experiment.experiment_status import is_running
from supervisor.reports.progress_file import read_progress, seconds_since
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_format import is_ended
from supervisor.storage.recovery.survey import survey
from supervisor.views.console import print_lines
from workers.isolation.output_files import log_path, scratch_path

_EVERY = 0.3  # seconds between two reads
_SETTLED = 1.0  # seconds; before that the scratch file may still be the previous job's
_MOST = 64 << 20  # bytes read at once


def describe(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    add_experiment(parser)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="continue until the job is completed or failed"
    )


def run(arguments: argparse.Namespace) -> int:
    layout = the_experiment(arguments)
    ends = _Ends(layout)  # before the survey, so that no end after it is missed
    found = survey(layout)
    try:
        job = ends.job = find_job(arguments.job, found.table.ids)
        over = found.table.state[found.table.numbers[job]] in (COMPLETED, FAILED)
    finally:
        found.close()
    reader = _Reader(layout, job, ends)
    reader.show_new()
    while arguments.follow and not over:
        over = ends.job_is_over() or not is_running(layout)
        reader.show_new()  # after the check: then the log is complete
        sys.stdout.flush()
        if not over:
            time.sleep(_EVERY)
    reader.end()
    if not reader.shown:
        print_lines(sys.stderr, f"{one_line(job)} has printed nothing{'' if over else ' so far'}")
    return 0


class _Ends:
    """Watches the end of a journal for the ends of one job's attempts."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.journal
        self._inode, self._offset = self._where()
        self._rest = b""
        self.over = False
        self.job = ""
        self.attempts = 0  # that have ended since

    def _where(self) -> tuple[int, int]:
        try:
            status = os.stat(self._path)
        except OSError:
            return 0, 0
        return status.st_ino, status.st_size

    def job_is_over(self) -> bool:
        """Whether the job has been completed or failed since this was made."""
        for line in self._new_lines():
            found = _ended_of(line, self.job)
            if found is not None:
                self.attempts += 1
                self.over = found in ("completed", "failed")
        return self.over

    def _new_lines(self) -> list[bytes]:
        try:
            with open(self._path, "rb") as file:
                if os.fstat(file.fileno()).st_ino != self._inode:  # rewritten
                    self._inode, self._offset, self._rest = os.fstat(file.fileno()).st_ino, 0, b""
                file.seek(self._offset)
                text = file.read(_MOST)
        except OSError:
            return []
        self._offset += len(text)
        lines = (self._rest + text).split(b"\n")
        self._rest = lines.pop()
        return lines


class _End(msgspec.Struct):
    type: str
    job: str = ""
    state: str = ""


_decode_end = msgspec.json.Decoder(_End).decode


def _ended_of(line: bytes, job: str) -> str | None:
    """The state that the end of an attempt has given this job; None for other records."""
    if not is_ended(line):
        return None
    try:
        found = _decode_end(line)
    except msgspec.DecodeError:
        return None
    return found.state if found.job == job else None


class _Reader:
    """Shows the log of a job, and of the attempt that runs now what is not in the log yet.

    While a job runs it prints into its worker's scratch file, which becomes the log, or is
    appended to it under a heading, when the attempt ends.
    """

    def __init__(self, layout: Layout, job: str, ends: _Ends) -> None:
        self._layout = layout
        self._job = job
        self._ends = ends
        self._directory = str(layout.output_directory)
        self._log = log_path(self._directory, job)
        self._log_shown = 0
        self._scratch = ""
        self._inode = 0
        self._attempt = 0  # whose scratch file was read last
        self._logged = 0  # the last attempt whose output has come into the log while it was shown
        self._heading = 0  # bytes of it that were shown before the scratch file's own
        self._live_shown = 0  # bytes of the scratch file, and of the heading
        self._unfinished = b""
        self.shown = False

    def show_new(self) -> None:
        self._show_log()
        if self._ends.over:
            return  # the progress file may still say that it runs
        ended = self._ends.attempts
        data = self._read_scratch()
        self._ends.job_is_over()
        if data and self._ends.attempts == ended:  # else it may be the next job's
            self._live_shown += len(data)
            self._print(data)

    def end(self) -> None:
        """A last line without an end is shown as well."""
        rest, self._unfinished = self._unfinished, b""
        if rest:
            self._print(rest + b"\n")

    def _show_log(self) -> None:
        while data := _read(self._log, self._log_shown):
            self._log_shown += len(data)
            # What was shown from the scratch file already is skipped.
            seen = min(len(data), self._live_shown)
            if self._scratch:
                self._logged = self._attempt
            self._live_shown, self._scratch, self._inode = 0, "", 0
            self._print(data[seen:])

    def _read_scratch(self) -> bytes:
        """What the running attempt has printed since the last read."""
        if not self._scratch:
            self._scratch, self._attempt = self._find_scratch()
            if not self._scratch:
                return b""
            if self._log_shown:
                heading = f"\n--- attempt {self._attempt} ---\n".encode()
                self._heading = len(heading)
                return heading
            self._heading = 0
        try:
            inode = os.stat(self._scratch).st_ino
        except OSError:
            inode = 0
        if inode == 0 or self._inode not in (0, inode):
            return b""  # the attempt has ended; its output is in the log
        self._inode = inode
        return _read(self._scratch, self._live_shown - self._heading)

    def _find_scratch(self) -> tuple[str, int]:
        progress = read_progress(self._layout)
        for worker in progress.workers if progress is not None else ():
            if worker.job == self._job and worker.incarnation and progress is not None:
                age = seconds_since(worker.since or "", progress.saved_at)
                settled = age is not None and age >= _SETTLED
                if settled and worker.attempt > self._logged and is_running(self._layout):
                    return scratch_path(self._directory, worker.worker, worker.incarnation), worker.attempt
        return "", 0

    def _print(self, data: bytes) -> None:
        """Print bytes unchanged; on a terminal whole lines, without control characters."""
        if not data or sys.stdout is None:
            return
        self.shown = True
        if on_terminal():
            data = self._unfinished + data
            end = data.rfind(b"\n") + 1
            data, self._unfinished = data[:end], data[end:]
            sys.stdout.writelines(f"{line}\n" for line in printed_lines(data.decode(errors="replace")))
            return
        sys.stdout.flush()
        raw = getattr(sys.stdout, "buffer", None)
        if raw is None:
            sys.stdout.write(data.decode(errors="replace"))
        else:
            raw.write(data)
            raw.flush()


def _read(path: str, offset: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(_MOST)
    except OSError:
        return b""
