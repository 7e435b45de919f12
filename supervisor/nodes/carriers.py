"""The carriers by the name of the engine that each makes: `--engine NAME`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from supervisor.nodes.carrier import Carrier


class CarrierSurroundings(NamedTuple):
    """What a carrier is told of the run.

    tag: of the experiment; that of each node begins with it and a slash. directory: where what agents print is kept.
    seats: how many places the workers of this run are divided among; a carrier whose places offer all that they
    have ignores it.
    """

    tag: str
    directory: str
    seats: int


MakeCarrier = Callable[[CarrierSurroundings], Carrier]


def _pipes(around: CarrierSurroundings) -> Carrier:
    from supervisor.nodes.pipe_carrier import PipeCarrier

    return PipeCarrier(around.seats, around.tag, around.directory)


_CARRIERS: dict[str, MakeCarrier] = {"pipes": _pipes}


def add_carrier(name: str, make: MakeCarrier) -> None:
    """Let `--engine NAME` run jobs where this carrier brings agents. To be called before `main` or `run`."""
    _CARRIERS[name] = make


def carrier_names() -> list[str]:
    return list(_CARRIERS)


def carrier_of(name: str, around: CarrierSurroundings) -> Carrier:
    return _CARRIERS[name](around)
