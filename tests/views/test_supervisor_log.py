"""The supervisor's log has its own loguru: neither side sees the other's records."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.views.supervisor_log import SupervisorLog

PROGRAM = """
import sys
from loguru import logger
logger.info("theirs before")
from supervisor.views.supervisor_log import SupervisorLog
log = SupervisorLog(sys.argv[1])
log.begin()
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
        log = SupervisorLog(path)
        log.write("info", f"run {number}\nsecond line")
        log.close()
    lines = path.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    run 1", lines[0])
    assert lines[1] == "    second line"
    assert len(lines) == 4


def test_a_log_that_cannot_be_written_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "supervisor.log", Path("/dev/full")):
        log = SupervisorLog(path)
        log.write("info", "lost")
        log.close()
        log.write("info", "after the end")
    assert capfd.readouterr() == ("", "")


BEGUN = """
import sys
from pathlib import Path
from supervisor.views.supervisor_log import SupervisorLog
log = SupervisorLog(sys.argv[1])
log.write("info", "before {braces}\\nsecond line")
assert "loguru" not in sys.modules
assert "before" in Path(sys.argv[1]).read_text()
log.begin()
log.write("info", "after {braces}\\nsecond line")
assert "loguru" in sys.modules
log.close()
"""


def test_lines_look_the_same_before_loguru_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.log"
    subprocess.run([sys.executable, "-c", BEGUN, str(path)], check=True)
    before, second, after, _ = path.read_text().splitlines()
    assert second == "    second line"
    for line, word in ((before, "before"), (after, "after")):
        pattern = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z INFO    {word} \{{braces\}}"
        assert re.fullmatch(pattern, line)
