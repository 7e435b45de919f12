"""`run_program`: the function of the jobs of `longhaul exec`, and `enter`, its setup."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
import threading
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from workers.isolation.output_files import tail
from workers.job.current_job import CURRENT, inside_worker
from workers.job.file_names import file_name
from workers.job.job_exceptions import JobInterrupted
from workers.process.surrogates import received, sendable
from workers.program.command_template import Template, as_bytes, texts_of
from workers.program.program_end import ProgramFailed, failure_of_status
from workers.program.program_processes import ProgramProcesses
from workers.program.program_result import Tail, last_line, object_of, read_result_file

RESULTS = ("auto", "none", "last-line", "file")
_PROCESSES = ProgramProcesses()
_RESULT_FILE = "longhaul_result.json"
_PARAM = b"LONGHAUL_PARAM_"
_LONGEST = 100_000  # bytes of a variable; the kernel refuses a longer one together with the program
_CHUNK = 1 << 16
_HELD = 3.0  # seconds until a pipe is left to those who hold it open after the end of the program


class ProgramSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What all programs of an experiment have in common. Texts are `sendable`.

    command: words with names in braces. directory: in which they run; absolute. of_lines: jobs are lines of a list.
    retry_codes: exit codes after which there may be another attempt; None: after any. unset: variables that only
    longhaul has set.
    """

    command: list[str]
    directory: str
    of_lines: bool = False
    result: Literal["auto", "none", "last-line", "file"] = "auto"
    on_drain: Literal["wait", "term"] = "wait"
    retry_codes: list[int] | None = None
    unset: list[str] = []

    @classmethod
    def packed(cls, *, command: list[str], directory: str, **more: Any) -> ProgramSpec:
        return cls(command=[sendable(word) for word in command], directory=sendable(directory), **more)


def enter(spec: dict[str, Any], /) -> None:
    """Prepare this process for programs: the directory, and that it adopts what they leave behind. Nothing else
    runs in it: it is a worker, or that of a replay."""
    os.chdir(received(spec["directory"]))
    _PROCESSES.adopt()


def run_program(spec: dict[str, Any], /, **params: Any) -> Any:
    """Run the program of one job; its result. `spec`: a `ProgramSpec` as JSON has it.

    Raises ProgramFailed, JobInterrupted, and OSError for a program that cannot be started.
    """
    program = _Program.of(spec)
    return program.run(params)


class _Program:
    """Runs one program after the other."""

    _last: tuple[dict[str, Any], _Program] | None = None

    @classmethod
    def of(cls, spec: dict[str, Any]) -> _Program:
        if cls._last is None or cls._last[0] is not spec:
            cls._last = spec, cls(msgspec.convert(spec, ProgramSpec))
        return cls._last[1]

    def __init__(self, spec: ProgramSpec) -> None:
        self._spec = spec
        self._words = [Template(received(word)) for word in spec.command]
        self._states_made = False
        self._log = _Log()
        self._spare = ""  # a folder of a job that has left it empty
        self._inherited: dict[bytes, bytes] = {}
        self._inherited_with = -1.0  # the cores of the job that it was made for: caps of threads follow them

    def run(self, params: Mapping[str, Any]) -> Any:
        spec = self._spec
        texts = texts_of(params, of_lines=spec.of_lines)
        try:
            words = [as_bytes(word.filled(texts)) for word in self._words]
        except KeyError as name:
            message = f"{{{name.args[0]}}} has no value among the params of the job"
            raise ProgramFailed("raised", "no value", message, wish="give_up") from None
        directory = self._directory()
        result_file = os.path.join(directory, _RESULT_FILE)
        environment, state = self._environment(directory, result_file, texts)
        completed = False
        try:
            value = self._result_of(words, environment, directory)
            completed = True
            return value
        finally:
            _settle_state(state, completed=completed)

    def _directory(self) -> str:
        """The folder of the job, without a result. If the last one has left its own empty, that one is renamed: to
        remove a folder may take milliseconds."""
        spare, self._spare = self._spare, ""
        jobs = CURRENT.jobs_directory
        if spare and jobs:
            directory = os.path.join(jobs, file_name(CURRENT.id))
            try:
                os.rename(spare, directory)
            except OSError:  # an earlier attempt has left files there; the spare one stays
                pass
            else:
                return directory
        directory = os.fspath(CURRENT.directory)
        _remove(os.path.join(directory, _RESULT_FILE))
        return directory

    def _result_of(self, words: list[bytes], environment: Mapping[bytes, bytes], directory: str) -> Any:
        spec = self._spec
        asked_to_stop = False

        def stopping() -> bool:
            nonlocal asked_to_stop
            asked_to_stop = CURRENT.stopping
            return asked_to_stop

        stdout = self._log if self._log.begin() else _Passed()
        try:
            pid = _start(words, environment, stdout.descriptor)
            try:
                status = _PROCESSES.wait(pid, stopping if spec.on_drain == "term" else None)
            except BaseException:
                _PROCESSES.kill(pid)
                raise
            left = _PROCESSES.end_leftovers()
            failure = failure_of_status(status, stdout.tail(), spec.retry_codes) if status else None
            if left:
                _tell(f"longhaul: killed what the program has left behind: {', '.join(left[:5])}")
            if stdout.was_truncated():
                _tell(
                    "longhaul: the program has emptied its log: > /dev/stdout does that; >&1 and >&2 do not"
                )
            if failure is not None:
                raise failure
            written, value = self._result_file(directory)
            if not written and spec.result in ("auto", "last-line"):
                value = object_of(stdout.last_line())
                written = value is not None
        finally:
            stdout.end()
        if asked_to_stop and not written:
            raise JobInterrupted("the program ended after SIGTERM without a result")
        return value

    def _result_file(self, directory: str) -> tuple[bool, Any]:
        """Whether the program has written a result, and the result. The folder is kept for the next job if there is
        nothing else in it."""
        written, value = False, None
        try:
            there = os.listdir(directory)
        except OSError:  # the program has removed it
            return False, None
        if _RESULT_FILE in there and self._spec.result in ("auto", "file"):
            path = os.path.join(directory, _RESULT_FILE)
            written, value = read_result_file(path)
            _remove(path)
        if not there or (written and len(there) == 1):
            self._spare = directory
        return written, value

    def _environment(
        self, directory: str, result_file: str, texts: Mapping[str, str]
    ) -> tuple[dict[bytes, bytes], str]:
        """The variables of the program, and the path of its saved state."""
        job = CURRENT
        state = self._state_file(directory)
        if self._inherited_with != job.cpus or not inside_worker():
            self._inherited, self._inherited_with = self._variables_here(), job.cpus
        found = self._inherited.copy()
        found[b"LONGHAUL_JOB"] = as_bytes(job.id)
        found[b"LONGHAUL_ATTEMPT"] = b"%d" % job.attempt
        found[b"LONGHAUL_SEED"] = b"%d" % job.seed
        found[b"LONGHAUL_DIRECTORY"] = os.fsencode(directory)
        found[b"LONGHAUL_RESULT"] = os.fsencode(result_file)
        found[b"LONGHAUL_STATE"] = os.fsencode(state)
        for name, text in texts.items():
            value = as_bytes(text)
            if len(value) <= _LONGEST:
                found[_variable(name)] = value
        return found, state

    def _variables_here(self) -> dict[bytes, bytes]:
        """The variables of this process, without values of another job that runs it, and what all jobs have in
        common."""
        unset = [name.encode() for name in self._spec.unset]
        found = {
            name: value
            for name, value in os.environb.items()
            if not name.startswith(_PARAM) and name not in unset
        }
        found[b"LONGHAUL_WORKER"] = b"%d" % CURRENT.worker
        found[b"LONGHAUL_CPUS"] = f"{CURRENT.cpus:g}".encode()
        found[b"LONGHAUL_GPUS"] = ",".join(CURRENT.gpus).encode()
        return found

    def _state_file(self, directory: str) -> str:
        states = CURRENT.states_directory
        if not states:
            return os.path.join(directory, "state")
        if not self._states_made:
            os.makedirs(states, exist_ok=True)
            self._states_made = True
        return os.path.join(states, f"{file_name(CURRENT.id)}.state")


def _remove(path: str) -> None:
    """Whatever the program has put there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def _start(words: list[bytes], environment: Mapping[bytes, bytes], stdout: int) -> int:
    try:
        try:
            return _PROCESSES.start(words, environment, stdout)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
        # Words and variables together are too long. The words are what was asked for; the values are there twice.
        fewer = {name: value for name, value in environment.items() if not name.startswith(_PARAM)}
        return _PROCESSES.start(words, fewer, stdout)
    except (OSError, ValueError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        message = f"{words[0].decode(errors='replace')}: {why} (in {os.getcwd()})"
        raise ProgramFailed("raised", "cannot be started", message, output=message) from None


@functools.cache
def _variable(name: str) -> bytes:
    """The variable with the value of this name, as shells can read it."""
    return _PARAM + "".join(one if one.isascii() and one.isalnum() else "_" for one in name).encode()


def _settle_state(state: str, *, completed: bool) -> None:
    """Drop the saved state of a completed job; else bring it to the disk."""
    with contextlib.suppress(OSError):
        if completed:
            os.unlink(state)
            return
        descriptor = os.open(state, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="surrogateescape"))


# ---------------------------------------------------------------------- what it prints


class _Log:
    """Standard output of a program in a worker: the log of the job, through a description of its own."""

    def __init__(self) -> None:
        self.descriptor = -1
        self._file = (-1, -1)
        self._before = 0

    def begin(self) -> bool:
        """Before a job; false where there is no such log. A job that has printed nothing leaves its to the next."""
        if not inside_worker():
            return False
        status = os.fstat(1)
        if self._file != (status.st_dev, status.st_ino):
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor, self._file = -1, (-1, -1)
            try:
                if not stat.S_ISREG(status.st_mode):
                    return False
                self.descriptor = os.open("/proc/self/fd/1", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            except OSError:
                return False
            self._file = status.st_dev, status.st_ino
        self._before = os.lseek(self.descriptor, 0, os.SEEK_CUR)
        return True

    def last_line(self) -> bytes:
        end = os.lseek(self.descriptor, 0, os.SEEK_CUR)
        return last_line(self.descriptor, end) if end != self._before else b""

    def tail(self) -> str:
        return tail("/proc/self/fd/1")

    def was_truncated(self) -> bool:
        """Whether the log is shorter than it was: `> /dev/stderr` opens it once more, and empties it."""
        return os.lseek(self.descriptor, 0, os.SEEK_CUR) > os.fstat(self.descriptor).st_size

    def end(self) -> None:
        """It is kept."""


class _Passed:
    """Standard output of a program in any other process: passed on to that of the process."""

    def __init__(self) -> None:
        self._reader, self.descriptor = os.pipe()
        self._tail = Tail()
        self._thread = threading.Thread(target=self._pass_on, name="longhaul-output", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        while piece := os.read(self._reader, _CHUNK):
            self._tail.add(piece)
            while piece:
                try:
                    piece = piece[os.write(1, piece) :]
                except OSError:  # nobody reads it any more
                    break

    def last_line(self) -> bytes:
        self._close_writer()
        return self._tail.last_line()

    def tail(self) -> str:
        self._close_writer()
        return ""  # it has just been shown

    def was_truncated(self) -> bool:
        return False

    def _close_writer(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            self._thread.join(_HELD)

    def end(self) -> None:
        self._close_writer()
        if not self._thread.is_alive():
            os.close(self._reader)


__all__ = ["ProgramFailed", "ProgramSpec", "enter", "run_program"]
