"""`--detach`: the run continues in the background, in a session of its own.

The script is started once more, by the command line that started this process, with a
variable in its environment that says so. A fork would be quicker, but this process has imported the user's
script by now. What that has started (threads of NumPy, a CUDA context, open files) may not work after a fork.
A new process is like any other start.

Until the experiment is open, the child prints to the terminal as usual. So everything that is refused is
shown there, and the parent exits with its exit code. Then the child redirects its output to a file and tells
the parent, which exits.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from supervisor.core.terms.errors import UsageError
from supervisor.storage.files.layout import Layout
from supervisor.system.script_start import DETACHED, environment_at_start, start_directory
from supervisor.views.console import print_lines
from supervisor.views.suggested_commands import longhaul_command, shown
from workers.process.surrogates import received, sendable

_POLL_EVERY = 0.2  # seconds; only while the parent waits


class _Started(msgspec.Struct):
    """The child's message to the waiting parent: the experiment is open."""

    experiment_id: str
    directory: str
    console: str

    def with_texts(self, form: Callable[[str], str]) -> _Started:
        return _Started(self.experiment_id, form(self.directory), form(self.console))


# --------------------------------------------------------------------------- the parent


def start_detached() -> int:
    """Start this script again in the background; its exit code, or 0 once it has begun.

    Raises UsageError where there is no command line to start again.
    """
    command = _command_line()
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            stdin=None if _input_is_a_file() else subprocess.DEVNULL,
            env={**(environment_at_start() or os.environb), DETACHED.encode(): str(writer).encode()},
            cwd=start_directory(),
            pass_fds=[writer],
            start_new_session=True,
        )
    finally:
        os.close(writer)
    try:
        line = _wait(process, reader)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    finally:
        os.close(reader)
    if not line:
        code = process.wait()
        return code if code >= 0 else 128 - code
    started = msgspec.json.decode(line, type=_Started).with_texts(received)
    print_lines(sys.stderr, _started_message(started, process.pid))
    process.returncode = 0  # it continues; Popen must not warn that it was not waited for
    return 0


def _input_is_a_file() -> bool:
    """Whether the script may read its input once more, as this process did: a file, no terminal and no pipe."""
    try:
        return stat.S_ISREG(os.fstat(0).st_mode)
    except OSError:
        return False


def _command_line() -> list[str]:
    argv = sys.orig_argv
    if len(argv) < 2 or "-" in argv[1:2] or sys.flags.interactive or hasattr(sys, "ps1"):
        raise UsageError("--detach starts the script once more, and there is no script file to start")
    return [sys.executable, *argv[1:]]


def _wait(process: subprocess.Popen[bytes], reader: int) -> bytes:
    """The child's message; b"" if it ended without one."""
    line = b""
    while not line.endswith(b"\n"):
        if select.select([reader], [], [], _POLL_EVERY)[0]:
            piece = os.read(reader, 65536)
            if not piece:
                return b""
            line += piece
        elif process.poll() is not None:
            return b""
    return line


def _started_message(started: _Started, pid: int) -> str:
    experiment_id, directory = started.experiment_id, []
    usual = os.path.realpath(os.environ.get("LONGHAUL_OUTPUT") or Path("data", "outputs"))
    if started.directory != usual and os.path.dirname(started.directory) != usual:
        directory = ["-d", started.directory]
    return (
        f"{experiment_id} runs in the background (pid {pid}); its messages go to {shown(started.console)}\n"
        f"  watch it: {longhaul_command('status', ['--watch', experiment_id, *directory])}\n"
        f"  stop it:  {longhaul_command('ctl', [experiment_id, 'drain', *directory])}"
    )


# ---------------------------------------------------------------------------- the child


def leave_terminal(writer: int, layout: Layout) -> None:
    """The experiment is open: lines go to a file from here on, and the parent may end."""
    console = layout.console
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    fd = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    started = _Started(layout.experiment_id, str(layout.directory), str(console))
    try:
        os.write(writer, msgspec.json.encode(started.with_texts(sendable)) + b"\n")
    except OSError:  # the parent was ended: the run in the background continues
        pass
    finally:
        os.close(writer)


# ------------------------------------------------------------------------ terminals over SSH


def ssh_warning(environment: Mapping[str, str]) -> str | None:
    """A warning for a run whose terminal is an SSH session without tmux or screen; None elsewhere."""
    over_ssh = environment.get("SSH_CONNECTION") or environment.get("SSH_TTY")
    kept = environment.get("TMUX") or environment.get("STY")
    if not over_ssh or kept or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return None
    if not any(_is_terminal(fd) for fd in (0, 1, 2)):
        return None
    return (
        "this terminal comes over SSH, without tmux or screen: if the connection breaks, the run is drained. "
        "--detach starts it in the background"
    )


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
