"""tools/journal.py: what a maintainer sees of a journal, whole, torn and damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from supervisor.core.terms.records import Ended, Leased, Noted, Opened, RunStarted
from supervisor.storage.journal.journal_format import FORMAT, encode_batch, seed_of

ROOT = Path(__file__).resolve().parents[2]
AT = "2025-10-14T20:15:00.123Z"
RECORDS = [
    Opened(FORMAT, "experiment_1", "pilot", "1b4e28ba", 1, AT),
    Leased(worker=0, incarnation=1, lease=1, jobs=["iris/a b", "iris/c"], at=AT),
    Ended("iris/a b", 1, 1, "completed", "completed", 0.25, 0, AT, result=msgspec.Raw(b'{"accuracy":0.97}')),
    Ended("iris/c", 1, 2, "raised", "failed", 0.5, 0, AT, error={"type": "ValueError"}),
    Noted("drain", AT, {"signal": 2}),
    RunStarted(run=2, at=AT, jobs=2),
]


@pytest.fixture
def lines() -> list[bytes]:
    data, _ = encode_batch(1, RECORDS, seed_of("1b4e28ba", 1))
    return data.splitlines(keepends=True)


def journal(tmp_path: Path, lines: list[bytes], *arguments: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "journal_experiment_1.jsonl"
    path.write_bytes(b"".join(lines))
    command = [sys.executable, str(ROOT / "tools" / "journal.py"), str(path), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}


def test_each_record_is_one_readable_line(tmp_path: Path, lines: list[bytes]) -> None:
    run = journal(tmp_path, lines)
    assert (run.returncode, run.stderr) == (0, "")
    shown = run.stdout.splitlines()
    assert len(shown) == len(RECORDS)
    assert shown[2].split()[:5] == ["3", "2025-10-14", "20:15:00.123", "ended", 'job="iris/a']
    assert 'result={"accuracy":0.97}' in shown[2]
    assert "crc" not in run.stdout


def test_records_are_chosen_by_job_and_by_kind(tmp_path: Path, lines: list[bytes]) -> None:
    of_job = journal(tmp_path, lines, "--job", "iris/c").stdout.splitlines()
    assert [line.split()[3] for line in of_job] == ["leased", "ended"]
    both = journal(tmp_path, lines, "--job", "iris/c", "--type", "ended").stdout.splitlines()
    assert len(both) == 1
    assert "ValueError" in both[0]


def test_verify_counts_and_a_torn_tail_is_normal(tmp_path: Path, lines: list[bytes]) -> None:
    lines[-1] = lines[-1][:-5]
    run = journal(tmp_path, lines, "--verify")
    assert run.returncode == 0
    assert "5 records verify, 1 to 5" in run.stdout
    assert "2  ended" in run.stdout
    assert "torn tail" in run.stderr


def test_damage_in_the_middle_is_told_and_its_record_not_shown(tmp_path: Path, lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b"0.97", b"0.99")
    run = journal(tmp_path, lines)
    assert run.returncode == 1
    assert "0.99" not in run.stdout
    assert "record 3 is missing" in run.stderr
    assert "do not verify" in run.stderr


def test_a_damaged_first_line_does_not_hide_the_rest(tmp_path: Path, lines: list[bytes]) -> None:
    lines[0] = lines[0].replace(b"pilot", b"pil\0t")
    run = journal(tmp_path, lines)
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == len(RECORDS) - 1
    assert "first line" in run.stderr


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"n":1}\n', b"\xff\xfe"])
def test_what_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    run = journal(tmp_path, [content])
    assert run.returncode == 2
    assert "is not a journal" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "journal.py"), str(tmp_path / "none.jsonl")]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "none.jsonl cannot be opened: No such file" in run.stderr
