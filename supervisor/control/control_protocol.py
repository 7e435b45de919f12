"""What goes over the control socket: one line of JSON each way, then it is closed."""

from __future__ import annotations

from typing import Literal

import msgspec

MOST_ASKED = 64 << 10  # bytes of a request
MOST_ANSWERED = 4 << 20  # and of an answer

Order = Literal["pause", "resume", "drain", "stop", "workers", "retry", "cancel", "stacks"]


class Asked(msgspec.Struct, frozen=True):
    """An order; `number` of workers, `jobs` by id or pattern."""

    order: Order
    number: int = 0
    jobs: list[str] = []


class Answered(msgspec.Struct, omit_defaults=True):
    """`done`: it is so now. `stacks`: one text per worker."""

    done: bool
    text: str
    stacks: list[str] = []


def encode_answer(answer: Answered) -> bytes:
    """One line; of stacks beyond all bounds the first ones."""
    line = msgspec.json.encode(answer)
    while len(line) >= MOST_ANSWERED and answer.stacks:
        answer.stacks.pop()
        line = msgspec.json.encode(answer)
    return line + b"\n"
