"""longhaul rm: all of one experiment, nothing of another."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from supervisor.storage.files.lock import Lock
from tests.commands.conftest import Longhaul, snapshot

# What may stand beside an experiment called `night`.
OURS = (
    "logs/checkpoint_night.backup.json",
    "logs/index_night.json",
    "logs/jobs_night.json",
    "logs/.index_night.json.123.tmp",
    "logs/journal_night.backup-2.jsonl",
    "logs/.checkpoint_night.json.123.tmp",
    "logs/.probe_night",
)
OTHERS = (
    "logs/journal_nights.jsonl",
    "logs/journal_night.2.jsonl",
    "logs/checkpoint_night_2.json",
    "logs/index_night_2.json",
    "logs/journal_a_night.jsonl",
    "logs/lock_night_2",
    "night_2/logs_final.json",
    "logs/.checkpoint_night_2.json.123.tmp",
)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)


def test_all_of_it_goes_and_nothing_else(spare: Path, longhaul: Longhaul) -> None:
    put(spare, *OURS, *OTHERS)
    code, text, _ = longhaul("rm", spare / "night", "--yes")
    assert code == 0
    assert text == f"removed night from {spare}\n"
    assert sorted(snapshot(spare)) == sorted(str(spare / name) for name in OTHERS)
    assert not (spare / "night").exists()


def test_a_live_one_is_refused(spare: Path, longhaul: Longhaul) -> None:
    before = snapshot(spare)
    lock = Lock.acquire(spare / "logs" / "lock_night", "night")
    try:
        code, _, err = longhaul("rm", "night", "--yes", "-d", spare)
    finally:
        lock.release()
    assert code == 69
    assert "is being run" in err and "Nothing was removed" in err
    after = snapshot(spare)
    lock_file = str(spare / "logs" / "lock_night")
    assert {**after, lock_file: b""} == {**before, lock_file: b""}


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, False), ("n", 1, True), ("", 1, True)])
def test_it_asks(
    spare: Path, longhaul: Longhaul, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n" if answer else ""))
    ended, text, _ = longhaul("rm", "night", "-d", spare)
    assert ended == code
    assert "finished, 6 of 14 jobs completed" in text and "[y/N]" in text
    assert (spare / "logs" / "journal_night.jsonl").exists() is left


def test_where_nobody_can_be_asked_yes_has_to_be_said(
    spare: Path, longhaul: Longhaul, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(spare)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, _, err = longhaul("rm", "night", "-d", spare)
    assert code == 2 and "--yes" in err
    assert snapshot(spare) == before


def test_artifacts_behind_a_link_are_not_removed(spare: Path, tmp_path: Path, longhaul: Longhaul) -> None:
    (spare / "night").rename(tmp_path / "elsewhere")
    (spare / "night").symlink_to(tmp_path / "elsewhere")
    assert longhaul("rm", "night", "-y", "-d", spare)[0] == 0
    assert not (spare / "night").is_symlink()
    assert (tmp_path / "elsewhere" / "logs_final.json").exists()
