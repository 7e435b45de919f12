"""The pipes whose end makes the kernel kill workers: there is nobody left to look after them.

The lifeline is open in the supervisor. A worker that a zygote has forked dies of its end alone;
what the worker has started is the zygote's to end, which spares resource trackers for a moment.
The second lifeline is open in the supervisor and in one zygote: when both are gone, the whole
group of the worker dies. Without a zygote the group dies of the end of the lifeline.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from supervisor.engines.interpreter import PrivateDescriptors

# When this process is killed, the kernel closes its descriptors in the order of their numbers or
# against it. The lifeline must not go before a second one: the worker that it kills would not
# hear of the other. So it has two numbers, and the second lifelines have theirs in between.
_SECOND_FROM, _ABOVE_SECOND = 300, 600


class Lifeline:
    """`read`: the end for workers. Raises OSError if there are no descriptors left."""

    def __init__(self, at_least: tuple[int, ...] = (0, _ABOVE_SECOND)) -> None:
        self.read, write = os.pipe()
        self._private = PrivateDescriptors()
        self.writes = [_copy(write, number) for number in at_least]
        os.close(write)
        self._private.numbers.update(self.writes)

    @classmethod
    def second(cls) -> Lifeline:
        return cls((_SECOND_FROM,))

    def close(self) -> None:
        """Once; the kernel kills whom it holds."""
        self._private.numbers.clear()
        for descriptor in (self.read, *self.writes):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _copy(descriptor: int, at_least: int) -> int:
    """With such a number, if our limit of open files allows it."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, at_least)
    except OSError:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)
