"""What jobs were given and where they ran, by the numbers of their leases."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from supervisor.core.terms.records import NO_RESULT, Leased

_UNKNOWN = NO_RESULT, ""


class HandOuts:
    """Sixteen bytes for each hand-out, since equal amounts are kept once, as JSON."""

    def __init__(self, hand_outs: Iterable[Leased]) -> None:
        self._known: list[tuple[msgspec.Raw, str]] = []
        self._firsts = array("Q")  # of each hand-out the first lease; leases rise in a journal
        self._sizes = array("I")
        self._which = array("I")
        numbers: dict[tuple[bytes, str], int] = {}
        for record in hand_outs:
            text = msgspec.json.encode(record.given) if record.given else b""
            key = text, record.place
            if key not in numbers:
                numbers[key] = len(self._known)
                self._known.append((msgspec.Raw(text) if text else NO_RESULT, record.place))
            self._firsts.append(record.lease)
            self._sizes.append(len(record.jobs))
            self._which.append(numbers[key])

    def of(self, lease: int) -> tuple[msgspec.Raw, str]:
        """(what was given, as JSON; the name of the place). Empty if the job said nothing, if there were no places, or
        if the journal does not have this lease any more."""
        at = bisect_right(self._firsts, lease) - 1
        if at < 0 or lease >= self._firsts[at] + self._sizes[at]:
            return _UNKNOWN
        return self._known[self._which[at]]
