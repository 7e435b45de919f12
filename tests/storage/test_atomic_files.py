"""Files that are made beside their place: how they get to the disk, and what is cleared of them."""

from __future__ import annotations

from pathlib import Path

from supervisor.storage.files.atomic_files import clear_temporaries, temporary_name, write_atomically
from tests.storage.fake_disk import FakeDisk


def test_only_the_temporaries_of_the_named_files_are_removed(tmp_path: Path) -> None:
    wanted = tmp_path / "checkpoint_a.json"
    wanted.write_text("{}")
    names = ("checkpoint_a", "checkpoint_a.backup", "checkpoint_a.tail.backup", "checkpoint_a.tail.backup-2")
    left = [Path(temporary_name(str(tmp_path / f"{name}.json"))) for name in names]
    for each in left:
        each.write_text("half")
    strangers = ("checkpoint_ab", "checkpoint_a.tail.b", "checkpoint_a.backup.tail")
    others = [Path(temporary_name(str(tmp_path / f"{name}.json"))) for name in strangers]
    others += [tmp_path / "checkpoint_ab.json", tmp_path / "checkpoint_a.tail.backup.json"]
    for other in others:
        other.write_text("not ours")
    clear_temporaries([wanted, tmp_path / "nothing.json"])
    assert not any(each.exists() for each in left)
    assert wanted.exists()
    assert all(other.exists() for other in others)


def test_a_large_file_goes_to_the_disk_while_it_is_made() -> None:
    disk = FakeDisk()
    write_atomically(disk, "/fake/large.json", (b"x" * 300_000 for _ in range(100)))
    write_atomically(disk, "/fake/small.json", (b"x" * 300_000 for _ in range(10)))
    large, small = disk.files["/fake/large.json"], disk.files["/fake/small.json"]
    assert len(large.safe) == 30_000_000 and large.most_in_memory < 20_000_000
    assert small.in_memory == len(small.safe) == 3_000_000
