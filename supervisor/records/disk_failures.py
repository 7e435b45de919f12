"""A disk that fails: how often that is worked around, and what the user is told.

A failed write or sync is answered by the store with a new file that holds everything. Here
is only the policy and its words; no file is touched.
"""

from __future__ import annotations

import errno

from supervisor.core.errors import StorageError
from supervisor.records.altered import Altered, told

# A disk that fails so often within so many seconds is not worked around any more: writing
# a whole journal again and again helps nobody.
MOST_FAILURES, FAILURES_WITHIN = 5, 60.0


class DiskFailures:
    """When the disk failed lately, on the loop's clock in seconds."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def add(self, error: OSError, path: str, now: float) -> None:
        """One more, under the journal at `path`. Raises StorageError if it was one too many."""
        self._times = [time for time in self._times if now - time < FAILURES_WITHIN] + [now]
        if len(self._times) >= MOST_FAILURES:
            raise StorageError(
                f"the disk under {path} failed {MOST_FAILURES} times within {FAILURES_WITHIN:.0f} s "
                f"({error.strerror or error}). What was synced is safe; see to the disk, then resume."
            )

    @staticmethod
    def overcome(error: OSError, path: str) -> str:
        """The sentence for the user when all records stand in a new file."""
        if error.errno == errno.ENOENT:
            return f"Somebody has removed {path}; all records were written again, into a new file."
        if isinstance(error, Altered):
            return told(path)
        return (
            f"The disk failed under {path} ({error.strerror or error}); "
            f"all records were written again, into a new file."
        )
