"""What the supervisor records of the modules that workers have imported."""

from __future__ import annotations

from typing import Any

from supervisor.core.dispatch.turn import Turn
from supervisor.core.scheduling.worker_notices import CodeSeen
from supervisor.core.state.run_history import RunHistory
from supervisor.core.state.worker_state import WorkerState
from supervisor.core.terms.code_spans import CodeSpan
from supervisor.core.terms.events import Tell
from supervisor.core.terms.records import Noted, RunStarted
from workers.transport.messages import ModuleText

AT = "2025-10-14T21:00:00.000Z"
OLD, NEW = "0" * 64, "1" * 64


class Imports:
    """A run whose workers tell what they have imported."""

    def __init__(self, **code: Any) -> None:
        self.history = RunHistory()
        self.history.apply(RunStarted(1, AT, code=code, codes=[CodeSpan("aaaa", 1)]))
        self.seen = CodeSeen()
        self.seen.know(self.history.modules(), self.history.module_texts())
        self.told: list[str] = []

    def report(self, incarnation: int, lease: int, sha256: str) -> None:
        turn = Turn(0.0, AT, 1)
        module = ModuleText("lazy", "/x/lazy.py", sha256)
        self.seen.note([module], WorkerState(0, incarnation), lease, turn)
        for record in turn.effects.records:
            assert isinstance(record, Noted)
            self.history.apply(record)
        self.told += [told.text for told in turn.effects.commands if isinstance(told, Tell)]

    def versions(self, leases: int) -> list[str | None]:
        return [self.history.codes.version(lease) for lease in range(1, leases + 1)]


def test_workers_report_in_any_order() -> None:
    imports = Imports()
    imports.report(1, 1, OLD)
    imports.report(5, 6, NEW)
    imports.report(6, 5, NEW)
    imports.report(7, 7, NEW)
    assert imports.versions(7) == ["aaaa"] * 4 + ["aaaa+"] * 3
    assert len(imports.told) == 1


def test_a_worker_with_the_old_text_that_reports_late_makes_all_unsure() -> None:
    imports = Imports()
    imports.report(2, 2, NEW)
    imports.report(1, 1, OLD)
    assert imports.versions(3) == ["aaaa+"] * 3


def test_a_file_that_was_edited_before_its_first_import_in_a_resumed_run_is_noticed() -> None:
    for code in (
        {"late": {"lazy": ["/x/lazy.py", NEW[:16], OLD[:16]]}},
        {"modules": {"lazy": ["/x/lazy.py", OLD[:16]]}},
    ):
        imports = Imports(**code)
        imports.report(1, 1, OLD)
        assert (imports.versions(2), imports.told) == (["aaaa"] * 2, [])
        imports.report(1, 2, "")  # in an archive, for instance
        assert (imports.versions(2), imports.told) == (["aaaa"] * 2, [])
        imports.report(2, 2, NEW)
        assert imports.versions(2) == ["aaaa", "aaaa+"] and "/x/lazy.py was changed" in imports.told[0]
