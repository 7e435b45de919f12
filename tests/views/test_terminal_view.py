"""The view on a real terminal (a pty), and when that terminal shrinks, hangs up or stalls."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import select
import struct
import termios
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from rich.console import Console

from supervisor.core.state.snapshot import RunSnapshot, WorkerSnapshot
from supervisor.core.terms.jobs import Counts
from supervisor.views.guarded_view import open_view
from supervisor.views.plain_view import PlainView
from supervisor.views.terminal_view import TerminalView, frame
from supervisor.views.view import View
from tests.experiment_fixture import PATIENCE, slowness
from tests.views.made import counts, failure, needs, node, snapshot, worker

EVENING = datetime(2025, 10, 14, 22, 30)


class Terminal:
    """The other side of a pty: remembers everything that was drawn."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.stream = open(self.slave, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        self.drawn = ""
        self.resize(80, 24)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        until = time.monotonic() + seconds
        while text not in self.drawn:
            assert time.monotonic() < until, f"{text!r} was not drawn, but {self.drawn!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.drawn += os.read(self.master, 1 << 16).decode(errors="replace")

    def swallow(self) -> None:
        while select.select([self.master], [], [], 0)[0]:
            os.read(self.master, 1 << 16)

    def hang_up(self) -> None:
        os.close(self.master)

    def close(self) -> None:
        for descriptor in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    opened = Terminal()
    yield opened
    opened.close()


def lines_of(frame_width: int, frame_height: int, **more: object) -> list[str]:
    console = Console(file=io.StringIO(), width=frame_width, height=frame_height, force_terminal=False)
    with console.capture() as capture:
        console.print(frame(snapshot(**more), EVENING, frame_width, frame_height))  # type: ignore[arg-type]
    return capture.get().splitlines()


def test_the_frame_shows_bar_counts_end_time_and_workers() -> None:
    lines = lines_of(100, 30)
    assert lines[0] == "pilot_experiment experiment_20251014_223000  running  2h 13m"
    assert "37%  743 of 2,000  ends about 03:30" in lines[1]
    assert lines[2] == "740 completed  3 failed  6 in progress  1,251 pending  1.2 jobs/s"
    assert re.fullmatch(r" +5  iris/forest/5 +5m 00s +1\.0G +98%", lines[8])
    assert len(lines) == 9


@pytest.mark.parametrize("workers", [0, 1, 6, 9, 64])
@pytest.mark.parametrize("size", [(80, 24), (40, 10), (20, 4), (200, 60), (10, 2), (1, 1)])
def test_the_frame_fits_whatever_the_terminal(workers: int, size: tuple[int, int]) -> None:
    width, height = size
    lines = lines_of(
        width,
        height,
        workers=workers,
        state="draining",
        grace_left=12.0,
        name="x" * 300,
        domains=domains(72),
        checkpoint_age=5.0,
        needs=needs(resources={f"resource{n}": (0.125, 1000) for n in range(20)}),
    )
    assert len(lines) <= max(1, height - 1)
    assert all(len(line) <= width for line in lines)


def test_of_many_workers_those_are_shown_whose_jobs_run_longest() -> None:
    lines = lines_of(80, 24, workers=20)
    assert [line.split()[0] for line in lines[3:]] == ["13", "14", "15", "16", "17", "18", "19", "+"]
    assert lines[-1].strip() == "+ 13 more"


def test_workers_without_a_job_say_so() -> None:
    idle = [worker(0, job=None), worker(1, job=None, status="starting"), worker(2, attempt=3)]
    lines = lines_of(100, 24, workers=0)
    assert len(lines) == 3
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(frame(snapshot(workers=0), EVENING, 100, 24))
        for entry in idle:
            console.print(frame(_with(entry), EVENING, 100, 24))
    text = capture.get()
    assert "0  waiting for a job" in text
    assert "1  starting" in text
    assert "attempt 3" in text


def domains(number: int) -> dict[str, Counts]:
    return {f"domain{n:02}": Counts(40, n % 41, int(n == 7), int(n == 3), 0) for n in range(number)}


def test_midnight_has_room_age_of_the_checkpoint_domains_and_slow_jobs() -> None:
    lines = lines_of(
        110,
        40,
        checkpoint_age=12.0,
        disk_free=412 << 30,
        memory_free=11 << 30,
        memory_total=64 << 30,
        domains=domains(72),
        workers=0,
    )
    assert lines[3] == "checkpoint 12s ago  disk 412G free  memory 11G of 64G free"
    assert lines[4].startswith("domain03 3/40"), "worked on first"
    assert "domain07 8/40 (1)" in lines[4], "then those with failures"
    assert len(lines) == 8 and lines[7].strip().endswith("more domains")


def test_one_domain_or_one_job_of_each_needs_no_table() -> None:
    assert len(lines_of(100, 40, domains=domains(1))) == 9
    pilot = {f"d{n}": Counts(1, 0, 0, 0, 1) for n in range(72)}
    assert len(lines_of(100, 40, domains=pilot)) == 9


def test_domains_never_take_the_place_of_workers() -> None:
    lines = lines_of(80, 13, domains=domains(72))
    assert len([line for line in lines if "iris/forest" in line]) == 6


def test_what_a_job_says_of_itself_stands_in_its_line() -> None:
    console = Console(file=io.StringIO(), width=110)
    view = snapshot(workers=0)
    view.workers = [
        worker(0, fraction=0.456, metrics={"loss": 0.123456, "epoch": 3, "phase": "fit\x1b[2J"}),
        worker(1, slow=True),
        worker(2, job="iris/" + "x" * 100 + "/200"),
    ]
    with console.capture() as capture:
        console.print(frame(view, EVENING, 110, 40))
    first, second, third = capture.get().splitlines()[3:]
    assert first.endswith("98%  46% done loss=0.1235 epoch=3 phase=fit")
    assert second.endswith("98%  slow")
    assert re.search(r"   2  iris/x+…x*/200 ", third), "both ends of an id can be read"
    assert first.index("98%") == second.index("98%") == third.index("98%")


def test_what_jobs_take_and_wait_for_has_lines_of_its_own() -> None:
    lines = lines_of(80, 24, workers=1, needs=needs(), checkpoint_age=12.0)
    assert lines[3:7] == [
        "checkpoint 12s ago",
        "given  cores 3.5 of 4  memory 6.0G of 15G  GPUs 1.5 of 2  license 1 of 2",
        "big/7 waits for 3 cores (2 free)",
        "2 jobs cannot run: big/9 asks for 8 cores, but there are 4 (--workers)",
    ]
    narrow = lines_of(60, 24, workers=1, needs=needs())
    assert narrow[3:7] == [
        "given  cores 3.5 of 4  memory 6.0G of 15G  GPUs 1.5 of 2",
        "       license 1 of 2",
        "big/7 waits for 3 cores (2 free)",
        "2 jobs cannot run: big/9 asks for 8 cores, but there are 4 …",
    ]
    many = lines_of(60, 24, workers=0, needs=needs(resources={f"resource{n}": (0, 1) for n in range(20)}))
    assert many[4].startswith("       resource0 0 of 1  resource1 0 of 1  ") and many[4].endswith("…")
    assert many[5] == "big/7 waits for 3 cores (2 free)"


def test_while_it_drains_the_frame_says_what_is_left() -> None:
    lines = lines_of(100, 30, state="draining", grace_left=17.2, workers=4)
    assert lines[3] == "4 jobs running, 17 s left; Ctrl+C again stops now"


def test_the_view_costs_less_than_a_hundredth_of_a_core(terminal: Terminal) -> None:
    """Six workers, 72 domains: an update is due twice a second."""
    view = open_view(terminal.stream)
    terminal.resize(120, 40)
    shown = snapshot(
        domains=domains(72), checkpoint_age=3.0, disk_free=1 << 40, memory_free=1 << 34, memory_total=1 << 35
    )
    for entry in shown.workers:
        entry.fraction, entry.metrics = 0.5, {"loss": 0.5}
    costs = []
    for _ in range(40):
        began = time.thread_time()
        view.update(shown)
        costs.append(time.thread_time() - began)
        terminal.swallow()
    view.close()
    assert sorted(costs)[len(costs) // 2] < 0.5 * 0.01 * 2 * slowness(), "twice that, for slow moments"


def _with(entry: WorkerSnapshot) -> RunSnapshot:
    over = snapshot(workers=0)
    over.workers = [entry]
    return over


def test_failures_and_output_scroll_above_a_frame_that_is_erased_at_the_end(terminal: Terminal) -> None:
    view = open_view(terminal.stream)
    view.update(snapshot())
    terminal.wait_for("ends about")
    view.failed(failure(output_tail="last words"))
    terminal.wait_for("FAILED iris/forest/200: ValueError model.py:88: no such split")
    terminal.wait_for("| last words")
    view.output("iris/1", "loss 0.3\n")
    terminal.wait_for("loss 0.3")
    view.message("warning", "no room")
    terminal.wait_for("warning: no room")
    terminal.wait_for("iris/forest/5")
    view.close(snapshot())
    terminal.stream.write("THE END")
    terminal.stream.flush()
    terminal.wait_for("THE END")
    assert terminal.drawn.rpartition("iris/forest/5")[2].count("\x1b[2K") >= 9, "every line is erased"
    assert terminal.drawn.rfind("\x1b[?25h") > terminal.drawn.rfind("\x1b[?25l"), "the cursor is visible"


def test_the_terminal_is_clean_while_the_shell_has_it(terminal: Terminal) -> None:
    view = open_view(terminal.stream)
    view.update(snapshot())
    view.suspend()
    terminal.stream.write("$ fg")
    terminal.stream.flush()
    terminal.wait_for("$ fg")
    assert terminal.drawn.endswith("\x1b[1A\x1b[2K$ fg")
    view.resume()
    terminal.drawn = ""
    view.update(snapshot())
    terminal.wait_for("ends about")
    view.close()


def test_a_resize_in_the_middle_is_followed(terminal: Terminal) -> None:
    view = open_view(terminal.stream)
    for columns, lines in ((80, 24), (30, 5), (0, 0), (1, 1), (2, 3), (300, 100)):
        terminal.resize(columns, lines)
        view.update(snapshot(workers=64, domains=domains(72), checkpoint_age=1.0))
        terminal.wait_for("37%" if columns != 1 and columns != 2 else "\x1b")
        terminal.drawn = ""
    view.close()


def test_no_colour_is_used_if_the_user_wants_none(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    view = open_view(terminal.stream)
    view.failed(failure())
    view.update(snapshot(counts=counts()))
    terminal.wait_for("ends about")
    view.close()
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal.drawn)


def test_a_terminal_that_hangs_up_silences_the_view_and_nothing_else(terminal: Terminal) -> None:
    view = open_view(terminal.stream)
    view.update(snapshot())
    terminal.wait_for("ends about")
    terminal.hang_up()
    began = time.monotonic()
    for number in range(50):
        view.update(snapshot())
        view.failed(failure(str(number)))
        view.message("info", "hello")
    view.close(snapshot())
    assert time.monotonic() - began < PATIENCE


def test_a_terminal_stopped_with_ctrl_s_does_not_hold_up_the_run(terminal: Terminal) -> None:
    termios.tcflow(terminal.slave, termios.TCOOFF)
    view = open_view(terminal.stream)
    began = time.monotonic()
    for number in range(300):
        view.message("info", f"line {number} " + "x" * 1000)
        view.update(snapshot())
    assert time.monotonic() - began < PATIENCE, "nothing waited for the terminal"
    termios.tcflow(terminal.slave, termios.TCOON)
    terminal.wait_for("line 200")
    view.close()


def test_the_view_fits_the_stream(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(_inner(open_view(terminal.stream)), TerminalView)
    assert isinstance(_inner(open_view(io.StringIO())), PlainView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(_inner(open_view(terminal.stream)), PlainView)


def _inner(view: View) -> View:
    return view._inner  # type: ignore[attr-defined,no-any-return]


def test_nodes_have_a_line_each_and_those_that_are_silent_come_before_the_others() -> None:
    nodes = [node(number) for number in range(3)]
    lines = lines_of(140, 40, nodes=nodes)
    (at,) = [number for number, line in enumerate(lines) if line.strip() == "3 nodes"]
    assert [line.split()[0] for line in lines[at + 1 : at + 4]] == ["node0", "node1", "node2"]
    assert "load  3.90 of 4  cpu  385%  memory 6.0G of 15G  heard 2.0s ago" in lines[at + 1]
    many = [node(number, heard_age=40.0 if number == 17 else 2.0) for number in range(20)]
    lines = lines_of(140, 40, nodes=many)
    shown = [line.split()[0] for line in lines if line.strip().startswith("node")]
    assert len(shown) == 5 and "node17" in shown
    assert any("20 nodes (nothing heard of node17 (host) for 40s), 5 of them here" in line for line in lines)
    assert not any("node" in line for line in lines_of(140, 40))
