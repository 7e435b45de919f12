"""Leases without an end, followed from record to record of a journal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress, repeat
from operator import is_
from typing import TypeVar

from supervisor.core.terms.records import Leased, Returned

Held = TypeVar("Held")


class OpenLeases(dict[int, dict[int, Held]]):
    """By the incarnation of the worker, then by lease in hand-out order: what is known of the lease.

    For whoever replays a journal: the job table of a resume, and `longhaul show` with more facts of each lease. A
    live run keeps its leases in `WorkerState.leases`.
    """

    def hand_out(self, record: Leased, held: Iterable[Held]) -> None:
        """`held`: one for each job of the record."""
        self.setdefault(record.incarnation, {}).update(enumerate(held, record.lease))

    def give_back(self, record: Returned) -> None:
        leases = self.get(record.incarnation, {})
        for lease in record.leases:
            leases.pop(lease, None)

    def close(self, lease: int) -> Held | None:
        """What was known of the lease; None if it is not open. The reference for `close_batch`."""
        for leases in self.values():
            if (held := leases.pop(lease, None)) is not None:
                return held
        return None

    def close_batch(self, leases: Sequence[int]) -> None:
        """Nearly always all are of one worker."""
        holders = [held for held in self.values() if held]
        holders.sort(key=lambda held: leases[0] not in held)
        for held in holders:
            unknown = list(map(is_, map(held.pop, leases, repeat(None)), repeat(None)))
            leases = list(compress(leases, unknown))
            if not leases:
                break

    def running(self) -> list[tuple[int, Held]]:
        """The first lease of each worker: what ran when the last record was written."""
        return [next(iter(leases.items())) for leases in self.values() if leases]
