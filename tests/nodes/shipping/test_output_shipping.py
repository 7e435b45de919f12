"""What a worker prints, from its scratch file on the node into logs on the supervisor's disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.nodes.shipping.file_messages import LogEnds, Printed
from supervisor.nodes.shipping.output_shipping import NO_LEASE, OutputShipping
from supervisor.storage.files.layout import Layout
from supervisor.storage.shipped_files import ShippedFiles
from workers.isolation.output_files import collect, log_path, move, scratch_path, stray_path
from workers.transport.messages import FunctionSpec, WorkerSpec

LIMIT = 100_000
ALL = 1 << 40


class Side:
    """A worker on a node with the agent's `shipping`, and the supervisor's `store`."""

    def __init__(self, root: Path) -> None:
        self.node = root / "node"
        self.node.mkdir()
        self.layout = Layout(root / "out", "exp")
        self.output = self.layout.output_directory
        self.store = ShippedFiles(self.layout, LIMIT, lambda text: None)
        spec = WorkerSpec(
            experiment_id="test",
            tag="test:1",
            worker=3,
            incarnation=7,
            function=FunctionSpec("os", "getpid"),
            setup=None,
            seed=1,
            output_directory=str(self.node),
            jobs_directory="",
            output_limit=LIMIT,
        )
        self.shipping = OutputShipping(spec)
        self.scratch = Path(scratch_path(str(self.node), 3, 7))
        self.mirror = Path(scratch_path(str(self.output), 3, 7))

    def print(self, data: bytes) -> None:
        with open(self.scratch, "ab") as file:
            file.write(data)

    def job_ends(self, job: str) -> int:
        """As the worker does it; the bytes that it tells."""
        return collect(str(self.scratch), str(self.node), job, 1, LIMIT)

    def hear_end(self, job: str, size: int, lease: int, *, dead: bool = False) -> None:
        path = log_path(str(self.node), job) if job else stray_path(str(self.node), 3)
        self.shipping.ended(path, size, lease, 1, dead=dead)

    def send(self, most: int = ALL) -> int:
        """How many messages."""
        messages = self.shipping.messages(most)
        for message in messages:
            match message:
                case Printed(incarnation, offset, data):
                    self.store.printed(3, incarnation, offset, data)
                case LogEnds(incarnation, lease, attempt, whole):
                    job = None if lease == NO_LEASE else f"job/{lease}"
                    self.store.log_ended(3, incarnation, job, attempt, whole=whole)
        return len(messages)

    def log(self, lease: int) -> bytes:
        return Path(log_path(str(self.output), f"job/{lease}")).read_bytes()


@pytest.fixture
def side(tmp_path: Path) -> Side:
    return Side(tmp_path)


def test_it_follows_while_a_job_prints_and_the_log_is_whole_at_its_end(side: Side) -> None:
    assert side.send() == 0
    side.print(b"one\n")
    side.send()
    assert side.mirror.read_bytes() == b"one\n" and side.send() == 0
    side.print(b"two\n")
    side.send()
    assert side.mirror.read_bytes() == b"one\ntwo\n"
    side.print(b"three\n")
    side.hear_end("job/1", side.job_ends("job/1"), 1)
    side.print(b"of the next job\n")
    side.send()
    assert side.log(1) == b"one\ntwo\nthree\n"
    assert side.mirror.read_bytes() == b"of the next job\n"
    assert [path.name for path in side.node.iterdir()] == [side.scratch.name]


def test_the_next_job_may_be_seen_before_the_end_of_the_one_before_it_is_told(side: Side) -> None:
    side.print(b"of job 1\n")
    first = side.job_ends("job/1")  # so quickly that nothing of it was seen
    side.print(b"of job 2\n")
    side.send()
    side.hear_end("job/1", first, 1)
    side.print(b"more of job 2\n")
    side.hear_end("job/2", side.job_ends("job/2"), 2)
    side.send()
    assert (side.log(1), side.log(2)) == (b"of job 1\n", b"of job 2\nmore of job 2\n")


def test_many_jobs_may_have_ended_before_the_first_end_is_told(side: Side) -> None:
    """The scratch file is looked at when the third prints; by the time that the first end is told, it is a log."""
    sizes = {}
    for lease in range(1, 6):
        side.print(b"of job %d\n" % lease)
        if lease == 3:
            side.send()
        sizes[lease] = side.job_ends(f"job/{lease}")
    for lease, size in sizes.items():
        side.hear_end(f"job/{lease}", size, lease)
        side.send()
    assert [side.log(lease) for lease in sizes] == [b"of job %d\n" % lease for lease in sizes]


@pytest.mark.parametrize("seen", [False, True])
def test_a_cut_log_between_others_is_that_of_its_job(side: Side, seen: bool) -> None:
    side.print(b"x" * 150_000)
    if seen:
        side.send()
    first = side.job_ends("job/1")
    side.print(b"second")
    if not seen:
        side.send()
    second = side.job_ends("job/2")
    side.print(b"third")
    for lease, size in ((1, first), (2, second)):
        side.hear_end(f"job/{lease}", size, lease)
    side.send()
    assert len(side.log(1)) > LIMIT and side.log(2) == b"second" and side.mirror.read_bytes() == b"third"


def test_a_log_goes_in_pieces_and_no_other_one_gets_between(side: Side) -> None:
    first, second = os.urandom(90_000), os.urandom(80_000)
    for lease, data in ((1, first), (2, second)):
        side.print(data)
        side.hear_end(f"job/{lease}", side.job_ends(f"job/{lease}"), lease)
    side.print(b"live")
    assert side.shipping.waits_for(1) and side.shipping.waits_for(2)
    while side.shipping.waiting:
        assert side.send(10_000) > 0
    side.send()
    assert (side.log(1), side.log(2)) == (first, second) and side.mirror.read_bytes() == b"live"


@pytest.mark.parametrize("seen", [0, 30_000, 70_000, 1_000_000])
def test_of_more_than_the_limit_head_and_tail_are_kept(side: Side, seen: int) -> None:
    """`seen`: how much of it was printed when the agent looked first."""
    data = b"".join(b"%06d\n" % number for number in range(1_000_000 // 7 + 1))[:1_000_000]
    if seen:
        side.print(data[:seen])
        side.send()
    side.print(data[seen:])
    reference = side.node / "reference"
    reference.write_bytes(data)
    move(str(reference), str(reference) + ".log", "", LIMIT)
    size = side.job_ends("job/1")
    side.hear_end("job/1", size, 1)
    side.send()
    assert side.log(1) == (side.node / "reference.log").read_bytes()
    assert b"900000 bytes left out" in side.log(1)


@pytest.mark.parametrize("at_once", [50_000, 200_000])
def test_an_endless_output_costs_no_more_than_its_ends(side: Side, at_once: int) -> None:
    for _ in range(5_000_000 // at_once):
        side.print(os.urandom(at_once))
        side.send()
    assert side.mirror.stat().st_size == 5_000_000
    assert side.mirror.stat().st_blocks * 512 <= LIMIT + (1 << 20) + at_once


def test_the_middle_of_what_is_too_long_is_not_even_sent(side: Side) -> None:
    side.print(bytes(50 * LIMIT))
    assert sum(len(each.data) for each in side.shipping.messages(ALL) if isinstance(each, Printed)) == LIMIT


def test_a_dead_worker_may_have_its_end_written_anew(side: Side) -> None:
    """The engine of the node replaces the dump of a crash by a shorter one (`last_stack`)."""
    side.print(b"printed\n" + b"Fatal Python error: our frames\n" * 30)
    side.send()
    with open(side.scratch, "r+b") as file:
        file.truncate(8)
        file.seek(8)
        file.write(b"Fatal: cleaned\n" * 100)
    side.hear_end("job/1", side.job_ends("job/1"), 1, dead=True)
    side.send()
    assert side.log(1) == b"printed\n" + b"Fatal: cleaned\n" * 100


def test_what_belongs_to_no_job_becomes_the_log_of_the_worker(side: Side) -> None:
    for number in range(2):
        side.print(b"set up %d\n" % number)
        size = move(str(side.scratch), stray_path(str(side.node), 3), "", LIMIT)
        side.hear_end("", size, NO_LEASE)
        side.send()
    assert Path(side.store.stray_log(3)).read_text() == "set up 0\n\n--- another start ---\nset up 1\n"


def test_a_job_that_cuts_its_output_is_followed_from_the_start(side: Side) -> None:
    side.print(b"long" * 100)
    side.send()
    os.truncate(side.scratch, 0)
    side.print(b"short")
    side.send()
    assert side.mirror.read_bytes() == b"short"


def test_files_are_closed_when_it_ends(side: Side) -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    side.print(b"a" * 10)
    side.hear_end("job/1", side.job_ends("job/1"), 1)
    side.print(b"b")
    side.shipping.messages(0)
    side.shipping.close()
    if before:
        assert len(os.listdir("/proc/self/fd")) == len(before)
