"""What one worker holds, kept by the hand-out. Pure.

Leases of a hand-out have numbers that follow each other, and so, nearly always, have their
jobs: a hand-out of thousands is a few numbers here, and thousands of outcomes are taken off
by moving one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from typing import overload

from supervisor.core.columns import compact


class _HandOut:
    """`jobs` under the leases from `first` on; those before `begin` are no longer there."""

    __slots__ = ("begin", "first", "jobs")

    def __init__(self, first: int, jobs: Sequence[int]) -> None:
        self.first = first
        self.jobs = jobs
        self.begin = 0

    def __len__(self) -> int:
        return len(self.jobs) - self.begin

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(count(self.first + self.begin), islice(self.jobs, self.begin, None), strict=False)

    def head(self) -> tuple[int, int]:
        return self.first + self.begin, self.jobs[self.begin]


class Leases(Sequence[tuple[int, int]]):
    """(lease, job number) in the order in which they were handed out."""

    __slots__ = ("_hand_outs",)

    def __init__(self) -> None:
        self._hand_outs: list[_HandOut] = []  # few, and none of them empty

    def __len__(self) -> int:
        return sum(map(len, self._hand_outs))

    def __bool__(self) -> bool:
        return bool(self._hand_outs)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return chain.from_iterable(self._hand_outs)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[int, int]]: ...

    def __getitem__(self, index: int | slice) -> tuple[int, int] | Sequence[tuple[int, int]]:
        if index == 0 and self._hand_outs:
            return self._hand_outs[0].head()
        return list(self)[index]

    def add(self, first: int, jobs: Sequence[int]) -> None:
        """A hand-out: lease `first + i` is of the i-th job."""
        if jobs:
            self._hand_outs.append(_HandOut(first, jobs))

    def take(self, leases: list[int]) -> Sequence[int] | None:
        """Take these off if they are the first ones, in order; their jobs. None, and nothing is
        changed, if they are not."""
        size = len(leases)
        taken: list[Sequence[int]] = []
        done = 0
        for hand_out in self._hand_outs:
            part = min(len(hand_out), size - done)
            begin = hand_out.begin
            first = hand_out.first + begin
            asked = leases if part == size else leases[done : done + part]
            if asked != list(range(first, first + part)):
                return None
            taken.append(hand_out.jobs[begin : begin + part])
            done += part
            if done == size:
                break
        if done < size:
            return None
        self._skip(size)
        return taken[0] if len(taken) == 1 else compact(list(chain.from_iterable(taken)))

    def _skip(self, size: int) -> None:
        hand_outs = self._hand_outs
        while size and len(hand_outs[0]) <= size:
            size -= len(hand_outs.pop(0))
        if size:
            hand_outs[0].begin += size

    def remove(self, lease: int) -> int | None:
        """Take one off, wherever it is; its job. None if it is not there."""
        for place, hand_out in enumerate(self._hand_outs):
            at = lease - hand_out.first
            if not hand_out.begin <= at < len(hand_out.jobs):
                continue
            job = hand_out.jobs[at]
            if at == hand_out.begin:
                hand_out.begin += 1
                parts = [hand_out]
            else:
                rest = _HandOut(lease + 1, hand_out.jobs[at + 1 :])
                hand_out.jobs = hand_out.jobs[:at]
                parts = [hand_out, rest]
            self._hand_outs[place : place + 1] = [part for part in parts if part]
            return job
        return None
