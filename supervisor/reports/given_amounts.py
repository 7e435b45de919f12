"""What jobs were given, by the numbers of their leases."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from supervisor.core.terms.records import NO_RESULT, Leased


class GivenAmounts:
    """Sixteen bytes for each hand-out, since equal amounts are kept once, as JSON."""

    def __init__(self, hand_outs: Iterable[Leased]) -> None:
        self._known: list[msgspec.Raw] = []
        self._firsts = array("Q")  # of each hand-out the first lease; leases rise in a journal
        self._sizes = array("I")
        self._which = array("I")
        numbers: dict[bytes, int] = {}
        for record in hand_outs:
            text = msgspec.json.encode(record.given)
            if text not in numbers:
                numbers[text] = len(self._known)
                self._known.append(msgspec.Raw(text))
            self._firsts.append(record.lease)
            self._sizes.append(len(record.jobs))
            self._which.append(numbers[text])

    def of(self, lease: int) -> msgspec.Raw:
        """As JSON; empty if the job said nothing, or the journal does not have this lease any more."""
        place = bisect_right(self._firsts, lease) - 1
        if place < 0 or lease >= self._firsts[place] + self._sizes[place]:
            return NO_RESULT
        return self._known[self._which[place]]
