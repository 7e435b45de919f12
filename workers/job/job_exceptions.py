"""What a job may raise to say what is to become of it. Light: every experiment imports it."""

from __future__ import annotations

import math


class JobInterrupted(Exception):
    """The job has stopped in the middle, of its own accord, and wants to run again.

    Meant for `current_job().stopping`: save, raise this, and the attempt is `interrupted`,
    which costs the job nothing; it runs again when the experiment is resumed. Raised while
    nothing is being stopped, it sends the job to the end of the line, ten times in a run at
    most; after that it is an exception like any other.
    """


class Retry(Exception):
    """Run this job again, later; other jobs run meanwhile.

    reason: in words, for the record. after: seconds to wait; left out, the experiment's
    back-off. most: the job fails when it has wished for more attempts than this.
    Raises ValueError for a wait or a number that makes no sense.
    """

    def __init__(self, reason: object = "", *, after: float | None = None, most: int = 10) -> None:
        super().__init__(reason)
        if after is not None and not (_is_number(after) and 0 <= after < math.inf):
            raise ValueError(f"Retry(after={after!r}): expected seconds, 0 or more")
        if isinstance(most, bool) or not isinstance(most, int) or not 0 <= most < 2**31:
            raise ValueError(f"Retry(most={most!r}): expected a whole number, 0 or more")
        self.after = None if after is None else float(after)
        self.most = most

    def __str__(self) -> str:
        return str(self.args[0])


class GiveUp(Exception):
    """This job has failed, and another attempt would be of no use, whatever `--retries` says.

    reason: in words, for the record.
    """


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


for _wish in (JobInterrupted, Retry, GiveUp):
    _wish.__module__ = "workers"  # where users know them from
del _wish
