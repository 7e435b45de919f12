"""Files of the script that all workers read at one position, told once. Pure."""

from __future__ import annotations

from supervisor.core.events import FilesShared, Tell
from supervisor.core.ledger import Turn


class SharedFiles:
    """What the user was told already: another process may find the same files again."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def on_files_shared(self, event: FilesShared, turn: Turn) -> None:
        """Say each file once, and what to do."""
        for file in event.files:
            if file not in self._told:
                self._told.add(file)
                turn.effects.commands.append(Tell("warning", _words(file)))


def _words(file: str) -> str:
    return (
        f"the script has a file open that workers cannot open anew ({file}): they share one position in it, and "
        "what one reads moves the others, so that jobs may read wrong data. Open it in setup() or in the job"
    )
