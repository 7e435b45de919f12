"""Where control sockets may be, and where not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.control import control_socket
from supervisor.control.control_server import ControlServer
from supervisor.control.control_socket import (
    NoControlSocket,
    find_directory,
    remove_stale_sockets,
    socket_name,
)

OWN = f"longhaul-{os.geteuid()}"


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a short path, as XDG_RUNTIME_DIR and TMPDIR are."""
    path = Path(f"/tmp/lh{os.getpid()}")
    path.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path / "run"))
    monkeypatch.setenv("TMPDIR", str(path / "tmp"))
    (path / "run").mkdir(0o700)
    (path / "tmp").mkdir(0o700)
    yield path
    for root, folders, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(root, name))
        for name in folders:
            full = os.path.join(root, name)
            os.unlink(full) if os.path.islink(full) else os.rmdir(full)
    path.rmdir()


def test_the_runtime_directory_comes_first_and_is_closed_to_others(short: Path) -> None:
    assert find_directory() == str(short / "run" / "longhaul")
    assert os.stat(short / "run" / "longhaul").st_mode & 0o777 == 0o700


@pytest.mark.parametrize("runtime", ["", "relative", "/nowhere"])
def test_without_one_it_is_the_temporary_directory(
    short: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert find_directory() == str(short / "tmp" / OWN)


@pytest.mark.parametrize("trap", ["link", "open to others", "file", "of somebody else"])
def test_a_directory_that_is_not_ours_alone_is_not_used(short: Path, trap: str) -> None:
    path = short / "run" / "longhaul"
    if trap == "link":
        (short / "elsewhere").mkdir(0o700)
        path.symlink_to(short / "elsewhere")
    elif trap == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod(0o755 if trap == "open to others" else 0o700)
    if trap == "of somebody else":
        if os.geteuid() != 0:
            pytest.skip("only root can make a directory of somebody else's")
        os.chown(path, 65534, 65534)
    assert find_directory() == str(short / "tmp" / OWN)


def test_a_long_path_falls_back_and_where_nothing_is_left_the_reasons_are_told(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = short / ("x" * 90)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert find_directory() == str(short / "tmp" / OWN)
    monkeypatch.setattr(control_socket, "_candidates", lambda: iter([str(long), "/proc/longhaul"]))
    with pytest.raises(NoControlSocket) as caught:
        find_directory()
    assert "is too long for a socket's path; /proc/longhaul cannot be used: " in str(caught.value)


def test_a_sweep_removes_what_nobody_listens_at_and_nothing_else(short: Path) -> None:
    directory = Path(find_directory())
    live = ControlServer.open("/some/lock")
    dead = directory / socket_name("/another/lock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    (directory / "notes.txt").touch()
    in_the_making = [directory / f"{'a' * 16}.{os.getpid()}", directory / f"{'b' * 16}.999999999"]
    for path in in_the_making:
        path.touch()
    remove_stale_sockets(str(directory))
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        [Path(live.path).name, "notes.txt", in_the_making[0].name]
    )
    live.close()
    assert not Path(live.path).exists()


def test_two_locks_have_two_sockets_and_a_link_leads_to_the_same(tmp_path: Path) -> None:
    lock = tmp_path / "lock_a"
    lock.touch()
    (tmp_path / "link").symlink_to(lock)
    assert socket_name(lock) == socket_name(tmp_path / "link")
    assert socket_name(lock) != socket_name(tmp_path / "lock_b")
