"""A journal that somebody else cuts or writes into while the run writes it: `> journal_x.jsonl`, an
editor, a tool that copies files back.

Its lines, and those that are still in memory, go to a new file. If some are in neither, the run ends:
a resume takes what they said from the checkpoint, and what that does not have runs again.
"""

from __future__ import annotations

from supervisor.core.terms.errors import StorageError


class Altered(OSError):
    """Somebody else has changed the size of the journal. `size`: what it is now, in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(None, "somebody else has changed its size")
        self.size = size


class RecordsLost(StorageError):
    """Records that were written are gone from the journal; no result can be read by its place."""


def rewritten_message(path: str) -> str:
    """The sentence for the user when all records stand in a new file."""
    return f"Somebody has cut {path} or written into it; all records were written again, into a new file."


def records_lost_error(path: str, size: int, error: OSError) -> RecordsLost:
    """When not all of them can be put together again."""
    return RecordsLost(
        f"somebody has cut or overwritten {path} while the run was writing it: {size:,} bytes are left, and "
        f"{error.strerror or error}. What is left of it and what the checkpoint has is kept: resume, and "
        f"only what neither of them has runs again."
    )
