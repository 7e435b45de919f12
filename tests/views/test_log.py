"""The supervisor's log has its own loguru: neither side sees the other's records."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from supervisor.views.log import Log

PROGRAM = """
import sys
from loguru import logger
logger.info("theirs before")
from supervisor.views.log import Log
log = Log(sys.argv[1])
log.write("warning", "ours {braces} <red>tags</red>")
logger.info("theirs during")
seen = []
logger.add(lambda message: seen.append(str(message)), format="{message} {extra}")
log.write("error", "ours again")
log.close()
logger.info("theirs after")
assert seen == ["theirs after {}\\n"], seen
"""


def test_the_users_loguru_stays_as_it_is_and_sees_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "supervisor.log"
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True
    )
    assert ended.stdout == ""
    assert [line.rpartition(" - ")[2] for line in ended.stderr.splitlines()] == [
        "theirs before",
        "theirs during",
        "theirs after",
    ]
    ours = path.read_text().splitlines()
    assert [line.split(maxsplit=1)[1] for line in ours] == [
        "WARNING ours {braces} <red>tags</red>",
        "ERROR   ours again",
    ]


def test_lines_carry_the_time_in_utc_and_a_second_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.log"
    for number in (1, 2):
        log = Log(path)
        log.write("info", f"run {number}\nsecond line")
        log.close()
    lines = path.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    run 1", lines[0])
    assert lines[1] == "    second line"
    assert len(lines) == 4


def test_a_log_that_cannot_be_written_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "supervisor.log", Path("/dev/full")):
        log = Log(path)
        log.write("info", "lost")
        log.close()
        log.write("info", "after the end")
    assert capfd.readouterr() == ("", "")


KEPT = """
import sys, time
from supervisor.views.log import Log
log = Log(sys.argv[1])
log.write("info", "told at once")
assert "loguru" not in sys.modules
time.sleep(0.02)
begun = time.time()
log.write(sys.argv[2], "told later") if sys.argv[2] else log.begin()
print(begun)
"""


@pytest.mark.parametrize("level", ["", "warning"])
def test_what_is_told_before_loguru_is_there_is_kept_with_its_time(tmp_path: Path, level: str) -> None:
    path = tmp_path / "supervisor.log"
    ended = subprocess.run(
        [sys.executable, "-c", KEPT, str(path), level], capture_output=True, text=True, check=True
    )
    begun = datetime.fromtimestamp(float(ended.stdout), UTC)
    lines = path.read_text().splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "INFO    told at once",
        *(["WARNING told later"] if level else []),
    ]
    first = datetime.fromisoformat(lines[0].split()[0].replace("Z", "+00:00"))
    assert first <= begun - timedelta(seconds=0.015)
