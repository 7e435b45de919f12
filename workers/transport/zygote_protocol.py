"""Messages between the supervisor and the zygote.

Each is a msgpack-encoded struct in one packet of a SOCK_SEQPACKET pair. Descriptors are sent with it
(SCM_RIGHTS).
"""

from __future__ import annotations

import msgspec


class ZygoteOrders(msgspec.Struct, tag=2, array_like=True):
    """The first message. Descriptors: a file with the `Preparation`, the lifeline (read end), the second
    lifeline (write end), the script's resource tracker if it has one, and for a prestarted zygote its output
    file. The zygote keeps the second lifeline open as long as it lives, as the supervisor does.

    tag: of the experiment, to be written into the environment; "" if it is there.
    preload: import the user's code.
    tracker: whether the descriptor of a resource tracker is sent.
    fresh: start each worker as a fresh interpreter, instead of forking it.
    """

    tag: str
    preload: bool
    tracker: bool = False
    fresh: bool = False


class Fork(msgspec.Struct, tag=1, array_like=True):
    """Make a worker. Descriptors: inbox (read), outbox (write), both lifelines (read), and for a fresh interpreter
    the file that it prints to, if that could be opened.

    environment: variables that a fresh interpreter is started with, beside those of the zygote.
    """

    incarnation: int
    environment: dict[str, str] = {}


class Prepared(msgspec.Struct, tag=10, array_like=True):
    """Ready to fork.

    obstacle: why workers cannot be forked with the user's code, "" if they can. With an obstacle each worker
        imports the code itself, forked from a zygote that has not tried.
    shared: the first few files of the script that cannot be reopened, with the reason (`sendable` texts).
    """

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
    """The worker is dead and reaped, its orphans are killed.

    `status` is that of wait(); `peak_rss` in bytes.
    """

    incarnation: int
    status: int
    peak_rss: int


FromZygote = Prepared | Forked | ForkFailed | ForkReaped

MAX_PACKET = 65536
