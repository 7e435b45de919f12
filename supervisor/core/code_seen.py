"""Which text of the user's modules each worker process has imported. Pure.

Workers that are forked share one import. Where one imports by itself, at its start or in a job, it
finds what the file holds by then.
"""

from __future__ import annotations

from collections.abc import Iterable

from supervisor.core.code_spans import DIGITS
from supervisor.core.crew import Worker
from supervisor.core.events import Tell
from supervisor.core.ledger import Turn
from supervisor.core.record_types import Noted
from workers.messages import ModuleText


class CodeSeen:
    """The text of the first import of each file; what differs from it later is told and recorded.
    So is, once in an experiment, what only workers import: a later run looks at its files, too."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}  # file -> sha256
        self._told: set[str] = set()
        self._known: set[str] = set()  # names of modules that are on record

    def know(self, names: Iterable[str]) -> None:
        """These modules are part of the code of the run, or were noted in an earlier one."""
        self._known.update(names)

    def note(self, modules: list[ModuleText], worker: Worker, lease: int, turn: Turn) -> None:
        """`worker` has imported these; its first lease was, or will not be before, `lease`. The user is
        told once of each file."""
        late = [module for module in modules if module.name not in self._known]
        if late:
            self.know(module.name for module in late)
            said = [[module.name, module.file, module.sha256[:DIGITS]] for module in late]
            turn.effects.records.append(Noted("code_imported", turn.at, {"modules": said}))
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
                "lease": lease,
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
        f"them have new text ('code_changed'); the results from the first job of that process on have a code "
        f"with a plus sign. To have all of one code: drain, then resume with --rerun code:old"
    )
