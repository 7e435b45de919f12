"""What the journal of a run says while somebody watches: how fast it goes just now, and how jobs failed so far."""

from __future__ import annotations

from collections import deque
from datetime import datetime

from supervisor.core.state.snapshot import failure_of
from supervisor.core.terms.records import Ended
from supervisor.core.terms.wording import count, one_line
from supervisor.page.failure_groups import FailureGroups
from supervisor.reports.failed_attempts import NOBODYS_FAULT
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_follower import JournalFollower
from supervisor.storage.journal.journal_format import LineHead, decode_record

_MINUTE = 60.0
_KINDS = 3  # of failures that are named


class JournalWatch:
    """Reads on with each `update`; `lines` has what to tell. Sums begin again when the journal is replaced."""

    def __init__(self, layout: Layout) -> None:
        self._follower = JournalFollower(layout)
        self._begin()

    def _begin(self) -> None:
        self._anew = self._follower.started_anew
        self._groups = FailureGroups()
        self._ends: deque[tuple[str, int, int]] = deque(
            maxlen=10_000
        )  # when, how many, how many of them badly

    def update(self) -> None:
        """Read what is new. Raises StorageError."""
        for heads, lines in self._follower.read():
            if self._follower.started_anew != self._anew:
                self._begin()
            for head, line in zip(heads, lines, strict=True):
                if head is not None and head.type == "ended":
                    self._ended(head, line)

    def _ended(self, head: LineHead, line: bytes) -> None:
        bad = head.outcome != "completed" and head.state != "" and head.outcome not in NOBODYS_FAULT
        if self._ends and self._ends[-1][0] == head.at:
            at, number, failed = self._ends.pop()
            self._ends.append((at, number + 1, failed + bad))
        else:
            self._ends.append((head.at, 1, int(bad)))
        if bad:
            record = decode_record(line)
            if isinstance(record, Ended):
                self._groups.add(failure_of(record, None))

    def lines(self, now: datetime) -> list[str]:
        """Of the minute before `now`, which has a time zone, and of all failed attempts."""
        ended = failed = 0
        for at, number, bad in reversed(self._ends):
            try:
                age = (now - datetime.fromisoformat(at)).total_seconds()
            except ValueError:
                continue
            if age > _MINUTE:
                break
            ended, failed = ended + number, failed + bad
        found = []
        if ended:
            some = f", {failed:,} of them failed" if failed else ""
            found.append(f"last minute: {count(ended, 'attempt')} ended{some}")
        groups = self._groups.ordered()
        if groups:
            named = ", ".join(f"{one.attempts:,} × {one_line(one.kind)}" for one in groups[:_KINDS])
            more = f" and {count(len(groups) - _KINDS, 'other kind')}" if len(groups) > _KINDS else ""
            found.append(f"failed attempts so far: {named}{more}")
        return found
