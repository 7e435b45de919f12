"""--show-output: every line once, under the name of the job that printed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.views.output_follower import OutputFollower
from tests.views.made import worker
from workers.isolation.output_files import collect, log_path, scratch_path

LIMIT = 10_000_000


class Shown:
    """A follower of a directory, and a worker's side of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.lines: list[tuple[str, str]] = []
        self.follower = OutputFollower(self.directory, lambda job, text: self.lines.append((job, text)))
        self.scratch = Path(scratch_path(self.directory, 0, 1))

    def prints(self, text: str) -> None:
        with self.scratch.open("a") as file:
            file.write(text)

    def runs(self, job: str, seconds: float = 5.0, attempt: int = 1) -> None:
        self.follower.poll([worker(0, job=job, seconds=seconds, attempt=attempt)])

    def ends(self, job: str, attempt: int = 1) -> None:
        collect(str(self.scratch), self.directory, job, attempt, LIMIT)
        self.scratch.touch()
        self.follower.ended(job)

    def taken(self) -> list[tuple[str, str]]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


def test_lines_come_while_the_job_runs_and_the_rest_when_it_ends(shown: Shown) -> None:
    shown.prints("one\ntwo\nthr")
    shown.runs("a/1")
    assert shown.taken() == [("a/1", "one\ntwo\n")]
    shown.runs("a/1")
    assert shown.taken() == []
    shown.prints("ee\n")
    shown.runs("a/1")
    assert shown.taken() == [("a/1", "three\n")]
    shown.prints("four\nno end")
    shown.ends("a/1")
    assert shown.taken() == [("a/1", "four\nno end")]


def test_a_line_without_an_end_is_completed_from_the_log(shown: Shown) -> None:
    shown.prints("hal")
    shown.runs("a/1")
    shown.prints("f\n")
    shown.ends("a/1")
    assert shown.taken() == [("a/1", "half\n")]


def test_a_short_job_is_shown_when_it_has_ended(shown: Shown) -> None:
    shown.prints("quick\n")
    shown.runs("a/1", seconds=0.2)
    assert shown.taken() == []
    shown.ends("a/1")
    assert shown.taken() == [("a/1", "quick\n")]


def test_what_the_next_job_prints_is_not_given_to_the_one_before(shown: Shown) -> None:
    shown.prints("first\n")
    shown.runs("a/1")
    collect(str(shown.scratch), shown.directory, "a/1", 1, LIMIT)
    hold = shown.scratch.with_name("hold")  # so that the new file has another inode
    hold.touch()
    shown.prints("second\n")
    shown.runs("a/1")  # the supervisor has not heard of the end yet
    assert shown.taken() == [("a/1", "first\n")]
    shown.follower.ended("a/1")
    shown.runs("a/2")
    assert shown.taken() == [("a/2", "second\n")]


def test_a_further_attempt_does_not_show_the_first_one_again(shown: Shown) -> None:
    shown.prints("attempt one\n")
    shown.ends("a/1")
    shown.taken()
    shown.prints("attempt two\n")
    shown.ends("a/1", attempt=2)
    assert shown.taken() == [("a/1", "attempt two\n")]


def test_a_flood_is_cut_and_said_so(shown: Shown) -> None:
    shown.prints("x" * 99 + "\n")
    shown.runs("a/1")
    shown.taken()
    shown.prints("".join(f"{n:099d}\n" for n in range(10_000)))
    shown.runs("a/1")
    (_, note), (_, text) = shown.taken()
    assert note == f"... {1_000_000 - 65536:,} bytes are only in the log"
    assert text.endswith(f"{9999:099d}\n")
    shown.prints("after\n")
    shown.ends("a/1")
    assert shown.taken() == [("a/1", "after\n")]


def test_a_line_that_never_ends_is_shown_in_pieces(shown: Shown) -> None:
    for _ in range(3):
        shown.prints("x" * 60_000)
        shown.runs("a/1")
    assert sum(len(text) for _, text in shown.taken()) == 120_000


def test_files_that_are_not_there_are_no_error(shown: Shown) -> None:
    shown.runs("a/1")
    shown.follower.ended("a/1")
    shown.follower.poll([])
    assert shown.taken() == []
    assert not Path(log_path(shown.directory, "a/1")).exists()
