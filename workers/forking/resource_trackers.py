"""One resource tracker for the script's process and for its workers, if the script has one.

A process that opens shared memory by name registers it (up to Python 3.12; later unless `track=False`). A
tracker removes what is registered as soon as its processes have ended. With trackers of their own, workers
would remove segments that the script has created for them. multiprocessing hands its tracker to its children
for the same reason.
"""

from __future__ import annotations

import os
import stat
import sys

_MODULE = "multiprocessing.resource_tracker"


def descriptor_of_tracker() -> int | None:
    """The pipe to this process's tracker; None if it has none."""
    tracker = getattr(sys.modules.get(_MODULE), "_resource_tracker", None)
    descriptor = getattr(tracker, "_fd", None)
    try:
        if descriptor is not None and stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return int(descriptor)
    except OSError:
        pass  # it was closed
    return None


def share_tracker(descriptor: int) -> None:
    """Use the tracker of another process. To be called before any code of the user runs."""
    from multiprocessing import resource_tracker

    os.set_inheritable(descriptor, False)
    resource_tracker._resource_tracker._fd = descriptor  # type: ignore[attr-defined]
