"""The zygote's process, and its interpreter, started before it is known what it will be needed for.

An interpreter with our own modules takes as long to start as the supervisor takes to open an
experiment; on two cores both happen at once. Until the supervisor has decided to start, the
prestarted zygote imports nothing of the user's and waits for its first message (`ZygoteOrders`).
If none comes, because the run was refused or the supervisor died, it exits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from supervisor.system.interpreter import ROOM_FOR_TAG, PrivateDescriptors, has_ended, interpreter
from supervisor.system.script_start import child_environment, start_directory
from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION, NOBODY

if TYPE_CHECKING:  # this module is needed before most of the program is imported
    from supervisor.engines.launcher import Lifeline

# Lines of /proc/self/status that say what a child inherits.
_INHERITED = (b"Umask:", b"Uid:", b"Gid:", b"Groups:", b"Cap", b"NoNew", b"Seccomp:", b"Cpus_", b"Mems_")


class PrestartedZygote:
    """A zygote that has no orders yet. The caller of `take` has to end it."""

    def __init__(self, process: subprocess.Popen[bytes], channel: int, inherited: list[object]) -> None:
        self._process: subprocess.Popen[bytes] | None = process
        self._channel = channel
        self._inherited = inherited
        self._private = PrivateDescriptors()
        self._private.numbers.add(channel)

    @classmethod
    def start(cls) -> PrestartedZygote | None:
        """None where there can be none; then the zygote is started when it is needed."""
        if not sys.platform.startswith("linux"):
            return None
        try:
            inherited = _inherited()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return None
        with ours, theirs:
            try:
                process = zygote_process(theirs, {EXPERIMENT_TAG: "-" * ROOM_FOR_TAG}, subprocess.DEVNULL)
            except OSError:
                return None
            return cls(process, ours.detach(), inherited)

    def take(self) -> tuple[subprocess.Popen[bytes], socket.socket] | None:
        """The process and the channel to it; None if one that is started now would not be
        the same (the user's code has changed limits, the umask, ...), or it is dead."""
        process = self._process
        if process is None or process.poll() is not None or not self._is_as_new():
            self.discard()
            return None
        self._process = None
        self._private.numbers.clear()
        return process, socket.socket(fileno=self._channel)

    def _is_as_new(self) -> bool:
        try:
            return _inherited() == self._inherited
        except OSError:
            return False

    def discard(self) -> None:
        """End it, unless it was taken."""
        process, self._process = self._process, None
        if process is None:
            return
        self._private.numbers.clear()
        os.close(self._channel)
        process.kill()
        has_ended(process, 1.0)


class ZygoteHandle:
    """One zygote process as its launcher sees it: its channel, the open requests to it, its workers, its output.

    scratch: the file that it prints to. prestarted: it was started ahead of its orders.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        scratch: str,
        second_lifeline: Lifeline,
        *,
        prestarted: bool = False,
    ) -> None:
        self.process = process
        self.channel = channel
        self.second_lifeline = second_lifeline
        self.prestarted = prestarted
        self.prepared = False
        self.asked: dict[int, float] = {}  # incarnation -> time of the request (0.0: set by the next poll)
        self.members: set[int] = set()  # incarnations that it has forked and not reaped
        self.dead: dict[int, float] = {}  # of these, the dead ones -> time of death
        self.checked_at = 0.0
        self._scratch = scratch

    @property
    def pid(self) -> int:
        return self.process.pid

    def ended(self) -> bool:
        """Whether it has ended; then it is reaped and its output stored."""
        if self.process.poll() is None:
            return False
        from workers.isolation.output_files import move

        with contextlib.suppress(OSError):
            move(self._scratch, self._log, "--- another start ---", 10_000_000)
        return True

    def log_hint(self) -> str:
        """Where its output is, as the end of a sentence; "" if it has printed nothing."""
        with contextlib.suppress(OSError):
            if os.path.getsize(self._scratch):
                return f"; what it has printed is in {self._log}"
        return ""

    @property
    def _log(self) -> str:
        from workers.isolation.output_files import ZYGOTE_LOG

        return os.path.join(os.path.dirname(self._scratch), ZYGOTE_LOG)


def zygote_process(
    channel: socket.socket, environment: dict[str, str], output: int
) -> subprocess.Popen[bytes]:
    """Start the interpreter of a zygote; it waits for its first order. Raises OSError."""
    environment = {INCARNATION: NOBODY, **environment}  # the tag stays the last, for its room
    # Blocked so that Ctrl+C does not kill the child before it has left our session.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return subprocess.Popen(
            interpreter("workers.zygote:run", channel.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=child_environment(environment),
            cwd=start_directory(),
            pass_fds=(channel.fileno(),),
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _inherited() -> list[object]:
    """What this process hands on to its children."""
    found: list[object] = [os.getpriority(os.PRIO_PROCESS, 0)]
    for name in ("status", "limits", "cgroup"):
        with open(f"/proc/self/{name}", "rb", buffering=0) as file:
            text = file.read()
        found.append([line for line in text.split(b"\n") if name != "status" or line.startswith(_INHERITED)])
    return found
