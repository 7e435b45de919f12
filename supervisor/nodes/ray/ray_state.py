"""What differs between the versions of Ray that we work with, and what nothing public of Ray's tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OLDEST = (2, 9)  # tried; see docs/several-machines.md


def too_old(version: str) -> str:
    """What to say of this version of Ray; "" if it will do, or cannot be read."""
    numbers = version.split(".")[:2]
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        return ""
    if (int(numbers[0]), int(numbers[1])) >= OLDEST:
        return ""
    least = ".".join(map(str, OLDEST))
    return f"Ray {version} is too old, {least} or later is needed: pip install --upgrade 'ray>={least}' on all nodes"


def free_resources(known: Any) -> Mapping[str, Mapping[str, float]]:
    """What nobody has taken, by node and resource. `known`: `ray._private.state.state`."""
    for name in ("available_resources_per_node", "_available_resources_per_node"):  # the second one up to 2.9
        if (ask := getattr(known, name, None)) is not None:
            found: Mapping[str, Mapping[str, float]] = ask()
            return found
    raise AttributeError("this version of Ray does not tell what is free on each node")


def draining_nodes(known: Any) -> Mapping[str, float]:
    """Nodes that are about to be taken away (a spot instance, a machine that the autoscaler or somebody drains), and
    when: seconds since the epoch, 0.0 if nobody says. `known`: `ray._private.state.state`."""
    told: Any = getattr(known, "get_draining_nodes", dict)()
    if isinstance(told, Mapping):
        return {node: at / 1000 for node, at in told.items()}
    return dict.fromkeys(told, 0.0)  # up to 2.9 a set of them
