"""What a watch tells of a journal that grows."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from supervisor.reports.journal_watch import JournalWatch
from tests.storage.made import AT, Made

IDS = [f"iris/{number}" for number in range(20)]
NOW = datetime.fromisoformat(AT) + timedelta(seconds=30)


def watched(made: Made, watch: JournalWatch) -> list[str]:
    watch.update()
    return watch.lines(NOW)


def test_it_counts_the_last_minute_and_names_how_attempts_failed(tmp_path: Path) -> None:
    made = Made(tmp_path).create(IDS)
    watch = JournalWatch(made.layout)
    assert watched(made, watch) == []
    made.hand_out(*IDS[:5])
    made.end(*IDS[:3])
    assert watched(made, watch) == ["last minute: 3 attempts ended"]
    made.end(*IDS[3:5], outcome="raised")
    made.hand_out(*IDS[5:8])
    made.end(IDS[5], outcome="timed_out")
    made.end(IDS[6], outcome="timed_out")
    made.end(IDS[7], outcome="interrupted", state="in_progress")  # nobody's fault
    assert watched(made, watch) == [
        "last minute: 8 attempts ended, 4 of them failed",
        "failed attempts so far: 2 × ValueError, 2 × timed out ValueError",
    ]
    assert watch.lines(NOW + timedelta(minutes=2))[0].startswith("failed attempts so far")


def test_sums_begin_again_with_another_journal(tmp_path: Path) -> None:
    made = Made(tmp_path).create(IDS)
    watch = JournalWatch(made.layout)
    made.hand_out(*IDS[:5])
    made.end(*IDS[:5], outcome="raised")
    assert watched(made, watch)[1] == "failed attempts so far: 5 × ValueError"
    made.layout.journal.write_bytes(b"".join(made.layout.journal.read_bytes().splitlines(keepends=True)[:6]))
    assert watched(made, watch)[1] == "failed attempts so far: 2 × ValueError"
