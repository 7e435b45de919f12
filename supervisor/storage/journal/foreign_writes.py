"""Another process truncates the journal or writes into it during a run: `> journal_x.jsonl`, an editor, a
tool that restores files.

All records are then written again, into a new file: from the lines that are left and from memory. If some
records are in neither, the run ends. A resume takes their results from the checkpoint; jobs that it does
not have run again.
"""

from __future__ import annotations

from supervisor.core.terms.errors import StorageError


class JournalAltered(OSError):
    """Another process has changed the size of the journal. `size`: its size now, in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(None, "somebody else has changed its size")
        self.size = size


class RecordsLost(StorageError):
    """Records are gone from the journal, so results cannot be read by their offsets."""


def rewritten_message(path: str) -> str:
    """The notice for the user once all records are in a new file."""
    return f"Somebody has cut {path} or written into it; all records were written again, into a new file."


def records_lost_error(path: str, size: int, error: OSError) -> RecordsLost:
    """The error if some records are neither in the file nor in memory."""
    return RecordsLost(
        f"somebody has cut or overwritten {path} while the run was writing it: {size:,} bytes are left, and "
        f"{error.strerror or error}. What is left of it and what the checkpoint has is kept: resume, and "
        f"only what neither of them has runs again."
    )
