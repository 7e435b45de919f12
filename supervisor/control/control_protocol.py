"""Messages over the control socket: one line of JSON in each direction, then it is closed."""

from __future__ import annotations

from typing import Literal

import msgspec

MAX_REQUEST = 64 << 10  # bytes of a request
MAX_ANSWER = 4 << 20  # and of an answer

Order = Literal["pause", "resume", "drain", "stop", "workers", "retry", "cancel", "stacks"]


class ControlRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order. number: of workers. jobs: ids or patterns. by: "page" if it was given in a browser."""

    order: Order
    number: int = 0
    jobs: list[str] = []
    by: Literal["", "page"] = ""


class ControlAnswer(msgspec.Struct, omit_defaults=True):
    """done: the order was carried out. stacks: one text per worker."""

    done: bool
    text: str
    stacks: list[str] = []


def encode_answer(answer: ControlAnswer) -> bytes:
    """One line of JSON, with as many stacks as MAX_ANSWER bytes allow."""
    line = msgspec.json.encode(answer)
    while len(line) >= MAX_ANSWER and answer.stacks:
        answer.stacks.pop()
        line = msgspec.json.encode(answer)
    return line + b"\n"
