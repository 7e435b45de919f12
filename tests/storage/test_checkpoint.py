"""The checkpoint: what stands in it, when it was taken, where it is put."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from random import Random
from unittest import mock

import pytest

from supervisor.core.terms.records import Noted
from supervisor.storage.checkpoint import checkpoint_writer
from supervisor.storage.files import atomic_files
from supervisor.storage.journal import journal_reader, record_locations
from supervisor.storage.recovery.survey import survey
from tests.storage.fake_disk import FakeDisk
from tests.storage.made import AT, Made, completed, expected, plan_of

IDS = [f"iris/{number}" for number in range(10)]
HERE = Path("/fake")


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


def test_the_keys_that_other_tools_rely_on(disk: FakeDisk) -> None:
    made = Made(HERE, disk).create(IDS)
    made.hand_out(*IDS[:3])
    made.end(IDS[0])
    made.end(IDS[1], outcome="raised")
    made.checkpoint()
    text = disk.content(made.layout.checkpoint)
    document = json.loads(text)
    assert next(iter(document)) == "format"
    assert list(document)[-1] == "crc"
    assert document["experiment_id"] == "e1"
    assert document["name"] == "made"
    assert document["settings"] == {"workers": 2}
    assert document["options"] == {"size": 3}
    assert document["counts"] == {"total": 10, "completed": 1, "failed": 1, "in_progress": 1, "pending": 7}
    entry = document["completed"]["iris/0"]
    assert (entry["result"], entry["seconds"], entry["attempts"]) == (expected(IDS)["iris/0"], 0.25, 1)
    failed = document["failed"]["iris/1"]
    assert (failed["outcome"], failed["error"]["type"], failed["attempts"]) == ("raised", "ValueError", 1)
    assert document["in_progress"] == {"iris/2": {"attempt": 1, "worker": 0, "since": AT}}
    assert document["saved_at"].endswith("Z")
    body = text[: text.rindex(b',\n"crc"')]
    assert document["crc"] == f"{zlib.crc32(body):08x}"
    assert (
        sum(line.startswith(b'"iris/') for line in text.splitlines()) == 1 + 1 + 1 + 1
    )  # one entry per line


@pytest.mark.parametrize(
    "job_id", ['a":{"attempts":1,', "ü/\u2028\n", 'x","attempt":9', "},", '{"n":1,"type":"ended"']
)
def test_ids_that_look_like_the_format_do_no_harm(disk: FakeDisk, job_id: str) -> None:
    made = Made(HERE, disk).create([job_id, "plain"])
    made.end(job_id, "plain")
    made.finish()
    found = survey(made.layout, disk)
    assert (found.checkpoint_state, found.journal_state) == ("good", "good")
    assert completed(found) == expected([job_id, "plain"])
    disk.remove(str(made.layout.journal))
    Made(HERE, disk).resume().finish()
    disk.remove(str(made.layout.checkpoint))
    assert completed(survey(made.layout, disk)) == expected([job_id, "plain"])


def test_slices_show_one_moment_while_jobs_go_on(disk: FakeDisk) -> None:
    ids = [f"iris/{number}" for number in range(3000)]
    made = Made(HERE, disk).create(ids)
    made.end(*ids[:1500])
    made.end(ids[1500], outcome="raised")
    made.store.begin_checkpoint(made.position(), 0.0)
    slices = 0
    while made.store.work(0.0):
        slices += 1
        # Whatever happens between two slices: a new result, a failure, a job once more.
        if slices < 900:
            made.end(ids[1500 + slices])
        made.store.table.state[slices] = 0
        made.end(ids[slices], result=b'"second time"')
        made.store.table.attempts[slices] = 7
    assert slices > 10
    made.sync()
    made.store.poll(0.1)
    document = json.loads(disk.content(made.layout.checkpoint))
    assert document["counts"]["completed"] == len(document["completed"]) == 1500
    assert set(document["failed"]) == {ids[1500]}
    assert all(entry["attempts"] == entry["attempt"] == 1 for entry in document["completed"].values())
    assert {job: entry["result"] for job, entry in document["completed"].items()} == expected(ids[:1500])
    # And the journal tells the rest.
    found = survey(made.layout, disk)
    assert completed(found)[ids[1]] == "second time"


def test_what_checkpoints_cost_is_added_up(disk: FakeDisk) -> None:
    ids = [f"iris/{number}" for number in range(3000)]
    made = Made(HERE, disk).create(ids)
    made.end(*ids)
    assert set(made.store.checkpoint_costs().values()) == {0.0}
    seen = []
    for _ in range(2):
        made.store.begin_checkpoint(made.position(), 0.0)
        while made.store.work(0.0):
            pass
        made.sync()
        made.store.poll(0.1)
        seen.append(made.store.checkpoint_costs()["checkpoint_seconds"])
    made.store.save(made.position())
    costs = made.store.checkpoint_costs()
    assert 0 < seen[0] < seen[1] == costs["checkpoint_seconds"]
    assert costs["checkpoint_seconds_at_end"] > 0


def test_a_checkpoint_is_not_kept_in_memory_and_what_is_read_again_is(disk: FakeDisk) -> None:
    made = Made(HERE, disk).create(IDS)
    made.end(*IDS)
    made.finish()
    assert not disk.files[str(made.layout.checkpoint)].in_memory
    assert disk.files[str(made.layout.journal)].in_memory
    assert disk.files[str(made.layout.plan)].in_memory


def test_the_last_checkpoint_goes_to_the_disk_while_it_is_made(
    disk: FakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "_BUFFER", 1)
    monkeypatch.setattr(atomic_files, "_BEHIND", 0)
    made = Made(HERE, disk).create(IDS)
    made.end(*IDS)
    made.finish()
    checkpoint = disk.files[str(made.layout.checkpoint)]
    assert checkpoint.most_in_memory < len(checkpoint.data) == len(checkpoint.safe)


def test_a_symlinked_checkpoint_stays_a_symlink(tmp_path: Path) -> None:
    """D8: the file that the link leads to is replaced, from beside it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    made = Made(tmp_path / "out", threads=True).create(IDS)
    made.layout.checkpoint.symlink_to(elsewhere / "kept.json")
    made.end(*IDS[:5])
    made.finish()
    assert made.layout.checkpoint.is_symlink()
    assert json.loads((elsewhere / "kept.json").read_bytes())["counts"]["completed"] == 5
    assert os.listdir(elsewhere) == ["kept.json"]


def test_a_record_that_rots_in_the_journal_gets_no_new_checksum(disk: FakeDisk) -> None:
    made = Made(HERE, disk).create(IDS)
    made.end(*IDS[:2])
    made.checkpoint()
    made.end(IDS[2])
    file = disk.files[str(made.layout.journal)]
    file.data[file.data.index(b'"of": "iris/1"') + 8] ^= 1
    made.store.begin_checkpoint(made.position(), 0.0)
    while made.store.work(1.0):
        pass
    made.store.poll(0.1)
    assert any("cannot be read back" in notice for notice in made.store.notices)
    made.die()
    found = survey(made.layout, disk)
    assert found.journal_state == "damaged"
    assert completed(found) == expected(IDS[:3])  # the old checkpoint still has it


def test_jobs_that_are_gone_keep_their_results_and_are_counted_apart(disk: FakeDisk) -> None:
    made = Made(HERE, disk).create(IDS)
    made.end(*IDS[:4])
    made.finish()
    again = Made(HERE, disk).resume(plan_of([*IDS[2:], "new/1"]))
    counts = again.store.table.counts()
    assert (counts.total, counts.completed, again.store.table.gone()) == (9, 2, 2)
    again.finish()
    document = json.loads(disk.content(made.layout.checkpoint))
    assert set(document["gone"]) == {"iris/0", "iris/1"}
    assert document["gone"]["iris/0"]["result"] == expected(IDS)["iris/0"]
    found = survey(made.layout, disk)
    assert (found.counts().total, found.table.gone()) == (9, 2)
    # Both files in turn, and the plan as well.
    for victim in (made.layout.journal, made.layout.checkpoint, made.layout.plan):
        disk.remove(str(victim))
        Made(HERE, disk).resume(plan_of(IDS)).finish()
        assert completed(survey(made.layout, disk)) == expected(IDS[:4])
        assert survey(made.layout, disk).counts().completed == 4


def test_nor_does_it_on_the_way_out(disk: FakeDisk) -> None:
    made = Made(HERE, disk).create(IDS)
    made.end(*IDS[:2])
    made.checkpoint()
    made.end(IDS[2])
    file = disk.files[str(made.layout.journal)]
    file.data[file.data.index(b'"of": "iris/1"') + 8] ^= 1
    made.sync()
    made.store.save(made.position())
    assert any("cannot be read back" in notice for notice in made.store.notices)
    made.die()
    found = survey(made.layout, disk)
    assert found.journal_state == "damaged"
    assert completed(found) == expected(IDS[:3])


@pytest.mark.parametrize("far", [False, True])
def test_a_journal_that_reads_back_is_copied_without_looking_at_each_record(
    disk: FakeDisk, monkeypatch: pytest.MonkeyPatch, far: bool
) -> None:
    made = Made(HERE, disk).create(IDS)
    made.end(*IDS[:3])
    made.end(IDS[3], outcome="raised")
    if far:  # so that records are not read with one call
        monkeypatch.setattr(record_locations, "_SPAN", 10)
    made.end(IDS[4])
    made.sync()
    made.checkpoint()
    singly = disk.content(made.layout.checkpoint)
    monkeypatch.setattr(journal_reader, "verify_batch", lambda *_: pytest.fail("a record was looked at"))
    made.store.save(made.position())
    together = disk.content(made.layout.checkpoint)

    def but_for_time(text: bytes) -> list[bytes]:
        return [line for line in text.splitlines() if not line.startswith((b'"saved_at"', b'"crc"'))]

    assert but_for_time(together) == but_for_time(singly)
    assert b'"crc"' in together


@pytest.mark.parametrize("seed", range(3))
def test_entries_made_of_whole_lines_are_those_made_of_ids_and_parts(disk: FakeDisk, seed: int) -> None:
    """Jobs that ended in stretches of any order, while the numbers of the lines got more digits."""
    chance = Random(seed)
    ids = [f"iris/{number}" for number in range(1600)]
    made = Made(HERE, disk).create(ids)
    order = list(range(len(ids)))
    for at in range(0, len(ids), 256):
        chance.choice([list.reverse, chance.shuffle, lambda jobs: None])(piece := order[at : at + 256])
        order[at : at + 256] = piece
    if seed == 2:  # numbers of equal length; two batches far from each other in the journal
        made.store.append([Noted("x", AT)] * 1000)
        order = [*range(800, 1600), *range(800)]
    made.end(*[ids[job] for job in order])
    made.store.save(made.position())
    used: list[bool] = []
    quick = journal_reader.JournalReader.named_parts

    def counted(*arguments: object) -> list[bytes] | None:
        found = quick(*arguments)  # type: ignore[arg-type]
        used.append(found is not None)
        return found

    def entries() -> bytes:
        made.store._checkpoints.write(made.position())
        text = disk.content(made.layout.checkpoint)
        return text[text.index(b'"charges"') : text.rindex(b',\n"crc"')]

    with mock.patch.object(journal_reader.JournalReader, "named_parts", counted):
        wanted = entries()
    with mock.patch.object(journal_reader.JournalReader, "named_parts", return_value=None):
        assert entries() == wanted
    assert used == [seed == 2, seed == 2, True, True]
