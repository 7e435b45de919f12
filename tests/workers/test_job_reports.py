"""`current_job().report()`: cheap, bounded, safe from any thread, and never in the way."""

from __future__ import annotations

import fcntl
import itertools
import math
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from workers.job import current_job
from workers.job.current_job import CurrentJob
from workers.job.job_reports import Reporter, checked
from workers.transport.messages import Completed, Reported
from workers.transport.supervisor_queues import OutboxReader
from workers.transport.worker_queues import PIPE_BUF, WorkerQueues


class Line:
    """A worker's queues, and what the supervisor reads of them."""

    def __init__(self) -> None:
        self._inbox, self._inbox_end = os.pipe()
        read, self._write = os.pipe()
        self._read = read
        self.queues = WorkerQueues(self._inbox, self._write)
        self.outbox = OutboxReader(read)
        self.heard: list[Any] = []

    def read(self) -> list[Any]:
        messages = self.outbox.read()
        self.heard += messages
        return messages

    def close(self) -> None:
        for descriptor in (self._inbox, self._inbox_end, self._read, self._write):
            os.close(descriptor)


@pytest.fixture
def line() -> Iterator[Line]:
    opened = Line()
    yield opened
    opened.close()


@pytest.fixture
def job(line: Line, monkeypatch: pytest.MonkeyPatch) -> CurrentJob:
    made = CurrentJob()
    made.report_to(Reporter(line.queues))
    made.start_job("a", None, 1)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(current_job, "monotonic", lambda: now[0])
    return now


def test_a_report_says_job_fraction_and_metrics(line: Line, job: CurrentJob) -> None:
    job.report(0.25, loss=0.5, epoch=3, phase="fit", good=True, best=None)
    metrics = {"loss": 0.5, "epoch": 3, "phase": "fit", "good": True, "best": None}
    assert line.read() == [Reported("a", 0.25, metrics)]


def test_one_report_in_a_second_is_sent(line: Line, job: CurrentJob, clock: list[float]) -> None:
    for number in range(100):
        job.report(number / 100)
        clock[0] += 0.0201
    assert [message.fraction for message in line.read()] == [0.0, 0.5]


def test_the_first_report_of_another_job_does_not_wait(
    line: Line, job: CurrentJob, clock: list[float]
) -> None:
    job.report(1.0)
    clock[0] += 0.1
    job.start_job("b", None, 1)
    job.report(0.1)
    clock[0] += 0.1
    job.report(0.2)
    assert [(m.job, m.fraction) for m in line.read()] == [("a", 1.0), ("b", 0.1)]


def test_a_million_tiny_jobs_that_report_do_not_flood_the_supervisor(
    line: Line, job: CurrentJob, clock: list[float]
) -> None:
    for number in range(1000):
        job.start_job(f"job/{number}", None, 1)
        job.report(1.0)
        clock[0] += 0.001
    assert len(line.read()) == 20


def test_values_that_are_nearly_right_are_put_right() -> None:
    assert checked(1.0000001, {}) == (1.0, {})
    assert checked(-0.1, {}) == (0.0, {})
    assert checked(math.nan, {}) == (None, {})
    assert checked(1, {"loss": math.inf, "big": 2**70}) == (1.0, {"loss": "inf", "big": float(2**70)})
    assert checked(None, {"text": "x" * 1000})[1] == {"text": "x" * 200}
    numpy = pytest.importorskip("numpy")
    assert checked(numpy.float32(0.5), {"n": numpy.int64(3)}) == (0.5, {"n": 3.0})


@pytest.mark.parametrize(
    ("fraction", "metrics", "error", "words"),
    [
        ("half", {}, TypeError, "the fraction is a number from 0 to 1, not 'half'"),
        (0.5, {"loss": [1, 2]}, TypeError, r"loss=\[1, 2\] is neither a number nor text"),
        (0.5, {f"metric {n}": "x" * 200 for n in range(50)}, ValueError, "the metrics are .* bytes, at most"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(
    fraction: Any, metrics: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        CurrentJob().report(fraction, **metrics)


def test_outside_a_worker_a_report_does_nothing() -> None:
    CurrentJob().report(0.5, loss=1.0)


# ------------------------------------------------------------------------ in one pipe


def test_a_report_never_waits_for_a_full_pipe(line: Line) -> None:
    sent = 0
    while line.queues.send_aside(Reported("a", 0.5)):
        sent += 1
    assert sent > 100
    messages = []
    while new := line.read():
        messages += new
    assert messages == [Reported("a", 0.5)] * sent
    assert line.queues.send_aside(Reported("a", 0.6)), "there is room again"


def test_a_report_that_does_not_go_in_one_piece_is_dropped(line: Line) -> None:
    assert not line.queues.send_aside(Reported("x" * PIPE_BUF))
    assert line.read() == []


def hammer(line: Line, stop: threading.Event) -> None:
    while not stop.is_set():
        line.queues.send_aside(Reported("aside", 0.5, {"x": "y" * 100}))


def _hammer_as_child(line: Line, parent: int) -> None:
    """Until it is killed; or its parent is, so that no failure leaves it behind."""
    while os.getppid() == parent:
        line.queues.send_aside(Reported("aside", 0.5, {"x": "y" * 100}))
    os._exit(0)


def test_frames_of_threads_and_children_never_tear_those_of_the_worker(line: Line) -> None:
    """Large results are written in many pieces; nothing may come in between."""
    stop, enough = threading.Event(), threading.Event()
    sizes = [10, 3000, PIPE_BUF - 30, PIPE_BUF, 70_000, 500_000]
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            _hammer_as_child(line, os.getppid())
        children.append(child)
    threads = [threading.Thread(target=hammer, args=(line, stop), daemon=True) for _ in range(2)]

    def work() -> None:
        for number in itertools.count():  # on a busy machine the others may get no turn for long
            if number >= 12 * len(sizes) and enough.is_set():
                return
            line.queues.send(Completed(number, 0.0, b"r" * sizes[number % len(sizes)]))

    worker = threading.Thread(target=work, daemon=True)
    until = time.monotonic() + 60
    try:
        for thread in [*threads, worker]:
            thread.start()
        done: list[Completed] = []
        aside = 0
        while worker.is_alive() or len(done) < 12 * len(sizes):
            assert time.monotonic() < until, "a long frame never came"
            for message in line.read():
                if isinstance(message, Completed):
                    done.append(message)
                else:
                    assert message == Reported("aside", 0.5, {"x": "y" * 100})
                    aside += 1
            if aside > 50:
                enough.set()
        done += [message for message in line.read() if isinstance(message, Completed)]
        assert [(m.lease, len(m.result)) for m in done] == [(n, sizes[n % 6]) for n in range(len(done))]
    finally:
        stop.set()
        enough.set()
        for child in children:
            os.kill(child, 9)
            os.waitpid(child, 0)
        while worker.is_alive() and time.monotonic() < until + 10:
            line.read()


def test_a_child_that_is_killed_while_it_writes_holds_up_nobody(line: Line) -> None:
    child = os.fork()
    if child == 0:
        fcntl.lockf(line.queues._write_lock.outbox, fcntl.LOCK_EX)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    result = Completed(1, 0.0, b"r" * 100_000)
    thread = threading.Thread(target=line.queues.send, args=(result,), daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not line.read():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_signal_handler_that_reports_in_the_middle_of_a_result_does_not_hang(line: Line) -> None:
    with line.queues._write_lock:
        assert not line.queues.send_aside(Reported("a", 0.5))
