"""The driver as the supervisor sees it: a child process that connects to the cluster before anything is on disk."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from supervisor.core.terms.errors import UsageError, WorkersError
from supervisor.nodes.ray.driver_protocol import (
    Connect,
    Connected,
    NotConnected,
    Order,
    Quit,
    Report,
    channel,
    receive_report,
    send,
)
from supervisor.system.interpreter import PrivateDescriptors, has_ended, interpreter
from supervisor.system.script_start import child_environment

CONNECT_WITHIN = 90.0  # seconds; Ray gives up after 60
MOST_PRINTED = 1_000_000  # bytes that are kept of what it prints


class DriverProcess:
    """It imports Ray until it is told where to `connect`. Raises OSError if it cannot be started.

    control: its channel; never blocks once it is `connected`.
    """

    def __init__(self) -> None:
        self.connected: Connected | None = None
        self.problem: NotConnected | None = None
        self._told, self._began = False, time.monotonic()
        self.control, theirs = channel()
        self._private = PrivateDescriptors()
        self._private.numbers.add(self.control.fileno())
        self._printed: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (Ray prints whatever it is told)
        # Blocked so that Ctrl+C does not kill the child before it has left our session.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            with theirs:
                self._process = subprocess.Popen(
                    interpreter("supervisor.nodes.ray.ray_driver:run", theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=self._printed,
                    stderr=self._printed,
                    env=child_environment({}),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except BaseException:
            self._close_control()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self.control.setblocking(False)

    def connect(self, order: Connect) -> None:
        self._told, self._began = True, time.monotonic()
        self.send(order)

    def send(self, order: Order) -> None:
        """Nothing goes to one that is over: `receive` says so."""
        with contextlib.suppress(OSError):
            send(self.control, order)

    def receive(self) -> list[tuple[Report, int | None]] | None:
        """What it has said, with descriptors; None once it is over and all was read."""
        found: list[tuple[Report, int | None]] = []
        while True:
            try:
                got = receive_report(self.control)
            except BlockingIOError:
                return found
            except (OSError, msgspec.MsgspecError):
                got = None
            if got is None:
                return found or None
            if isinstance(got[0], Connected):
                self.connected = got[0]
            elif isinstance(got[0], NotConnected):
                self.problem = got[0]
            found.append(got)

    def wait_connected(self) -> Connected:
        """Raises UsageError if there is no such cluster, WorkersError if Ray fails; whatever a signal handler
        raises."""
        deadline = self._began + CONNECT_WITHIN
        over = False
        while self.connected is None and self.problem is None and not over:
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise UsageError(
                    f"--engine ray: Ray did not connect within {CONNECT_WITHIN:g}s: does `ray status` answer? If it "
                    "does, either --ship names a directory that takes so long to pack, or Ray's workers do not "
                    "start here: /tmp/ray/session_latest/logs/raylet.out says so"
                )
            _wait_readable(self.control, min(rest, 1.0))
            over = self.receive() is None
        if self.connected is not None:
            return self.connected
        if self.problem is None:
            raise WorkersError(f"--engine ray: {self.why_over()}")
        if self.problem.wrong:
            raise UsageError(f"--engine ray: {self.problem.why}")
        raise WorkersError(f"--engine ray: {self.problem.why}")

    def why_over(self) -> str:
        """How it ended, with the last that it has printed."""
        has_ended(self._process, 1.0)
        lines = self._tail().decode(errors="replace").splitlines()
        words = [line.strip() for line in lines if line.strip()]
        said = f": {words[-1][:500]}" if words else ""
        return f"its driver ended (exit code {self._process.poll()}){said}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def discard(self) -> None:
        """End it at once, unless it is over: Ray ends what it has on the cluster."""
        self._close_control()
        if self._process.returncode is None and not has_ended(self._process, 0.2 if self._told else 0.0):
            self._process.kill()
            has_ended(self._process, 1.0)
        self._printed.close()

    def close(self, within: float, log: str | None = None) -> None:
        """Let it leave the cluster; `log`: where what it has printed is kept."""
        self.send(Quit())
        if not has_ended(self._process, within):
            self._process.kill()
            has_ended(self._process, 1.0)
        self._close_control()
        if log is not None:
            self.keep_output(log)

    def keep_output(self, log: str) -> None:
        if text := self._tail():
            with contextlib.suppress(OSError), Path(log).open("ab") as file:
                file.write(text)

    def _close_control(self) -> None:
        self._private.numbers.clear()
        self.control.close()

    def _tail(self) -> bytes:
        with contextlib.suppress(OSError, ValueError):
            size = self._printed.seek(0, os.SEEK_END)
            self._printed.seek(max(0, size - MOST_PRINTED))
            return self._printed.read()
        return b""


def _wait_readable(end: socket.socket, within: float) -> None:
    import select

    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.poll(max(0.0, within) * 1000)
