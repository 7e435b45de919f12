"""Whose a process is, and what it is there for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.experiment_fixture import wait_for
from workers.forking.process_owner import (
    incarnation_of,
    is_command_of_tracker,
    is_tracker,
    owner_of,
    process_ids_of,
    with_descendants,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def marked() -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "LONGHAUL_EXPERIMENT": "one:two", "LONGHAUL_INCARNATION": "0000000017"}
    process = subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True)
    wait_for(lambda: incarnation_of(process.pid, "one:two") is not None)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"/usr/bin/python3\0-c\0from multiprocessing.resource_tracker import main;main(5)\0", True),
        (b"python\0-I\0-c\0from loky.backend.resource_tracker import main; main(38, 0)\0", True),
        (b"python\0-c\0from joblib.externals.loky.backend.resource_tracker import main; main(4, 0)\0", True),
        (b"/site/torch/bin/torch_shm_manager\0/tmp/torch-shm-dir-1\0", True),
        (b"python\0-c\0from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5)\0", False),
        (b"python\0resource_tracker.py\0", False),
        (b"vim\0/site/torch/bin/torch_shm_manager\0", False),
        (b"", False),
    ],
)
def test_trackers_are_known_by_their_command(command: bytes, answer: bool) -> None:
    assert is_command_of_tracker(command) is answer


def test_the_tracker_of_this_python_is_known() -> None:
    code = (
        "from multiprocessing import resource_tracker as r; r.ensure_running();"
        "print(r._resource_tracker._pid, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        tracker = int(process.stdout.readline())
        wait_for(lambda: is_tracker(tracker))
        assert not is_tracker(process.pid)
        assert set(with_descendants([process.pid])) == {process.pid, tracker}
        process.communicate(b"\n")


def test_a_process_belongs_to_the_worker_that_its_environment_names(marked: subprocess.Popen[bytes]) -> None:
    pid = marked.pid
    assert incarnation_of(pid, "one:two") == 17
    assert incarnation_of(pid, "one:twothree") is None
    assert owner_of(pid, "one:two", {}, {}) == 17
    assert owner_of(pid, "another", {}, {}) is None


def test_its_group_says_more_than_its_environment_and_a_session_is_asked_last(
    marked: subprocess.Popen[bytes],
) -> None:
    pid = marked.pid
    assert owner_of(pid, "one:two", {pid: 4}, {}) == 4
    assert owner_of(pid, "another", {}, {pid: 5}) == 5
    assert owner_of(pid, "one:two", {}, {pid: 5}) == 17


def test_one_that_is_gone_belongs_to_nobody() -> None:
    assert process_ids_of(2**22) is None
    assert owner_of(2**22, "one:two", {2**22: 1}, {}) is None
    assert not is_tracker(2**22)
    assert with_descendants([2**22]) == [2**22]
