"""`FileOwner`: whose files those of a lease are, as whoever stores them asks the core."""

from __future__ import annotations

from typing import NamedTuple


class FileOwner(NamedTuple):
    """attempt: its number if it ends next. of_use: the outcome of the lease may still count; if not, the job was
    given to another worker. completed: the job has a result already.
    """

    job: str
    attempt: int
    of_use: bool
    completed: bool
