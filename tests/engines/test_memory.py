"""How much memory is held and left: children counted, shared pages once, little asked."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.engines import memory
from supervisor.engines.memory import MemoryMeter, family_of
from tests.experiment import wait_for

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

M = 1 << 20
HOLD = "import sys; kept = bytearray({size}); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process with a child, started from a thread, that holds 50 MB."""
    program = (
        "import subprocess, sys, threading\n"
        f"child = [sys.executable, '-c', {HOLD.format(size=50 * M)!r}]\n"
        "thread = threading.Thread(target=subprocess.run, args=(child,))\n"
        "thread.start(); thread.join()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.communicate()


def test_what_a_process_has_started_is_counted_with_it(parent: subprocess.Popen[str]) -> None:
    assert len(family_of(parent.pid)) == 2
    used = MemoryMeter().used({7: parent.pid}, None)
    assert 50 * M < used[7] < 150 * M


def test_a_process_that_is_gone_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert MemoryMeter().used({1: process.pid}, M) == {1: 0}


def test_pages_that_are_shared_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child has all its RSS in common with its parent, 200 MB at least: half of it
    counts, and so it is not over three quarters."""
    shared = mmap.mmap(-1, 200 * M, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(shared), mmap.PAGESIZE):
        shared[page] = 1
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        sum(shared[page] for page in range(0, len(shared), mmap.PAGESIZE))
        os.write(writing, b"!")
        time.sleep(600)
        os._exit(0)
    try:
        os.read(reading, 1)
        asked: list[int] = []
        original = memory._pss
        monkeypatch.setattr(memory, "_pss", lambda pid: asked.append(pid) or original(pid))
        meter = MemoryMeter()
        rss = meter.used({1: pid}, 4000 * M)[1]
        assert rss > 200 * M
        assert asked == []  # below the limit RSS will do
        for _ in range(3):
            assert meter.used({1: pid}, rss * 3 // 4)[1] < rss * 3 // 4
        assert len(asked) == 1  # it has not grown since
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        for descriptor in (reading, writing):
            os.close(descriptor)


def test_what_is_available_is_what_the_tightest_control_group_leaves(tmp_path: Path) -> None:
    machine = MemoryMeter(tmp_path).available()
    assert machine is not None
    assert 0 < machine < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = tmp_path / "group"
    group.mkdir()
    for name, text in (
        ("memory.max", "1000000\n"),
        ("memory.current", "700000\n"),
        ("memory.stat", "anon 500000\ninactive_file 150000\nactive_file 50000\n"),
    ):
        (group / name).write_text(text)
    meter = MemoryMeter(tmp_path)
    meter._groups = [group]
    assert meter.available() == 500_000
    (group / "memory.max").write_text("max\n")
    assert wait_for(meter.available) > 500_000


def test_a_look_at_six_workers_costs_little() -> None:
    """Two looks a second must stay under 0.2 % of a core, the loop's turn included."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD.format(size=M)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(6)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        meter = MemoryMeter()
        pids = dict(enumerate(child.pid for child in children))
        meter.used(pids, 1 << 40)
        began = time.process_time()
        for _ in range(50):
            meter.used(pids, 1 << 40)
        assert (time.process_time() - began) / 50 < 0.002  # four times what it takes: machines differ
    finally:
        for child in children:
            child.communicate()


def test_where_too_many_files_are_open_the_memory_of_the_machine_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is no /proc."""

    def refused() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(memory, "_HAS_PROC", False)
    monkeypatch.setattr("psutil.virtual_memory", refused)
    assert memory.machine_memory() == (None, None)
