"""Exceptions by which a job ends, retries or gives up. It imports little, since every script imports it."""

from __future__ import annotations

import math


class JobInterrupted(Exception):
    """The job has stopped in the middle, of its own accord, and is to run again.

    Meant for `current_job().stopping`: save the state, then raise this. The attempt is recorded as
    `interrupted`, which uses up none of the job's attempts, and the job runs again when the
    experiment is resumed. Raised while nothing is being stopped, it sends the job back: it runs
    again a second later, ten times in a run at most. After that it is an exception like any other.

    `Interrupted` is an earlier name of this class.
    """


class Retry(Exception):
    """Run this job again, later; other jobs run meanwhile.

    Parameters
    ----------
    reason: in words, for the record.
    after: seconds to wait, 0 or more; None: as long as after an error, by `--backoff`.
    most: how many further attempts the job may ask for; it fails when it asks for one more.

    Raises ValueError if `after` or `most` is none of these numbers.
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
    """This job has failed, and there is no further attempt in this run, whatever `--retries` says.

    Its arguments say why, in words, for the record: `raise GiveUp("no such data")`.
    """


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


for _wish in (JobInterrupted, Retry, GiveUp):
    _wish.__module__ = "workers"  # where users know them from
del _wish
