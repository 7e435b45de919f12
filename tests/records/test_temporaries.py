"""What a killed process left half written is cleared, and nothing else is."""

from __future__ import annotations

from pathlib import Path

from supervisor.records.files import clear_temporaries, temporary_name


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
