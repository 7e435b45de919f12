"""What jobs have saved goes when it is not needed any more, and not before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.core.state.job_table import JobTable
from supervisor.storage import saved_state_cleanup as states_module
from supervisor.storage.saved_state_cleanup import CLEAN_EVERY, SavedStateCleanup
from workers.job.saved_state import StateFiles

IDS = ["a/b", "%", "", "x" * 300, "long/" * 80]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look may take as long as a loaded machine needs."""
    monkeypatch.setattr(states_module, "_BUDGET", 60.0)


def made(folder: Path) -> tuple[JobTable, StateFiles, SavedStateCleanup]:
    table = JobTable()
    for job_id in IDS:
        table.add(job_id)
    files = StateFiles(str(folder / "states"))
    return table, files, SavedStateCleanup(folder / "states", table)


def complete(table: JobTable, job_id: str) -> None:
    table.move(table.numbers[job_id], "leased")
    table.move(table.numbers[job_id], "completed")


def test_a_state_is_dropped_when_the_result_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states_module, "_BUDGET", 60.0)
    table, files, states = made(tmp_path)
    for job_id in IDS:
        files.save(job_id, 1, job_id)
        files.save(job_id, 1, job_id)
    for job_id in IDS[:4]:
        complete(table, job_id)
    now = 0.0
    for synced in (0, 5, 9):
        states.clean_up(now, last_n=10, synced=synced)
        now += CLEAN_EVERY
        assert len(os.listdir(tmp_path / "states")) == 10, "not durable yet"
    states.clean_up(now, last_n=10, synced=10)
    assert [files.load(job_id)[0] for job_id in IDS] == [None] * 4 + [IDS[4]]


def test_no_look_costs_anything_when_nobody_saves(tmp_path: Path) -> None:
    _, _, states = made(tmp_path)
    states.clean_up(0.0, 1, 1)
    states.end()
    states.drop(IDS)
    assert not (tmp_path / "states").exists()


def test_at_the_end_the_states_of_completed_jobs_go_and_with_the_last_the_folder(tmp_path: Path) -> None:
    table, files, states = made(tmp_path)
    files.save("a/b", 1, 1)
    files.save(IDS[3], 1, 1)
    complete(table, "a/b")
    states.end()
    assert files.load("a/b")[0] is None and files.load(IDS[3])[0] == 1
    complete(table, IDS[3])
    states.end()
    assert not (tmp_path / "states").exists()


def test_jobs_that_start_anew_lose_theirs_and_others_keep_theirs(tmp_path: Path) -> None:
    _, files, states = made(tmp_path)
    for job_id in IDS:
        files.save(job_id, 1, job_id)
    states.drop(["a/b", IDS[4]])
    assert [files.load(job_id)[0] for job_id in IDS] == [None, "%", "", IDS[3], None]


def test_leftovers_of_a_kill_and_of_damage_go_too(tmp_path: Path) -> None:
    table, files, states = made(tmp_path)
    files.save("a/b", 1, 1)
    for name in (".a%2Fb.json.123.tmp", "a%2Fb~damaged.json", ".%25.json.77.tmp", "of somebody else"):
        (tmp_path / "states" / name).write_bytes(b"half")
    states.clear_temporaries()
    assert sorted(os.listdir(tmp_path / "states")) == ["a%2Fb.json", "a%2Fb~damaged.json", "of somebody else"]
    complete(table, "a/b")
    states.end()
    assert os.listdir(tmp_path / "states") == ["of somebody else"]


def test_a_look_takes_its_time_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_module, "_BUDGET", 0.0)
    table, files, states = made(tmp_path)
    for job_id in IDS:
        files.save(job_id, 1, 1)
        complete(table, job_id)
    left = []
    for number in range(len(IDS) + 2):
        states.clean_up(number * CLEAN_EVERY, last_n=1, synced=1)
        left.append(len(os.listdir(tmp_path / "states")))
    assert left == [5, 4, 3, 2, 1, 0, 0]
