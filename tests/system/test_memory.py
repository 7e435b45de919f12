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

from supervisor.system import process_memory, resource_usage
from supervisor.system.capacity import free_memory
from supervisor.system.capacity.free_memory import FreeMemory, usable_memory
from supervisor.system.process_memory import ProcessFamily, SharedMemory, family, family_of, read_shared
from supervisor.system.resource_usage import SAVED, SHARE, MemoryMeter
from tests.experiment_fixture import slowness, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]

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
    used = MemoryMeter().used({7: [parent.pid]}, 1 << 40)
    assert 50 * M < used[7] < 150 * M


def test_a_worker_may_have_several_roots(parent: subprocess.Popen[str]) -> None:
    """An orphan of its job is another process's child by then."""
    _, child = family_of(parent.pid)
    apart = MemoryMeter().used({1: [parent.pid], 2: [child]}, 1 << 40)
    together = MemoryMeter().used({1: [parent.pid, child]}, 1 << 40)
    assert together == {1: apart[1]}  # each process once


def test_a_process_that_is_gone_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert MemoryMeter().used({1: [process.pid]}, M) == {1: 0}


class Fork:
    """A child of ours that does what it is told with an area that it has inherited."""

    def __init__(self, area: mmap.mmap) -> None:
        self._read, writing = os.pipe()
        reading, self._write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            kept = []
            while True:
                order = os.read(reading, 1)
                if order == b"w":
                    for page in range(0, len(area), mmap.PAGESIZE):
                        area[page] = 2
                elif order == b"n":  # not from a heap: what the parent has freed there is mapped already
                    kept.append(written(len(area)))
                elif order == b"":
                    os._exit(0)
                sum(area[page] for page in range(0, len(area), mmap.PAGESIZE))
                os.write(writing, b"!")
        os.close(writing)
        os.close(reading)
        self.tell(b"r")

    def tell(self, order: bytes) -> None:
        """r: read the area, w: write to it, n: take as much anew. Returns when it is done."""
        os.write(self._write, order)
        assert os.read(self._read, 1) == b"!"

    def end(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def area() -> mmap.mmap:
    """50 MB that are written to."""
    return written(50 * M)


def written(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, size, mmap.PAGESIZE):
        memory[page] = 1
    return memory


class Clock:
    """Time as a test wants it; each reading of page tables takes `cost`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float = 0.0) -> None:
        self.now, self.spent, self.cost = 1000.0, 0.0, cost
        self.read: list[int] = []
        self._shares = process_memory.read_shared
        monkeypatch.setattr(resource_usage, "read_shared", self._counted)

    def _counted(self, pid: int) -> SharedMemory:
        self.read.append(pid)
        self.spent += self.cost
        return self._shares(pid)

    def meter(self) -> MemoryMeter:
        return MemoryMeter(lambda: self.now, lambda: self.spent)


def test_what_is_shared_with_the_origin_does_not_count_until_it_is_written_to(
    area: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    meter = clock.meter()
    workers = {1: Fork(area), 2: Fork(area)}
    roots = {key: [worker.pid] for key, worker in workers.items()}
    try:
        most = meter.used(roots, 4000 * M, origins=[os.getpid()])
        assert min(most.values()) > 50 * M
        assert clock.read == []  # within the limit whatever is shared: nobody has to know
        for _ in range(3):
            used = meter.used(roots, 30 * M, origins=[os.getpid()])
            assert max(used.values()) <= 30 * M
        # No process more or less, nothing mapped or unmapped: a copy is seen all the same.
        workers[1].tell(b"w")
        used = meter.used(roots, 30 * M, origins=[os.getpid()])
        assert used[1] > 50 * M
        assert used[2] <= 30 * M
        workers[2].tell(b"n")
        used = meter.used(roots, 30 * M, origins=[os.getpid()])
        assert min(used.values()) > 50 * M
    finally:
        for worker in workers.values():
            worker.end()


def test_what_was_read_before_stops_nobody_and_readings_keep_to_their_share(
    area: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading costs ten seconds' share of a core here: at most one every ten seconds."""
    clock = Clock(monkeypatch, cost=10 * SHARE)
    meter = clock.meter()
    worker = Fork(area)
    try:
        for _ in range(400):  # two hundred seconds, and what was saved up
            clock.now += 0.5
            used = meter.used({1: [worker.pid]}, M)
            assert used[1] <= M or clock.read
        spent = len(clock.read) * clock.cost
        assert 180 * SHARE < spent <= 200 * SHARE + SAVED + clock.cost
        before = len(clock.read)
        assert meter.used({1: [worker.pid]}, M) == {1: M}  # not read again, so not over
        assert len(clock.read) == before
    finally:
        worker.end()


def test_a_worker_that_grows_does_not_wait_for_its_turn(
    area: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, cost=0.004)
    meter = clock.meter()
    workers = {key: Fork(area) for key in range(4)}
    roots = {key: [worker.pid] for key, worker in workers.items()}
    try:
        for _ in range(100):  # all are over the limit but for what they share: what was saved is spent
            clock.now += 0.2
            assert max(meter.used(roots, 30 * M, origins=[os.getpid()]).values()) <= 30 * M
        workers[3].tell(b"n")
        clock.now += 0.2
        assert meter.used(roots, 30 * M, origins=[os.getpid()])[3] > 50 * M
    finally:
        for worker in workers.values():
            worker.end()


def test_a_worker_whose_children_change_all_the_time_takes_no_turn_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five minutes at five looks a second. No process is needed: who shares what with whom stays the same."""
    busy, child, quiet = 11, 12, 21
    monkeypatch.setattr(resource_usage, "HAS_PROC", True)
    monkeypatch.setattr(resource_usage, "HAS_CHILDREN", True)
    monkeypatch.setattr(resource_usage, "family", lambda pids: ProcessFamily(pids, 50 * M * len(pids)))
    monkeypatch.setattr(resource_usage, "full_memory", lambda pid: 50 * M)
    monkeypatch.setattr(process_memory, "read_shared", lambda pid: SharedMemory(17 * M, 0))
    clock = Clock(monkeypatch, cost=0.05)
    meter = clock.meter()
    for number in range(1500):
        clock.now += 0.2
        roots = {1: [busy, child] if number % 2 else [busy], 2: [quiet]}
        meter.used(roots, 30 * M, origins=[os.getpid()])
    assert clock.read.count(quiet) > 2
    assert clock.read.count(busy) > clock.read.count(quiet)  # it is read at each change that is affordable


def test_a_child_between_vfork_and_exec_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    status = b"Name:\tpython\nVmPeak:\t 900 kB\nRssAnon:\t 500 kB\nRssShmem:\t 20 kB\nVmSwap:\t 30 kB\nThreads:\t1\n"
    files = {
        "/proc/5/status": status,
        "/proc/6/status": status.replace(b"python", b"child"),
        "/proc/7/status": status.replace(b"500 kB", b"504 kB"),
        "/proc/8/status": b"Name:\tzombie\nState:\tZ\n",
        "/proc/5/task/5/children": b"6 7 8 ",
    }
    monkeypatch.setattr(process_memory, "read", lambda path: files.get(path, b""))
    monkeypatch.setattr(os, "listdir", lambda path: [path.split("/")[2]])
    assert family([5]) == ([5, 7], (550 + 554) * 1024)


def test_files_are_not_counted_and_what_is_swapped_out_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rollup = {
        "Rss": 9000, "Pss": 8000, "Pss_Anon": 700, "Pss_File": 7200, "Pss_Shmem": 100,
        "Private_Clean": 4000, "Private_Dirty": 600, "SwapPss": 50,
    }  # fmt: skip
    lines = "".join(f"{name}:  {amount} kB\n" for name, amount in rollup.items())
    monkeypatch.setattr(
        process_memory, "read", lambda path: b"0-f ---p 0 00:00 0 [rollup]\n" + lines.encode()
    )
    assert read_shared(5) == (850 * 1024, 650 * 1024)


def test_of_a_process_that_may_not_be_looked_into_all_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/5/status": b"RssAnon:\t 500 kB\nRssFile:\t 70 kB\nRssShmem:\t 20 kB\nVmSwap:\t 30 kB\n"}
    monkeypatch.setattr(process_memory, "read", lambda path: files.get(path, b""))
    assert read_shared(5) == (550 * 1024, 550 * 1024)


@pytest.mark.parametrize(
    ("limit", "used", "prefix", "controllers"),
    [
        ("memory.max", "memory.current", "", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_", "cpuset,memory"),
    ],
)
def test_what_is_available_is_what_the_tightest_control_group_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: str, prefix: str, controllers: str
) -> None:
    machine = FreeMemory(tmp_path).available()
    assert machine is not None
    assert 0 < machine < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = tmp_path / "memory" / "outer" if controllers else tmp_path / "outer"
    group.mkdir(parents=True)
    stat = f"anon 500000\n{prefix}inactive_file 150000\n{prefix}active_file 50000\n"
    for name, text in ((limit, "1000000\n"), (used, "700000\n"), ("memory.stat", stat)):
        (group / name).write_text(text)
    actual = free_memory.read
    ours = f"7:{controllers}:/outer/inner\n1:name=systemd:/\n".encode()
    monkeypatch.setattr(
        free_memory, "read", lambda path: ours if path == "/proc/self/cgroup" else actual(path)
    )
    free = FreeMemory(tmp_path)
    assert free.available() == 500_000
    assert usable_memory(tmp_path) == 1_000_000
    (group / limit).write_text("max\n")
    assert wait_for(free.available) > 500_000
    assert usable_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (group / "inner").mkdir()
    (group / "inner" / limit).write_text("800000\n")
    (group / limit).write_text("900000\n")
    assert usable_memory(tmp_path) == 800_000


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
        pids = {number: [child.pid] for number, child in enumerate(children)}
        meter.used(pids, 1 << 40)
        began = time.process_time()
        for _ in range(50):
            meter.used(pids, 1 << 40)
        assert (
            time.process_time() - began
        ) / 50 < 0.002 * slowness()  # four times what it takes: machines differ
    finally:
        for child in children:
            child.communicate()


def test_where_too_many_files_are_open_the_memory_of_the_machine_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is no /proc."""

    def refused() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(free_memory, "HAS_PROC", False)
    monkeypatch.setattr("psutil.virtual_memory", refused)
    assert free_memory.machine_memory() == (None, None)
