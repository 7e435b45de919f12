"""What workers report about the script: which text of its modules they imported, which files they share. Pure.

Forked workers share the imports of the zygote. A worker that imports by itself, at its start or in a job,
imports what the file contains at that moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from supervisor.core.dispatch.turn import Turn
from supervisor.core.state.worker_state import WorkerState
from supervisor.core.terms.code_spans import DIGITS
from supervisor.core.terms.events import FilesShared, Tell
from supervisor.core.terms.records import Noted
from workers.transport.messages import ModuleText


class CodeSeen:
    """Compares the text of each imported file with that at the beginning of the run, or of its first import.

    A file that differs is recorded, and the user is warned. Modules that only workers import are recorded once
    in an experiment, so that a later run checks their files too.
    """

    def __init__(self) -> None:
        self._first: dict[str, str] = {}  # file -> sha256, or how it begins
        self._told: set[str] = set()
        self._known: set[str] = set()  # names of modules that are on record

    def know(self, names: Iterable[str], texts: Mapping[str, str] | None = None) -> None:
        """These modules are part of the code of the run, or were noted in an earlier one. `texts`: how the
        sha256 of their files began when the run did."""
        self._known.update(names)
        self._first.update(texts or {})

    def note(self, modules: list[ModuleText], worker: WorkerState, lease: int, turn: Turn) -> None:
        """`worker` has imported these. `lease`: its first one, or if it has none yet, a number that is not
        above it. The user is told once of each file."""
        late = [module for module in modules if module.name not in self._known]
        if late:
            self.know(module.name for module in late)
            entries = [[module.name, module.file, module.sha256[:DIGITS]] for module in late]
            turn.effects.records.append(Noted("code_imported", turn.at, {"modules": entries}))
        for module in modules:
            if not module.sha256:  # it cannot be read
                continue
            before = self._first.setdefault(module.file, module.sha256)
            if module.sha256.startswith(before):
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
                turn.effects.commands.append(Tell("warning", _changed_code_message(module.file, worker)))


def _changed_code_message(file: str, worker: WorkerState) -> str:
    return (
        f"{file} was changed while the run goes on, and worker {worker.slot} has imported the new text. What "
        f"process {worker.incarnation} of this experiment and later ones return is of the new code, what the "
        f"earlier ones return is of the old. The journal says which process ran a job ('leased') and which of "
        f"them have new text ('code_changed'); the results from the first job of that process on have a code "
        f"with a plus sign. To have all of one code: drain, then resume with --rerun code:old"
    )


class SharedFiles:
    """The files that the user was warned of: another process may report the same ones again."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def on_files_shared(self, event: FilesShared, turn: Turn) -> None:
        """Warn of each file once, with what to do."""
        for file in event.files:
            if file not in self._told:
                self._told.add(file)
                turn.effects.commands.append(Tell("warning", _shared_file_message(file)))


def _shared_file_message(file: str) -> str:
    return (
        f"the script has a file open that workers cannot open anew ({file}): they share one position in it, and "
        "what one reads moves the others, so that jobs may read wrong data. Open it in setup() or in the job"
    )
