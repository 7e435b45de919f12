"""How many descriptors this process may have open: a worker takes three, and 1,024 is a usual limit."""

from __future__ import annotations

import contextlib
import resource

SPARE = 128  # for files, sockets and what libraries open
MOST = 65_536  # some machines allow a thousand million, and there are programs that try each number
_before: int | None = None  # the soft limit that this process was started with, if it was raised


def make_room(highest: int) -> None:
    """Raise the soft limit as far as the hard one allows, if few numbers are left above `highest`, which is in use.

    Only where processes that are started later can have the old one (`give_back`): jobs get what the script has.
    """
    global _before  # noqa: PLW0603
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or highest + SPARE < soft or not hasattr(resource, "prlimit"):
        return
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if wanted > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            if _before is None:
                _before = soft


def give_back(pid: int) -> None:
    """Let this process, which was just started, have the soft limit that was there before it was raised."""
    if _before is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError):  # it is gone
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (_before, hard))
