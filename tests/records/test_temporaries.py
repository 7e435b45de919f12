"""What a killed process left half written is cleared, and nothing else is."""

from __future__ import annotations

from pathlib import Path

from supervisor.records.files import clear_temporaries, temporary_name


def test_only_the_temporaries_of_the_named_files_are_removed(tmp_path: Path) -> None:
    wanted = tmp_path / "checkpoint_a.json"
    wanted.write_text("{}")
    left = Path(temporary_name(str(wanted)))
    left.write_text("half")
    others = [tmp_path / "checkpoint_ab.json", Path(temporary_name(str(tmp_path / "checkpoint_ab.json")))]
    for other in others:
        other.write_text("not ours")
    clear_temporaries([wanted, tmp_path / "nothing.json"])
    assert not left.exists()
    assert wanted.exists()
    assert all(other.exists() for other in others)
