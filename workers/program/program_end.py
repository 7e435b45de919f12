"""How a program ended that was run for a job, as the outcome of that job."""

from __future__ import annotations

import os
import signal
from typing import Literal

from workers.job.job_exceptions import JobInterrupted

# Signals that a program gets for what it does, or from the kernel that is out of memory.
CRASHES = ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT")
# Signals by which somebody asks a program to stop.
STOPS = ("SIGTERM", "SIGINT", "SIGHUP")
_ADVICE = {
    126: "the command was found, but could not be executed",
    127: "a command was not found",
}
_MOST_SAID = 500  # characters of a line
_AFTER_SIGNAL = 128  # a shell adds the number of the signal that a command of it died of


class ProgramFailed(Exception):
    """A program ended without what makes its job completed.

    outcome: of the job. kind: a few words by which failures are grouped. output: the last lines that it has
    printed. wish: whether there may be another attempt, as `Failed.wish`. exit_code, signal: how it ended, if it ran.
    """

    def __init__(
        self,
        outcome: Literal["raised", "unencodable", "crashed"],
        kind: str,
        message: str,
        *,
        output: str = "",
        wish: Literal["", "give_up"] = "",
        exit_code: int | None = None,
        signal: int | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.kind = kind
        self.message = message
        self.output = output
        self.wish = wish
        self.exit_code = exit_code
        self.signal = signal

    def __str__(self) -> str:
        return f"{self.kind}{': ' if self.message else ''}{self.message}"


def failure_of_status(status: int, output: str, retry_codes: list[int] | None) -> Exception:
    """The exception for a wait status other than exit code 0.

    output: the last lines that it has printed. retry_codes: exit codes after which there may be another attempt;
    None: after any, as the settings say.
    """
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal_name(number)
        if name in STOPS:
            return JobInterrupted(f"the program was ended by {name}, which was not sent by longhaul")
        crashed = name in CRASHES
        message = _killed(name, core=os.WCOREDUMP(status))
        return ProgramFailed("crashed" if crashed else "raised", name, message, output=output, signal=number)
    code = os.WEXITSTATUS(status)
    return ProgramFailed(
        "raised",
        f"exit code {code}",
        _last_words(code, output),
        output=output,
        wish="give_up" if retry_codes is not None and code not in retry_codes else "",
        exit_code=code,
    )


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _killed(name: str, *, core: bool) -> str:
    more = ", perhaps because the memory was used up" if name == "SIGKILL" else ""
    return f"the program was killed by {name}{more}{' (core dumped)' if core else ''}"


def _last_words(code: int, output: str) -> str:
    """The last line that was printed, which mostly says what is wrong; and what the code means to a shell."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    meaning = _ADVICE.get(code, "")
    if code > _AFTER_SIGNAL and signal_name(code - _AFTER_SIGNAL).startswith("SIG"):
        meaning = f"as a shell says after {signal_name(code - _AFTER_SIGNAL)}"
    return "; ".join(filter(None, [lines[-1][-_MOST_SAID:] if lines else "", meaning]))
