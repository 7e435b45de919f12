"""What one start of the supervisor came to. Pure data; how it is told lies with the callers."""

from __future__ import annotations

from typing import Any

import msgspec


class Outcome(msgspec.Struct):
    """The end of one run.

    exit_code: 0 to 76, see `core.errors`. signal: the one that stopped the run, of which
    a script then dies, so that its shell sees 130 or 143. report: the `Report` of the
    experiment, None when there is nothing to report (`--list-checkpoints`, `--debug`).
    options: the script's own, in their JSON form.
    """

    exit_code: int = 0
    signal: int | None = None
    report: Any = None
    options: dict[str, Any] = {}


class Interrupted(KeyboardInterrupt):
    """`run()` was interrupted and has drained; `report` holds what was finished, None if the
    signal came before anything was started."""

    def __init__(self, report: Any) -> None:
        where = " What was finished is in the `report` of this exception; at a prompt: sys.last_value.report"
        super().__init__(f"the run was interrupted; go on with resume='latest'.{where if report else ''}")
        self.report = report
