"""Names, paths, who owns an experiment, and whether a directory will do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.core.terms.errors import BeingRun, CannotCreate, UsageError
from supervisor.core.terms.experiment_id import check_id
from supervisor.reports.experiment_list import experiments
from supervisor.storage.files.atomic_files import backup_name, lack_of_space, probe_directory
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from tests.another_user import another_user
from tests.storage.made import Made


@pytest.mark.parametrize("text", ["a", "experiment_20251014_210000", "x.y-z", "A" * 100, "_1"])
def test_good_ids(text: str) -> None:
    assert check_id(text) == text


@pytest.mark.parametrize(
    "text",
    ["", ".x", "-x", "a/b", "a b", "ä", "a\n", "latest", "auto", "logs", "A" * 101, "x.backup", "x.backup-2"],
)
def test_ids_that_are_refused_with_a_reason(text: str) -> None:
    with pytest.raises(UsageError, match="experiment id"):
        check_id(text)


def test_experiments_are_listed_by_when_they_were_last_saved(tmp_path: Path) -> None:
    assert experiments(tmp_path / "nothing") == []
    made = Made(tmp_path, threads=True).create(["a"])
    made.finish()
    logs = made.layout.logs
    text = made.layout.checkpoint.read_bytes()
    for name, year in (("old", b"2001"), ("new", b"2999")):
        changed = text.replace(b'"saved_at":"2', b'"saved_at":"%b-' % year)
        (logs / f"checkpoint_{name}.json").write_bytes(changed)
    (logs / "journal_only.jsonl").write_bytes(b"broken")
    (logs / "checkpoint_e1.backup.json").write_bytes(text)
    (logs / "journal_e1.tail.backup-2.jsonl").write_bytes(b"x")
    (logs / ".checkpoint_e1.json.12.tmp").write_bytes(text)
    assert experiments(tmp_path) == ["new", "e1", "old", "only"]


def test_a_second_supervisor_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    """D6: by flock, which goes by the file and not by what is written in it."""
    path = tmp_path / "lock_e1"
    first = Lock.acquire(path, "e1")
    with pytest.raises(BeingRun) as error:
        Lock.acquire(path, "e1")
    assert error.value.exit_code == 69
    for part in ("e1", f"pid {os.getpid()}", os.uname().nodename, str(path), f"kill {os.getpid()}"):
        assert part in str(error.value)
    first.release()
    assert path.exists()
    Lock.acquire(path, "e1").release()


def test_an_experiment_of_another_user_is_said_to_be_that(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "night")
    Lock.acquire(layout.lock, "night").release()
    with another_user(layout.logs), pytest.raises(CannotCreate, match=r"denied\. .* belongs to user 0: run"):
        Lock.acquire(layout.lock, "night")


def test_the_lock_of_a_killed_supervisor_is_free(tmp_path: Path) -> None:
    """D6: there is no stale lock."""
    path = tmp_path / "lock_e1"
    code = (
        "import sys, time; from supervisor.storage.files.lock import Lock; "
        "lock = Lock.acquire(sys.argv[1], 'e1'); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BeingRun, match=f"pid {holder.pid}"):
            Lock.acquire(path, "e1")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    Lock.acquire(path, "e1").release()


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D6: unsupported, it is said."""
    import fcntl

    def refuse(fd: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = Lock.acquire(tmp_path / "lock", "e1")
    assert lock.notice is not None
    assert "cannot lock" in lock.notice
    lock.release()


def test_a_directory_is_probed_and_left_clean(tmp_path: Path) -> None:
    probe_directory(Disk(), tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_refused_with_73(tmp_path: Path) -> None:
    """D9: whatever the probe cannot do is refused with the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotCreate) as error:
        probe_directory(Disk(), tmp_path / "file" / "logs")
    assert error.value.exit_code == 73
    assert str(tmp_path / "file") in str(error.value)
    assert "--output" in str(error.value)

    class ReadOnly(Disk):
        def sync(self, fd: int) -> None:
            raise OSError(30, "Read-only file system")

    with pytest.raises(CannotCreate, match="Read-only file system"):
        probe_directory(ReadOnly(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_space_is_short_below_64_mb_or_five_percent() -> None:
    class Sized(Disk):
        def __init__(self, free: int, total: int) -> None:
            self.both = free, total

        def space(self, path: str) -> tuple[int, int]:
            return self.both

    assert lack_of_space(Sized(63 << 20, 1 << 40), "/x") is not None
    assert lack_of_space(Sized(65 << 20, 1 << 40), "/x") is None
    assert lack_of_space(Sized(60_000, 1 << 20), "/x") is None
    assert lack_of_space(Sized(50_000, 1 << 20), "/x") is not None


def test_backup_names_are_never_taken_twice(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_e1.json"
    names = []
    for _ in range(3):
        name = Path(backup_name(Disk(), path))
        name.write_text("")
        names.append(name.name)
    assert names == [
        "checkpoint_e1.backup.json",
        "checkpoint_e1.backup-2.json",
        "checkpoint_e1.backup-3.json",
    ]


def test_paths_are_those_that_are_promised(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "e1")
    assert layout.journal == tmp_path / "logs" / "journal_e1.jsonl"
    assert layout.plan == tmp_path / "logs" / "plan_e1.jsonl"
    assert layout.checkpoint == tmp_path / "logs" / "checkpoint_e1.json"
    assert layout.progress == tmp_path / "logs" / "progress_e1.json"
    assert layout.lock == tmp_path / "logs" / "lock_e1"
    assert layout.final == tmp_path / "e1" / "logs_final.json"
    assert layout.statistics == tmp_path / "e1" / "statistics.json"
    assert layout.output_directory == tmp_path / "e1" / "output"
    assert layout.jobs_directory == tmp_path / "e1" / "jobs"
