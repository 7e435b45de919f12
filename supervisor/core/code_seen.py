"""Which text of the user's modules each worker process has imported. Pure.

Workers that are forked share one import. Where one imports by itself, at its start or in a job, it
finds what the file holds by then.
"""

from __future__ import annotations

from supervisor.core.crew import Worker
from supervisor.core.events import Tell
from supervisor.core.ledger import Turn
from supervisor.core.record_types import Noted
from workers.messages import ModuleText


class CodeSeen:
    """The text of the first import of each file; what differs from it later is told and recorded."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}  # file -> sha256
        self._told: set[str] = set()

    def note(self, modules: list[ModuleText], worker: Worker, turn: Turn) -> None:
        """`worker` has imported these. The user is told once of each file."""
        for module in modules:
            before = self._first.setdefault(module.file, module.sha256)
            if before == module.sha256:
                continue
            detail = {
                "file": module.file,
                "worker": worker.slot,
                "incarnation": worker.incarnation,
                "sha256": module.sha256,
                "before": before,
            }
            turn.effects.records.append(Noted("code_changed", turn.at, detail))
            if module.file not in self._told:
                self._told.add(module.file)
                turn.effects.commands.append(Tell("warning", _words(module.file, worker)))


def _words(file: str, worker: Worker) -> str:
    return (
        f"{file} was changed while the run goes on, and worker {worker.slot} has imported the new text. What "
        f"process {worker.incarnation} of this experiment and later ones return is of the new code, what the "
        f"earlier ones return is of the old. The journal says which process ran a job ('leased') and which of "
        f"them have new text ('code_changed'). To have all of one code: drain, then resume with --changed rerun"
    )
