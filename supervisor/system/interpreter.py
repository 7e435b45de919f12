"""Command lines of fresh interpreters, private descriptors, and waiting for the end of a process.

It imports little: it is needed before most of the program is imported (`zygote_process`).
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import weakref

import msgspec

from supervisor.system.script_start import interpreter_options

# Bytes that a prestarted zygote reserves in its environment for the experiment's tag.
ROOM_FOR_TAG = 200


def interpreter(entry: str, *numbers: int) -> list[str]:
    """A command line that calls `entry` ("workers.zygote:run") with `numbers` in a fresh interpreter. It has the
    options of this one, and imports our `workers`, whatever files the script's directories contain."""
    ours = os.path.dirname(os.path.abspath(sys.modules["workers"].__file__ or ""))
    bootstrap = os.path.join(ours, "process", "bootstrap.py")
    root = os.path.dirname(os.path.dirname(os.path.abspath(msgspec.__file__ or "")))
    return [sys.executable, *interpreter_options(), bootstrap, entry, root, *map(str, numbers)]


def has_ended(process: subprocess.Popen[bytes], within: float) -> bool:
    """Whether a child ends within so many seconds; then it is reaped. (`Popen.wait` with a timeout polls at
    growing intervals.)"""
    try:
        pidfd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not this system, or reaped already
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(within)
        return process.returncode is not None
    try:
        is_over(pidfd, within)
    finally:
        os.close(pidfd)
    return process.poll() is not None


def is_over(pidfd: int, within: float) -> bool:
    """Whether a process ends within so many seconds."""
    poll = select.poll()  # select.select refuses high descriptors
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, within) * 1000))


_private: weakref.WeakSet[PrivateDescriptors] = weakref.WeakSet()


class PrivateDescriptors:
    """Descriptors that must exist in this process only: a forked child closes them.

    Otherwise a child that outlives the supervisor would keep the lifeline open.
    """

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        _private.add(self)


def _close_in_child() -> None:
    for owner in list(_private):
        for number in owner.numbers:
            with contextlib.suppress(OSError):
                os.close(number)
        owner.numbers.clear()


os.register_at_fork(after_in_child=_close_in_child)
