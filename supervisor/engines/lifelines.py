"""The pipes whose end makes the kernel kill workers: there is nobody left to look after them.

The lifeline is open in the supervisor. A worker that a zygote has forked dies of its end alone;
what the worker has started is the zygote's to end, which spares resource trackers for a moment.
The second lifeline is open in the supervisor and in one zygote: when both are gone, in whatever
order, the whole group of the worker dies, though the worker may be dead. Without a zygote the
group dies of the end of the lifeline.
"""

from __future__ import annotations

import os

from supervisor.system.interpreter import PrivateDescriptors
from workers.process.linux import HIGH, copied


class Lifeline:
    """`read`: the end for workers; `write`: the one that holds them. Raises OSError if there are
    no descriptors left.

    When this process is killed, the kernel lets go of the highest descriptor first. A second
    lifeline has to go before the lifeline: it would find no worker that listens.
    """

    def __init__(self, *, second: bool = False) -> None:
        self.read, self.write = os.pipe()
        if second:
            try:
                high = copied(self.write, HIGH)
            finally:
                os.close(self.write)
            self.write = high
        self._private = PrivateDescriptors()
        self._private.numbers.add(self.write)

    def close(self) -> None:
        """Once; the kernel kills whom it holds."""
        self._private.numbers.clear()
        os.close(self.read)
        os.close(self.write)
