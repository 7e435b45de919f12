"""Hosts of their own on one machine: each has its network, its pids and its name (Linux namespaces, as root).

All are at ports of one switch, which is a bridge in a network namespace of its own. A link is cut by taking its
port out of the bridge: both ends see a network that swallows what they send. The file system is shared.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.experiment_fixture import wait_for
from tests.nodes.tcp_carrier import PORT

DAEMON = Path(__file__).with_name("host_daemon.py")
_IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""
_APART = ("unshare", "--pid", "--uts", "--mount", "--fork", "--mount-proc")
_numbers = itertools.count()


def _inside(name: str) -> list[str]:
    return [_IP, "netns", "exec", name]


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@cache
def why_no_hosts() -> str:
    """Why hosts cannot be made here; "" if they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are of Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [tool for tool in (_IP or "ip", "unshare", "nsenter") if shutil.which(tool) is None]:
        return f"{', '.join(missing)} is not there (iproute2, util-linux)"
    try:
        with switch() as made:
            made.host()
    except subprocess.CalledProcessError as error:
        return f"hosts cannot be made here: {' '.join(error.cmd)}: {error.stderr.strip()}"
    return ""


class Host:
    """One host, until it dies. first: pid of its first process, as all others see it."""

    def __init__(self, name: str, address: str, port: str, switch_name: str) -> None:
        self.name, self.address = name, address
        self._port, self._switch = port, switch_name
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Start its first process. Its processes have pids of their own and see no others."""
        daemon = [sys.executable, str(DAEMON), self.address, str(PORT)]
        named = ["sh", "-c", 'hostname "$1"; shift; exec "$@"', "-", self.name]
        self._process = subprocess.Popen(
            [*_inside(self.name), *_APART, *named, *daemon],
            stdin=subprocess.PIPE,  # its end is that of the host: no test that is killed leaves one
            stderr=subprocess.DEVNULL,  # util-linux 2.38 complains of a mask of signals, to no harm
            start_new_session=True,
        )
        wait_for(self._listens, f"{self.name} does not listen")

    def _listens(self) -> bool:
        assert self._process is not None and self._process.poll() is None
        shown = subprocess.run(
            [*_inside(self.name), "cat", "/proc/net/tcp"],
            capture_output=True,
            text=True,
            check=True,
        )
        return f":{PORT:04X} 00000000:0000 0A" in shown.stdout

    @property
    def first(self) -> int:
        assert self._process is not None
        return child_of(self._process.pid)

    def processes(self) -> list[int]:
        """Pids of all that runs there, as this process sees them."""
        with contextlib.suppress(OSError):
            here = os.readlink(f"/proc/{self.first}/ns/pid")
            return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _is_in(entry, here)]
        return []

    def entered(self, directory: Path) -> list[str]:
        """The wrapper of a command that is to run there (`Experiment.start`)."""
        enter = ["nsenter", "--target", str(self.first), "--net", "--pid", "--uts", "--mount"]
        return [*enter, "env", "-C", str(directory)]

    # -- what may happen to it

    def cut(self) -> None:
        _do(_IP, "-n", self._switch, "link", "set", self._port, "nomaster")

    def heal(self) -> None:
        _do(_IP, "-n", self._switch, "link", "set", self._port, "master", "bridge")

    def freeze(self) -> None:
        """Everything in it stands still; its kernel goes on to acknowledge what arrives."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, signum: int) -> None:
        for _ in range(3):  # what was forked meanwhile
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)

    def die(self) -> None:
        """As in a power cut: all processes at once, and nobody says so on the network."""
        self.cut()
        self.kill()

    def renew(self) -> None:
        """For the next test, whatever became of it: connected, and nothing runs there but its first process."""
        self.thaw()
        if self._process is None or len(self.processes()) != 1:
            self.kill()
            self.boot()
        self.heal()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(child_of(process.pid), signal.SIGKILL)  # the kernel ends the others
            process.communicate()


class Switch:
    """Hosts, and what connects them."""

    def __init__(self) -> None:
        self._prefix = f"lh{os.getpid():x}-{next(_numbers)}"
        self.name = f"{self._prefix}sw"
        self.hosts: list[Host] = []
        self._namespaces: list[str] = []

    def open(self) -> None:
        self._namespace(self.name)
        _do(_IP, "-n", self.name, "link", "add", "bridge", "type", "bridge")
        _do(_IP, "-n", self.name, "link", "set", "bridge", "up")

    def _namespace(self, name: str) -> None:
        _do(_IP, "netns", "add", name)
        self._namespaces.append(name)

    def host(self) -> Host:
        number = len(self.hosts)
        name, port, address = f"{self._prefix}h{number}", f"port{number}", f"10.99.0.{number + 1}"
        self._namespace(name)
        _do(_IP, "-n", self.name, "link", "add", port, "type", "veth", "peer", "name", "wire", "netns", name)
        _do(_IP, "-n", self.name, "link", "set", port, "up")
        _do(_IP, "-n", name, "address", "add", f"{address}/24", "dev", "wire")
        _do(_IP, "-n", name, "link", "set", "wire", "up")
        _do(_IP, "-n", name, "link", "set", "lo", "up")
        host = Host(name, address, port, self.name)
        self.hosts.append(host)
        host.boot()
        host.heal()
        return host

    def close(self) -> None:
        for host in self.hosts:
            host.kill()
        for name in self._namespaces:
            subprocess.run([_IP, "netns", "delete", name], check=False, capture_output=True)


@contextlib.contextmanager
def switch() -> Iterator[Switch]:
    """All that was made is gone at the end."""
    made = Switch()
    try:
        made.open()
        yield made
    finally:
        made.close()


def needs_hosts() -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")


def child_of(pid: int) -> int:
    end = time.monotonic() + 10.0
    while not (text := Path(f"/proc/{pid}/task/{pid}/children").read_text()):
        assert time.monotonic() < end, f"{pid} has started nothing"
        time.sleep(0.005)
    return int(text.split()[0])


def _is_in(pid: str, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == namespace
    except OSError:
        return False
