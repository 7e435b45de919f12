"""Lifelines: pipes that make the kernel kill the workers when the supervisor has died.

The lifeline is open in the supervisor. Its end kills each worker. What a forked worker has started is then
ended by the zygote, which spares resource trackers for a moment. The second lifeline is open in the supervisor
and in one zygote: when both have died, in whatever order, its end kills the worker's process group, even if
the worker is dead already. Without a zygote the end of the first lifeline kills the group.
"""

from __future__ import annotations

import os

from supervisor.system.interpreter import PrivateDescriptors
from workers.process.linux import HIGH, copied


class Lifeline:
    """One pipe. read: the end for the workers. write: the end that keeps them alive.

    Raises OSError if there are no descriptors left. When this process is killed, the kernel closes the highest
    descriptor first. A second lifeline has to be closed before the first: later no worker would be left to
    receive its signal.
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
        """To be called once; the kernel kills the workers that hold the other end."""
        self._private.numbers.clear()
        os.close(self.read)
        os.close(self.write)
