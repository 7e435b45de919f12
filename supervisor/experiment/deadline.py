"""`--deadline`: when the run has to be over, as a time on the wall clock.

The next 07:30, eight hours from now, or the end of the Slurm allocation. The drain begins so
much earlier that the grace time and the last files fit before it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from supervisor.core.terms.errors import TooLate, UsageError
from supervisor.core.terms.settings import Settings, is_clock, parse_duration

# Seconds for what follows the grace: kills, the last checkpoint, the final files.
FINISHING = 5.0


class Deadline(msgspec.Struct):
    """`drain_at`: when the drain begins, in seconds since the epoch. reason: in words."""

    drain_at: float
    reason: str


def deadline_of(
    settings: Settings, now: datetime | None = None, environment: Mapping[str, str] = os.environ
) -> Deadline | None:
    """The deadline of a run that starts now; None without one.

    Raises UsageError if it cannot be determined, or if it can never leave time to start a job; TooLate if it
    leaves none now.
    """
    text = settings.deadline
    if text is None:
        return None
    now = now or datetime.now()
    before = settings.grace + FINISHING
    if text == "slurm":
        end = _end_of_allocation(environment)
    elif is_clock(text):
        end = _next(text, now)
    else:
        end = _later(text, now)
    if (end - now).total_seconds() <= before:
        # The next 07:30 or allocation is another one; a date and a duration stay as they are.
        now_only = text == "slurm" or (is_clock(text) and "-" not in text)
        raise (TooLate if now_only else UsageError)(
            f"--deadline {text}: nothing can be started before {end:%Y-%m-%d %H:%M:%S}: running jobs get "
            f"{settings.grace:g} s to finish (--grace), and {FINISHING:g} s are for the last files. "
            f"Give a later one, a shorter --grace, or --deadline none."
        )
    return Deadline(end.timestamp() - before, f"the deadline is at {end:%H:%M:%S} (--deadline {text})")


def _later(text: str, now: datetime) -> datetime:
    try:
        return now + timedelta(seconds=parse_duration(text))
    except OverflowError:
        raise UsageError(
            f"--deadline {text}: this date is too far in the future; --deadline none means no deadline"
        ) from None


def _next(text: str, now: datetime) -> datetime:
    """The date and time, or the next occurrence of a time of day."""
    try:
        if "-" in text:
            return datetime.fromisoformat(text)
        hour, minute = map(int, text.split(":"))
        end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        raise UsageError(f"--deadline {text}: there is no such date and time") from None
    return end if end > now else end + timedelta(days=1)


def _end_of_allocation(environment: Mapping[str, str]) -> datetime:
    end = environment.get("SLURM_JOB_END_TIME", "")
    if end.isdigit() and int(end):
        return datetime.fromtimestamp(int(end))
    job = environment.get("SLURM_JOB_ID", "")
    if not job:
        raise UsageError(
            "--deadline slurm: this is not inside a Slurm allocation (SLURM_JOB_ID is not set); "
            "give a time such as 07:30, or --deadline none"
        )
    try:
        answer = subprocess.run(
            ["scontrol", "show", "job", "--oneliner", job],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout
        field = next(word for word in answer.split() if word.startswith("EndTime="))
        return datetime.fromisoformat(field.removeprefix("EndTime="))
    except (OSError, subprocess.TimeoutExpired, StopIteration, ValueError):
        raise UsageError(
            f"--deadline slurm: scontrol does not report when job {job} ends; "
            f"give a time such as 07:30, or --deadline none"
        ) from None
