"""What the supervisor and the zygote say to each other.

One message is one msgpack-encoded struct in one packet of a SOCK_SEQPACKET pair;
descriptors travel beside it (SCM_RIGHTS).
"""

from __future__ import annotations

import msgspec


class ZygoteOrders(msgspec.Struct, tag=2, array_like=True):
    """The first order. Descriptors: a file with the `Preparation`, the lifeline (read), the
    second lifeline (write), the script's resource tracker if it has one, and for a zygote
    that was started ahead the file that it is to print to. The zygote keeps the second
    lifeline open for as long as it lives, as the supervisor does.

    tag: to be put into the environment as others see it, "" if it is there.
    preload: import the user's code.
    tracker: whether its descriptor is there.
    """

    tag: str
    preload: bool
    tracker: bool = False


class Fork(msgspec.Struct, tag=1, array_like=True):
    """Fork a worker. Descriptors: inbox (read), outbox (write), both lifelines (read)."""

    incarnation: int


class Prepared(msgspec.Struct, tag=10, array_like=True):
    """Ready to fork. `obstacle` says why the user's code is not imported in here, "" if it
    is: then each worker has to import it, from a zygote that never tried. `shared` are files of
    the script that could not be opened anew, and why not (sendable); the first few of them."""

    obstacle: str
    shared: list[str] = []


class Forked(msgspec.Struct, tag=11, array_like=True):
    """The process exists. Descriptor: its pidfd."""

    incarnation: int
    pid: int


class ForkFailed(msgspec.Struct, tag=12, array_like=True):
    incarnation: int
    error: str


class ForkReaped(msgspec.Struct, tag=13, array_like=True):
    """The worker and all it left behind are dead and reaped.

    `status` is that of wait(); `peak_rss` in bytes.
    """

    incarnation: int
    status: int
    peak_rss: int


FromZygote = Prepared | Forked | ForkFailed | ForkReaped

MAX_PACKET = 65536
