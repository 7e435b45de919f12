"""Damaged, lost and truncated files: resume does what the design says, and says what it did."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import some
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.whole.test_interruptions import check_squares, let_go, squares

JOBS = 20


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment of which about half is done, drained. Each test damages a copy."""
    experiment = Experiment(tmp_path_factory.mktemp("drained"))
    squares(experiment, JOBS, 0.0, hold=12)
    process = experiment.start()
    wait_for(lambda: len(experiment.completed_in_journal()) >= 10)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    let_go(experiment)
    assert len(experiment.completed_in_journal()) < JOBS
    return experiment.folder


@pytest.fixture
def interrupted(drained: Path, experiment: Experiment) -> Experiment:
    shutil.copytree(drained, experiment.folder, dirs_exist_ok=True)
    return experiment


def resume_and_check(experiment: Experiment, *, may_run_again: int = 0) -> str:
    """Resume to the end; at most so many recorded jobs ran again. What was said."""
    recorded = set(experiment.checkpoint_ids)  # type: ignore[attr-defined]
    before = len(experiment.executions())
    done = experiment.run("--resume", "latest")
    assert done.returncode == 0, done.stderr
    check_squares(experiment, JOBS)
    again = recorded & set(experiment.executions()[before:])
    assert len(again) <= may_run_again, again
    return done.stderr


# Of all kinds, at any byte: tests/storage/test_damage.py.
@pytest.mark.parametrize("damage", some(["flipped", "deleted", "truncated", "emptied", "garbage"], 2))
def test_a_damaged_checkpoint_is_backed_up_and_rebuilt_from_the_journal(
    interrupted: Experiment, damage: str
) -> None:
    path = interrupted.path("checkpoint")
    text = path.read_bytes()
    interrupted.checkpoint_ids = set(json.loads(text)["completed"])  # type: ignore[attr-defined]
    if damage == "deleted":
        path.unlink()
    else:
        middle = len(text) // 2
        path.write_bytes(
            {
                "truncated": text[:middle],
                "emptied": b"",
                "garbage": b"\x00\xffnonsense" * 50,
                "flipped": text[:middle] + bytes([text[middle] ^ 1]) + text[middle + 1 :],
            }[damage]
        )
    said = resume_and_check(interrupted)
    backups = list(interrupted.output.glob("logs/checkpoint_*.backup*.json"))
    assert len(backups) == (0 if damage == "deleted" else 1)
    if backups:
        assert backups[0].name in said


def test_without_a_journal_everything_comes_from_the_checkpoint(interrupted: Experiment) -> None:
    interrupted.checkpoint_ids = set(interrupted.checkpoint()["completed"])  # type: ignore[attr-defined]
    interrupted.path("journal").unlink()
    assert "journal" in resume_and_check(interrupted)


@pytest.mark.parametrize("torn", some(["cut", "half a record more"], 1))
def test_a_journal_cut_in_the_middle_of_a_line_loses_that_line_at_most(
    interrupted: Experiment, torn: str
) -> None:
    """D1: as a kill in the middle of a write leaves it, before or after the last checkpoint."""
    path = interrupted.path("journal")
    interrupted.checkpoint_ids = set(interrupted.checkpoint()["completed"])  # type: ignore[attr-defined]
    text = path.read_bytes()
    path.write_bytes(text[:-15] if torn == "cut" else text + b'{"n":99999,"type":"en')
    resume_and_check(interrupted)
    assert len({record["n"] for record in interrupted.journal()}) == len(interrupted.journal())


@pytest.mark.parametrize("damage", some(["flip", "line lost", "NULs"], 1))
def test_damage_in_the_middle_of_the_journal_costs_nothing_the_checkpoint_has(
    interrupted: Experiment, damage: str
) -> None:
    """D2: not read as a short file."""
    path = interrupted.path("journal")
    interrupted.checkpoint_ids = set(interrupted.checkpoint()["completed"])  # type: ignore[attr-defined]
    lines = path.read_bytes().split(b"\n")
    hit = next(i for i, line in enumerate(lines) if b'"type":"ended"' in line)
    if damage == "flip":
        lines[hit] = lines[hit][:20] + bytes([lines[hit][20] ^ 4]) + lines[hit][21:]
    elif damage == "NULs":
        lines[hit] = b"\0" * len(lines[hit])
    else:
        del lines[hit]
    path.write_bytes(b"\n".join(lines))
    said = resume_and_check(interrupted)
    assert list(interrupted.output.glob("logs/journal_*.backup*")), said


def test_damage_to_both_runs_again_only_what_neither_has(interrupted: Experiment) -> None:
    interrupted.checkpoint_ids = set(interrupted.checkpoint()["completed"])  # type: ignore[attr-defined]
    interrupted.path("checkpoint").write_bytes(b"garbage")
    path = interrupted.path("journal")
    lines = path.read_bytes().split(b"\n")
    hit = next(i for i, line in enumerate(lines) if b'"type":"ended"' in line)
    job = json.loads(lines[hit])["job"]
    del lines[hit]
    path.write_bytes(b"\n".join(lines))
    said = resume_and_check(interrupted, may_run_again=1)
    assert job in said or "1 " in said


def test_one_file_destroyed_and_after_a_resume_the_other_loses_nothing(interrupted: Experiment) -> None:
    interrupted.checkpoint_ids = set(interrupted.checkpoint()["completed"])  # type: ignore[attr-defined]
    interrupted.path("journal").unlink()
    interrupted.run("--resume", "latest", "--only", "square/19")
    interrupted.path("checkpoint").write_bytes(b"")
    resume_and_check(interrupted)


def test_files_of_different_experiments_are_refused(interrupted: Experiment, tmp_path: Path) -> None:
    other = Experiment(tmp_path / "other")
    other.folder.mkdir()
    squares(other, JOBS, 0.0)
    assert other.run().returncode == 0
    stranger = other.path("journal").read_bytes()
    interrupted.path("journal").write_bytes(stranger)
    before = interrupted.path("checkpoint").read_bytes()
    done = interrupted.run("--resume", "latest")
    assert done.returncode == 65
    assert "Traceback" not in done.stderr
    assert interrupted.path("journal").read_bytes() == stranger
    assert interrupted.path("checkpoint").read_bytes() == before


def test_with_neither_file_the_resume_says_so(interrupted: Experiment) -> None:
    interrupted.path("checkpoint").write_bytes(b"garbage")
    interrupted.path("journal").write_bytes(b"garbage\n")
    done = interrupted.run("--resume", "latest")
    assert done.returncode == 65
    assert str(interrupted.output) in done.stderr
