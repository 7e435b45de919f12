"""What one machine has, divided among several places on it."""

from __future__ import annotations

from typing import NamedTuple

from supervisor.core.terms.needs import THOUSAND, Totals


class Seat(NamedTuple):
    """What a place offers: as of `PlaceFacts`."""

    slots: int
    totals: Totals


def seats_of(slots: int, totals: Totals, number: int) -> list[Seat]:
    """At most `number` seats with at least one slot each, which together offer `slots` and `totals`, but for its
    `resources`: these are of all places together."""
    number = max(1, min(number, slots))
    seats = []
    for seat in range(number):
        own = slots // number + (seat < slots % number)
        seats.append(
            Seat(
                own,
                Totals(
                    cpus=own * THOUSAND,
                    memory=None if totals.memory is None else totals.memory // number,
                    gpus=totals.gpus[seat::number],
                    by_driver=totals.by_driver,
                ),
            )
        )
    return seats
