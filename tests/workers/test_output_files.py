from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.isolation.output_files import collect, leftovers, log_path, move, scratch_path, tail, trim


def printed(directory: Path, content: bytes, worker: int = 0, incarnation: int = 1) -> str:
    path = Path(scratch_path(str(directory), worker, incarnation))
    path.write_bytes(content)
    return str(path)


def test_the_first_output_of_a_job_becomes_its_log(tmp_path: Path) -> None:
    scratch = printed(tmp_path, b"hello\n")
    assert collect(scratch, str(tmp_path), "a/b", 1, 100) == 6
    assert Path(log_path(str(tmp_path), "a/b")).read_bytes() == b"hello\n"
    assert os.listdir(tmp_path) == ["a%2Fb.log"]


def test_a_later_attempt_is_appended_under_a_heading(tmp_path: Path) -> None:
    collect(printed(tmp_path, b"one\n"), str(tmp_path), "j", 1, 100)
    collect(printed(tmp_path, b"two\n"), str(tmp_path), "j", 2, 100)
    assert (tmp_path / "j.log").read_bytes() == b"one\n\n--- attempt 2 ---\ntwo\n"


@pytest.mark.parametrize("content", [None, b""])
def test_a_silent_job_has_no_log(tmp_path: Path, content: bytes | None) -> None:
    scratch = printed(tmp_path, b"") if content is not None else scratch_path(str(tmp_path), 0, 1)
    assert collect(scratch, str(tmp_path), "j", 1, 100) == 0
    assert os.listdir(tmp_path) == []


def test_where_there_are_no_hard_links_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    collect(printed(tmp_path, b"one"), str(tmp_path), "j", 1, 100)
    collect(printed(tmp_path, b"two"), str(tmp_path), "j", 2, 100)
    assert (tmp_path / "j.log").read_bytes() == b"one\n--- attempt 2 ---\ntwo"


def test_head_and_tail_are_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    scratch = printed(tmp_path, b"A" * 50 + b"m" * 900 + b"Z" * 50)
    assert collect(scratch, str(tmp_path), "j", 1, 100) == 1000
    assert (tmp_path / "j.log").read_bytes() == b"A" * 50 + b"\n--- 900 bytes left out ---\n" + b"Z" * 50


@pytest.mark.skipif(sys.platform != "linux", reason="holes in files")
def test_a_runaway_printer_does_not_keep_its_blocks(tmp_path: Path) -> None:
    size, limit = 8_000_000, 1_000_000
    content = b"first" + b"x" * (size - 9) + b"last"
    scratch = printed(tmp_path, content)
    before = os.stat(scratch).st_blocks
    trim(scratch, limit)
    after = os.stat(scratch)
    if after.st_blocks == before:
        pytest.skip("this file system has no holes")
    assert after.st_size == size and after.st_blocks * 512 < 2 * limit
    with open(scratch, "ab") as file:
        file.write(b"more")
    assert collect(scratch, str(tmp_path), "j", 1, limit) == size + 4
    log = (tmp_path / "j.log").read_bytes()
    assert log.startswith(b"firstxxx") and log.endswith(b"xxxlastmore") and b"\0" not in log


def test_small_files_are_not_trimmed(tmp_path: Path) -> None:
    scratch = printed(tmp_path, b"x" * 1000)
    trim(scratch, 100)
    assert Path(scratch).read_bytes() == b"x" * 1000
    trim(str(tmp_path / "absent"), 100)


def test_the_tail_is_bounded_in_lines_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {i}\n" for i in range(1000)))
    assert tail(str(path), 2) == "line 998\nline 999"
    path.write_text("x" * 100_000)
    assert tail(str(path)) == "x" * 8192
    path.write_bytes(b"\xff\xfe broken")
    assert tail(str(path)).endswith("broken")
    assert tail(str(tmp_path / "absent")) == ""


def test_leftovers_of_a_killed_supervisor_are_removed_or_named(tmp_path: Path) -> None:
    printed(tmp_path, b"", worker=0)
    printed(tmp_path, b"words", worker=3, incarnation=17)
    (tmp_path / "job.log").write_text("untouched")
    (kept,) = leftovers(str(tmp_path))
    assert Path(kept).name == "%lost-worker3-17.log" and Path(kept).read_text() == "words"
    assert sorted(os.listdir(tmp_path)) == ["%lost-worker3-17.log", "job.log"]
    assert leftovers(str(tmp_path)) == [] == leftovers(str(tmp_path / "absent"))


def test_a_disk_that_refuses_is_the_callers_to_know(tmp_path: Path) -> None:
    scratch = printed(tmp_path, b"words")
    with pytest.raises(OSError, match="directory"):
        move(scratch, str(tmp_path / "absent" / "x.log"), "---", 100)
    assert Path(scratch).read_bytes() == b"words"


def test_what_is_opened_again_leaves_the_numbers_of_others_free(tmp_path: Path) -> None:
    """A job has closed all, and so quickly that only the output was looked at: what is said next
    goes to the number of the queue, which must not be the output's."""
    captured = (
        "import os, sys\n"
        "from workers.process import descriptors\n"
        "from workers.isolation.captured_output import CapturedOutput\n"
        "said = os.dup(1)\n"
        "reader, writer = os.pipe()\n"
        "queue = descriptors.claim(writer)\n"
        "output = CapturedOutput(sys.argv[1], 0, 0, 1000)\n"
        "output.collect_setup()\n"
        "before = output._scratch\n"
        "os.closerange(said + 1, before + 10)\n"
        "output.restore()\n"
        "found = queue < before == output._scratch\n"
        "try:\n"
        "    os.fstat(queue)\n"
        "except OSError:\n"
        "    os.write(said, b'free' if found else b'moved')\n"
    )
    done = subprocess.run([sys.executable, "-c", captured, str(tmp_path)], capture_output=True, check=False)
    assert done.stdout == b"free", done.stderr
