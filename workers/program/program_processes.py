"""The processes of a program: started as by a shell, waited for, and ended together with all that they have started.

The program leads a process group of its own: what it sends to its group does not reach the worker. A worker is a
child subreaper: whatever the program leaves behind becomes a child of the worker, whether or not it has left the
group, and is ended with the program.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from workers.forking.process_owner import with_descendants
from workers.process.linux import become_subreaper, children_of

_LOOK_EVERY = 0.2  # seconds between two looks whether a stop has been asked for
_MOST_WAITED = 5.0  # seconds for killed processes to be gone
_LEFT_ALONE = (signal.SIGKILL, signal.SIGSTOP)


class ProgramProcesses:
    """Starts and ends programs, one after the other."""

    def __init__(self) -> None:
        self._adopts = False
        self._terminal = False
        self._found: dict[bytes, bytes] = {}  # paths of programs, by the words that they are called by
        self._defaults = [number for number in signal.valid_signals() if number not in _LEFT_ALONE]

    def adopt(self) -> None:
        """From now on this process adopts what programs leave behind, and kills it: all children that it will
        have must be such."""
        self._adopts = become_subreaper()
        self._terminal = _has_terminal()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would hide how programs end

    def start(self, words: Sequence[bytes], environment: Mapping[bytes, bytes], stdout: int) -> int:
        """Start a program; its pid. Its input is empty, its errors go to descriptor 2. Signals are as in a shell.

        Raises OSError if there is no such program, or it cannot be started.
        """
        command = list(words)
        try:
            return self._spawn(command, environment, stdout)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
        # A script without #!: shells execute it.
        file = command[0] if b"/" in command[0] else shutil.which(command[0]) or command[0]
        return self._spawn([b"/bin/sh", file, *command[1:]], environment, stdout)

    def _spawn(self, command: list[bytes], environment: Mapping[bytes, bytes], stdout: int) -> int:
        program = command[0]
        path = self._found.get(program)
        if path is None:
            # To try one directory of PATH after the other takes a tenth of the time of a short program.
            path = program if b"/" in program else _on_path(program, environment) or program
            self._found[program] = path
        try:
            return self._spawn_file(path, command, environment, stdout)
        except FileNotFoundError:  # it may be somewhere else by now
            del self._found[program]
            if path == program:
                raise
            return self._spawn_file(program, command, environment, stdout)

    def _spawn_file(
        self, path: bytes, command: list[bytes], environment: Mapping[bytes, bytes], stdout: int
    ) -> int:
        return os.posix_spawnp(
            path,
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
            ],
            setsigmask=[],
            setsigdef=self._defaults,
            # With a terminal, as in a replay, a program that opens it would be stopped by it: not in a session of
            # its own.
            **({"setsid": True} if self._terminal else {"setpgroup": 0}),
        )

    def wait(self, pid: int, stopping: Callable[[], bool] | None = None) -> int:
        """Wait for the end of a program; its wait status. With `stopping`, its group gets SIGTERM as soon as that
        is true."""
        if stopping is not None:
            with _readable_at_end(pid) as ended_within:
                while not (stopping() or ended_within(_LOOK_EVERY)):
                    pass
                if stopping():
                    _signal_group(pid, signal.SIGTERM)
        if self._adopts:
            while True:
                ended, status = os.waitpid(-1, 0)
                if ended == pid:
                    return status
        if hasattr(os, "waitid"):  # its group still has its number: nobody else's can be killed
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            _signal_group(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]

    def end_leftovers(self) -> list[str]:
        """Kill what a program has left behind that was waited for; the names of what was killed. Does nothing in
        a process that does not adopt it."""
        killed: dict[int, str] = {}
        deadline = time.monotonic() + _MOST_WAITED
        while self._adopts:
            try:
                if os.waitpid(-1, os.WNOHANG)[0]:
                    continue
            except ChildProcessError:  # nothing is left
                break
            with contextlib.suppress(OSError):
                for left in with_descendants(children_of(os.getpid())):
                    if left not in killed and (name := _name_of(left)):
                        killed[left] = name
                    _signal(left, signal.SIGKILL)
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
        return list(killed.values())

    def kill(self, pid: int) -> None:
        """Kill a program that has not been waited for, and all that it has started."""
        with contextlib.suppress(OSError):
            family = with_descendants([pid])
            _signal_group(pid, signal.SIGKILL)
            for one in family:
                _signal(one, signal.SIGKILL)
        _signal(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        self.end_leftovers()


def _on_path(program: bytes, environment: Mapping[bytes, bytes]) -> bytes:
    """Where it is found; b"" if it is not."""
    return os.fsencode(
        shutil.which(os.fsdecode(program), path=os.fsdecode(environment.get(b"PATH", b""))) or ""
    )


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, and programs can be started without it."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _readable_at_end(pid: int) -> Iterator[Callable[[float], bool]]:
    """A function that waits so many seconds for the end of a child, and says whether it has come."""
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):  # no Linux, or an old one

        def look(seconds: float) -> bool:
            time.sleep(seconds)
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

        yield look
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield lambda seconds: bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _name_of(pid: int) -> str:
    """`sleep (123)`; "" if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
    except OSError:
        return ""
    return "" if rest.split()[0] in "ZX" else f"{name} ({pid})"
