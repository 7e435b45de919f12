# Sent to the nodes as it stands: it may import nothing but the standard library.
"""The Ray actor of a node: starts the agent as a child process, and passes bytes between it and the driver.

If the actor can connect to the driver (`direct_wires`), the agent gets that connection, and no bytes pass here. The
agent is not in the actor: Ray kills the children of an actor that exits, but not what these have started. It
does not compute, and knows no frames.

The main thread of an actor that has nothing to do looks for signals a hundred times a second, which takes 0.5 % of a
core. While it is in a call it does not. So an actor of an agent with a connection of its own has no threads for calls:
its `hear` waits for the end of the agent in the main thread, and no other call of it is run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any, BinaryIO

MOST = 85_000  # bytes in one call: Ray passes larger ones through a file in shared memory
_END_WITHIN = 2.0
_CONNECT_WITHIN = 1.0


class PlaceHolder:
    """An actor that waits for CPUs: what an autoscaler of Ray's adds nodes for."""

    def placed(self) -> None:
        """Answered when it has some."""


class AgentActor:
    """`tell` and `hear` run in a thread each, if bytes pass here. What they carry is numbered: Ray does not promise the
    order of calls, nor that of their answers."""

    def begin(self, launch: dict[str, Any]) -> dict[str, Any]:
        """Start the agent. `launch`: see `ray_driver.launch_of`. The answer: "error" or "notices", texts; "direct":
        False if it has no connection of its own: one that was meant to have one was not started."""
        self._told: dict[int, bytes] = {}
        self._next_tell = 0
        self._heard = 0
        self._lock = threading.Lock()
        self._raylet = os.getppid()
        notices = _undo_what_ray_has_set(self._raylet)
        bootstrap = _bootstrap(launch["bootstrap"])
        library = _folder_of("msgspec", launch["library"])
        if not bootstrap or not library:
            return {"error": f"longhaul is not installed for {sys.executable} there", "notices": []}
        environment = dict(launch["environment"])
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        if launch["gpus"] and gpus is not None:
            environment[b"CUDA_VISIBLE_DEVICES"] = os.fsencode(gpus)
        environment[launch["shipped"]] = os.fsencode(
            os.getcwd()
        )  # Ray's copy of what was shipped, if anything was
        directory = launch["directory"]
        # Kept open here as well: so the supervisor sees its end after the driver has said why.
        self._direct = _connect(*launch["direct"]) if launch["direct"] else None
        direct = -1 if self._direct is None else self._direct.fileno()
        if self._direct is None and launch["direct"]:
            host, port = launch["direct"][:2]
            text = f"no connection to {host}:{port}: all messages go through Ray, which takes more CPU"
            return {"error": "", "notices": [*notices, text], "direct": False}
        self._printed: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the actor lives)
        orders, self._orders = os.pipe()
        self._reports, reports = os.pipe()
        watched = _watch(self._raylet)
        command = [sys.executable, *launch["options"], bootstrap, launch["entry"], library]
        # Blocked so that Ctrl+C does not kill the child before it has left our session.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        self._agent = subprocess.Popen(
            [*command, str(orders), str(reports), str(watched), str(direct)],
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=self._printed,
            env=environment,
            cwd=directory if directory and os.path.isdir(directory) else None,
            pass_fds=[end for end in (orders, reports, watched, direct) if end >= 0],
            start_new_session=True,
        )
        for end in (orders, reports, watched):
            if end >= 0:
                os.close(end)
        return {"error": "", "notices": notices, "direct": direct >= 0}

    def tell(self, number: int, data: bytes) -> None:
        """The next bytes for the agent."""
        self._told[number] = data
        while (data := self._told.pop(self._next_tell, b"")) != b"":
            self._next_tell += 1
            view = memoryview(data)
            with contextlib.suppress(BrokenPipeError):  # it has ended: its last words come up
                while view:
                    view = view[os.write(self._orders, view) :]

    def hear(self) -> tuple[int, bytes, str, str]:
        """The next bytes of the agent, with their number. Without bytes: it is over, and why, as far as can be
        seen from here, and how: see `_end_of_agent`."""
        with self._lock:
            data = os.read(self._reports, MOST)
            number = self._heard
            self._heard += 1
        return (number, data, "", "") if data else (number, data, *self._end_of_agent())

    def leave(self) -> None:
        """Let the agent end in order: its jobs are interrupted, not lost. One with a connection of its own is told by
        it."""
        self._agent.terminate()

    def _end_of_agent(self) -> tuple[str, str]:
        """Why, and "in order", "failed", or "no node" if the raylet is gone as well."""
        try:
            code = self._agent.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            return "its agent closed the connection and did not end", "failed"
        why = f"its agent ended (exit code {code})"
        if os.getppid() != self._raylet:
            return "the Ray node (raylet) is gone", "no node"
        with contextlib.suppress(OSError):
            size = self._printed.seek(0, os.SEEK_END)
            self._printed.seek(max(0, size - 2000))
            lines = self._printed.read().decode(errors="replace").split("\n")
            words = [line.strip() for line in lines if line.strip()]
            if code and words:
                why += f": {words[-1]}"
        return why, "failed" if code else "in order"


def _undo_what_ray_has_set(raylet: int) -> list[str]:
    """Niceness and OOM score as the raylet has them: Ray gives its workers 15 and 1000. What cannot be undone."""
    notices = []
    try:
        with open(f"/proc/{raylet}/oom_score_adj", encoding="ascii") as file:
            score = file.read()
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
            now, _ = int(file.read()), file.seek(0)
            if now > int(score):
                file.write(score)
    except (OSError, ValueError):
        notices.append(
            "when memory is short, the kernel kills what Ray has started first (oom_score_adj 1000), and jobs with "
            "it, which only root may change: --memory-limit or --keep-free leave it no reason to"
        )
    try:
        niceness = os.getpriority(os.PRIO_PROCESS, raylet)
        if niceness < os.getpriority(os.PRIO_PROCESS, 0):
            os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except OSError:
        now = os.getpriority(os.PRIO_PROCESS, 0)
        notices.append(
            f"Ray runs its workers at niceness {now}, and jobs with them: set RAY_worker_niceness=0 for "
            "`ray start` if others compute there"
        )
    return notices


def _connect(host: str, port: int, word: bytes, answer: bytes) -> socket.socket | None:
    """A connection to the driver; see `direct_wires.WireOffer`."""
    try:
        end = socket.create_connection((host, port), timeout=_CONNECT_WITHIN)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.sendall(word)
        if read_exactly(end, len(answer)) == answer:
            return end
    end.close()
    return None


def read_exactly(end: socket.socket, size: int) -> bytes:
    """Less at the end of the stream. Raises OSError if its timeout is over."""
    data = b""
    while len(data) < size and (piece := end.recv(size - len(data))):
        data += piece
    return data


def _watch(raylet: int) -> int:
    """A descriptor that is readable when the raylet has ended; -1 if there is none."""
    try:
        watched = os.pidfd_open(raylet)
    except (AttributeError, OSError):
        return -1
    if os.getppid() != raylet:  # it has ended before
        os.close(watched)
        return -1
    return watched


def _bootstrap(there: str) -> str:
    """The file that our interpreters begin with: where the supervisor has it, else where it is installed."""
    if os.path.isfile(there):
        return there
    for folder in _places_of("workers"):
        file = os.path.join(folder, "process", "bootstrap.py")
        if os.path.isfile(file):
            return file
    return ""


def _folder_of(package: str, there: str) -> str:
    """The folder that a package is in."""
    if os.path.isdir(os.path.join(there, package)):
        return there
    return next((os.path.dirname(folder) for folder in _places_of(package)), "")


def _places_of(package: str) -> list[str]:
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    return [] if found is None else list(found.submodule_search_locations or [])
