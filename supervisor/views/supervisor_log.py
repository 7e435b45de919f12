"""The supervisor's log, `<id>/supervisor.log`, written with loguru.

The log has a loguru core of its own. The user's sinks (loguru's default one on stderr included) get none of
our records, our sink gets none of theirs, and no sink of the user is removed. A line that cannot be written
is dropped.

loguru is imported once the workers are busy (`begin`): with asyncio it takes 50 ms, as long as all other
imports of a start, and a short run never needs it. Lines before that are formatted here, in the same form,
and written at once, so that a run that is killed early has them
(test_lines_look_the_same_before_loguru_is_imported).
"""

from __future__ import annotations

import copy
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.core.terms.wording import harmless
from supervisor.system.clock import utc_now

if TYPE_CHECKING:
    from loguru import Logger, Message

_FORMAT = "{time:YYYY-MM-DDTHH:mm:ss.SSS!UTC}Z {level: <7} {message}"


def _logger_of_our_own() -> Logger:
    """A logger that shares no sink, level, patcher or extra with `loguru.logger`."""
    from loguru import logger as shared

    # Private: the public way, `copy.deepcopy(logger)`, copies the user's sinks, and fails on those that
    # cannot be copied. Guarded by test_the_users_loguru_stays_as_it_is_and_sees_none_of_ours.
    own = copy.copy(shared)
    own._core = type(shared._core)()  # type: ignore[attr-defined]
    return own


class SupervisorLog:
    """Appends lines with the time in UTC to one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or create the file. If that fails, nothing is logged."""
        self._file: io.TextIOWrapper | None = None
        self._logger: Logger | None = None
        try:
            path = Path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError:
            return

    def begin(self) -> None:
        """Import loguru; it formats and writes all further lines."""
        if self._logger is not None or self._file is None:
            return
        self._logger = _logger_of_our_own()
        self._logger.add(self._append, format=_FORMAT, level="DEBUG", colorize=False, catch=False)

    def write(self, level: str, text: str) -> None:
        """`level`: debug, info, warning, error. Line breaks are kept, indented."""
        level, text = level.upper(), harmless(text).replace("\n", "\n    ")
        if self._logger is None:
            self._append(f"{utc_now()} {level: <7} {text}\n")
        else:
            self._logger.log(level, text)

    def close(self) -> None:
        if self._logger is not None:
            self._logger.remove()
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:  # the rest of the buffer does not fit on the disk
                return

    def _append(self, message: Message | str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(message)
            self._file.flush()
        except (OSError, ValueError):
            return
