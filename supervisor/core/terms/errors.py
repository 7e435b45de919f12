"""The errors of longhaul and the exit codes of a script. Pure.

Every message names the thing, the place and the next step; `main` prints the message
without a traceback and exits with the error's code.
"""

from __future__ import annotations

from typing import Any, Self

_OPEN_FILES = (23, 24)  # ENFILE and EMFILE, the same on Linux and macOS

OK = 0  # all jobs completed

SOME_FAILED = 1  # the run is over, some jobs failed

USAGE = 2  # wrong options, a plan that cannot be run; retrying without a change is useless

UNUSABLE_CHECKPOINT = 65  # neither checkpoint nor journal can be used

BEING_RUN = 69  # another process runs the experiment; nothing was changed

SCRIPT_ERROR = 70  # jobs() or finish() of the script raised, or a fault of longhaul

CANNOT_CREATE = 73  # the output directory cannot be written

IO_ERROR = 74  # the disk failed and could not be worked around

BROKE_OFF = 75  # broke off by itself: no worker starts, too much has failed; can be resumed

STOPPED_AS_ASKED = 76  # stopped early because it was asked to: `longhaul ctl`, a deadline; can be resumed


class LonghaulError(Exception):
    """Base of all errors that longhaul raises for the user to read.

    `exit_code` is what `main` exits with after it has printed the message, in one line and without a
    traceback; `run` and `load` raise the error.
    """

    exit_code = BROKE_OFF


class UsageError(LonghaulError, ValueError):
    """The options, the keywords or the jobs are wrong; nothing was changed on disk. Exit code 2.

    It is a ValueError as well.
    """

    exit_code = USAGE


class UnusableCheckpoint(LonghaulError):
    """The files of the experiment cannot be used, or belong to different experiments. Exit code 65.

    Nothing was changed on disk.
    """

    exit_code = UNUSABLE_CHECKPOINT


class BeingRun(LonghaulError):
    """Another process runs the experiment; nothing was changed, and it goes on. Exit code 69."""

    exit_code = BEING_RUN


class TooLate(LonghaulError):
    """The deadline is so near that nothing can be started; the same command is right at another time."""

    exit_code = STOPPED_AS_ASKED


class CannotCreate(LonghaulError):
    """A directory or file cannot be created, written, synced or renamed. Exit code 73."""

    exit_code = CANNOT_CREATE


class StorageError(LonghaulError):
    """The disk failed in the middle of a run; what was synced before is safe. Exit code 74."""

    exit_code = IO_ERROR

    @classmethod
    def with_advice(cls, problem: object, next_step: str = "resume") -> Self:
        """The problem, what it means for the records, and what to do."""
        if isinstance(problem, OSError) and problem.errno in _OPEN_FILES:
            return cls(
                f"{problem}. What was recorded is safe; allow more open files (ulimit -n), then {next_step}."
            )
        return cls(f"{problem}. What was recorded is safe; fix the disk, then {next_step}.")


class WorkersError(LonghaulError):
    """No worker can be started, or every new one dies before it is ready. Exit code 75."""

    exit_code = BROKE_OFF


class NodesRefused(WorkersError):
    """All nodes that came have other versions than this process, of Python, of longhaul or of the user's code."""


class UnguardedMain(LonghaulError, RuntimeError):
    """`main` or `run` was called in a worker process: no `if __name__ == "__main__":`."""

    exit_code = USAGE


class RaisedByScript(Exception):  # no LonghaulError: only `main` and `run` see it
    """An error of the user's own code in the supervisor's process, on its way to the user.

    error: what was raised. where: `jobs()` or `finish()`. known: what is safe, and the next step.
    """

    def __init__(self, error: Exception, where: str, known: str) -> None:
        super().__init__(where)
        self.error = error
        self.where = where
        self.known = known


class JobsFailed(LonghaulError):
    """Some jobs of the experiment failed; raised only by `Report.raise_for_failures`. Exit code 1."""

    exit_code = SOME_FAILED


class RunInterrupted(KeyboardInterrupt):
    """`run()` was interrupted, and has given running jobs their time to finish.

    It is a KeyboardInterrupt, not a LonghaulError. `Interrupted` is an earlier name of this class.

    Attributes
    ----------
    report: the `Report` of what was finished; None if the signal came before anything was started.
    """

    def __init__(self, report: Any) -> None:
        where = " What was finished is in the `report` of this exception; at a prompt: sys.last_value.report"
        super().__init__(f"the run was interrupted; resume it with resume='latest'.{where if report else ''}")
        self.report = report


Interrupted = RunInterrupted  # its name up to now, for scripts that catch it
