"""Finding and ending processes by their tag."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import psutil
import pytest

from supervisor.system.process_cleanup import end_orphans, sweep
from supervisor.system.processes import descendants_by_root, is_stopped, process_table, start_time
from supervisor.system.resource_usage import UsageMeter

Start = Callable[..., subprocess.Popen[str]]

# Starts a sleeper, says its pid, then waits for its standard input to end.
PARENT = (
    "import subprocess, sys; child = subprocess.Popen(['sleep', '1000'], start_new_session=True);"
    "print(child.pid, flush=True); sys.stdin.read()"
)


@pytest.fixture
def tag() -> str:
    return f"test:{uuid.uuid4()}"


@pytest.fixture
def start(tag: str) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(source: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LONGHAUL_EXPERIMENT": tag, **environment},
        )
        started.append(process)
        return process

    yield start
    sweep(tag)
    for process in started:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_sweep_ends_what_carries_the_mark_and_nothing_else(start: Start, tag: str) -> None:
    ours, other = start(PARENT), start(PARENT, LONGHAUL_EXPERIMENT=tag + "2")
    child, others_child = say(ours), say(other)
    assert sorted(sweep(tag)) == sorted([ours.pid, child])
    assert not lives(ours.pid) and not lives(child)
    assert lives(other.pid) and lives(others_child)
    assert sweep(tag + "2", [other.pid]) == [others_child]
    assert lives(other.pid)


def test_a_sweep_spares_itself_and_its_ancestors_whatever_they_carry(start: Start, tag: str) -> None:
    """A run inside a job of another run, that sweeps for the very tag it inherited."""
    inner = (
        "import subprocess, sys; from supervisor.system.process_cleanup import sweep;"
        f"child = subprocess.Popen(['sleep', '1000']); print(sweep({tag!r}) == [child.pid])"
    )
    outer = start(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])")
    output, _ = outer.communicate(timeout=30)
    assert output == "True\n" and outer.returncode == 0


def test_orphans_are_those_that_descend_from_nobody_needed(start: Start, tag: str) -> None:
    needed, dead = start(PARENT), start(PARENT)
    kept, orphan = say(needed), say(dead)
    dead.kill()
    dead.wait()
    assert end_orphans(tag, {needed.pid})
    assert lives(needed.pid) and lives(kept)
    while lives(orphan):
        pass
    assert not end_orphans(tag, {needed.pid})


def test_the_table_agrees_with_psutil(start: Start) -> None:
    parent = start(PARENT)
    child = say(parent)
    table = process_table()
    assert table[child].parent == parent.pid and table[parent.pid].parent == os.getpid()
    assert table[parent.pid].rss_bytes == pytest.approx(psutil.Process(parent.pid).memory_info().rss, rel=0.2)
    assert descendants_by_root(table, [parent.pid, 2**22]) == {parent.pid: [parent.pid, child], 2**22: []}


def test_a_stopped_process_is_seen_as_such(start: Start) -> None:
    process = start(PARENT)
    say(process)
    assert not is_stopped(process.pid)
    psutil.Process(process.pid).suspend()
    while not is_stopped(process.pid):
        pass
    assert start_time(process.pid) == psutil.Process(process.pid).create_time()
    assert not is_stopped(2**22) and start_time(2**22) == 0.0


def test_processor_time_is_counted_since_the_last_reading(start: Start) -> None:
    busy = start("while True: pass")
    meter = UsageMeter()
    assert meter.read({1: [busy.pid]})[1].cpu_percent == 0.0
    while not (usage := meter.read({1: [busy.pid]})[1]).cpu_percent:
        pass
    assert usage.rss_bytes > 1_000_000
    busy.kill()
    busy.wait()
    assert meter.read({1: [busy.pid]})[1].rss_bytes == 0
    assert meter.read({}) == {}
