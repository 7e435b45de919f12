"""Files that were cut, flipped, emptied, deleted or exchanged: what is kept, what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.terms.errors import UnusableCheckpoint
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, PENDING
from supervisor.storage.files import atomic_files
from supervisor.storage.journal.journal_file import Identity
from supervisor.storage.journal.journal_format import encode_batch, seed_of
from supervisor.storage.recovery.survey import survey
from tests.storage.fake_disk import FakeDisk
from tests.storage.made import Made, completed, expected

pytestmark = pytest.mark.slow

IDS = [f"iris/{number}" for number in range(6)]
HERE = Path("/fake")


def half_done(disk: FakeDisk, *, checkpoint: bool = True) -> Made:
    """0 to 3 done (2 failed), a checkpoint after 1, 4 running, 5 waiting behind it."""
    made = Made(HERE, disk).create(IDS)
    made.hand_out(*IDS[:4])
    made.end(IDS[0], IDS[1])
    if checkpoint:
        made.checkpoint()
    made.end(IDS[2], outcome="raised")
    made.end(IDS[3])
    made.hand_out(IDS[4], IDS[5])
    made.sync()
    made.die()
    return made


def replace(disk: FakeDisk, path: Path, content: bytes) -> None:
    disk.files[str(path)].data = bytearray(content)


def copy_of(disk: FakeDisk) -> FakeDisk:
    return disk.after_power_cut(0)


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


def settled(disk: FakeDisk) -> FakeDisk:
    """Everything synced, so that a copy holds all of it."""
    for file in disk.files.values():
        file.safe = bytes(file.data)
    disk.sync_directory("")
    return disk


def test_a_killed_run_is_found_as_it_was(disk: FakeDisk) -> None:
    made = half_done(disk)
    found = survey(made.layout, disk)
    table = found.table
    assert [table.state[number] for number in range(6)] == [
        COMPLETED,
        COMPLETED,
        FAILED,
        COMPLETED,
        PENDING,
        PENDING,
    ]
    assert completed(found) == expected([IDS[0], IDS[1], IDS[3]])
    assert table.open_leases == {1: {5: 4, 6: 5}}
    assert table.charges[2].errors == 1
    assert found.history.workers[1].pid == 4242
    assert found.history.position().next_lease == 7
    assert found.history.position().next_incarnation == 2
    assert (found.settings, found.options) == ({"workers": 2}, {"size": 3})
    assert found.findings == []
    counts = found.counts()
    assert (counts.completed, counts.failed, counts.in_progress, counts.pending) == (3, 1, 1, 1)


def test_checkpoint_and_journal_alone_give_the_same(disk: FakeDisk) -> None:
    made = half_done(disk)
    both = survey(made.layout, disk)
    disk.remove(str(made.layout.checkpoint))
    alone = survey(made.layout, disk)
    assert bytes(both.table.state) == bytes(alone.table.state)
    assert both.table.attempts == alone.table.attempts
    assert both.table.charges == alone.table.charges
    assert both.statistics == alone.statistics
    assert completed(both) == completed(alone)


@pytest.mark.parametrize("fill", [b"", b"\0", b"\xff"], ids=["nothing", "NULs", "ones"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_journal_cut_at_any_byte_keeps_every_whole_record(fill: bytes, checkpoint: bool) -> None:
    """D1: a torn tail, or one of NULs or ones, is cut off and kept beside the journal."""
    whole = settled(FakeDisk())
    made = half_done(whole, checkpoint=checkpoint)
    settled(whole)
    content = whole.content(made.layout.journal)
    first_line = content.index(b"\n") + 1
    for cut in range(first_line, len(content) + 1):
        disk = copy_of(whole)
        replace(disk, made.layout.journal, content[:cut] + fill * (len(content) - cut))
        kept = content[:cut]
        ends = {name for name in IDS if b'"job":"%b"' % name.encode() in kept.rpartition(b"\n")[0]}
        if kept[-18:-10] == b',"crc":"' and kept.endswith(b'"}'):
            ends |= {name for name in IDS if b'"job":"%b"' % name.encode() in kept}
        if checkpoint:
            ends |= {IDS[0], IDS[1]}
        again = Made(HERE, disk).resume()
        table = again.store.table
        assert {name for name in IDS if table.state[table.numbers[name]] in (COMPLETED, FAILED)} == ends
        again.finish()
        assert set(completed(survey(made.layout, disk))) == ends - {IDS[2]}
        if not checkpoint and cut < len(content) and fill:
            (backup,) = (disk.content(name) for name in disk.files if ".backup" in name)
            assert backup and (content[:cut] + fill * (len(content) - cut)).endswith(backup)


def test_a_byte_flipped_anywhere_loses_no_result_that_the_checkpoint_has() -> None:
    """D2: a bad record with a good one after it is damage, and no end of the file."""
    whole = FakeDisk()
    made = Made(HERE, whole).create(IDS)
    made.hand_out(*IDS[:4])
    made.end(*IDS[:4])
    made.note("something")
    made.sync()
    made.checkpoint()
    made.hand_out(*IDS[4:])
    made.end(*IDS[4:])
    made.sync()
    made.die()
    settled(whole)
    content = whole.content(made.layout.journal)
    for place in range(0, len(content) - 1, 3):
        disk = copy_of(whole)
        damaged = bytearray(content)
        damaged[place] ^= 0x11
        replace(disk, made.layout.journal, bytes(damaged))
        again = Made(HERE, disk).resume()
        results = completed(survey(made.layout, disk))
        assert expected(IDS[:4]).items() <= results.items()
        assert len(results) >= 5, place
        assert again.findings or again.store.notices
        # The other file may be destroyed now.
        again.die()
        disk.remove(str(made.layout.checkpoint))
        assert completed(survey(made.layout, disk)) == results


def test_a_flipped_byte_without_a_checkpoint_costs_one_job() -> None:
    whole = FakeDisk()
    made = half_done(whole, checkpoint=False)
    settled(whole)
    content = whole.content(made.layout.journal)
    for place in range(0, content.rindex(b"\n", 0, -1), 3):
        disk = copy_of(whole)
        damaged = bytearray(content)
        damaged[place] ^= 0x40
        replace(disk, made.layout.journal, bytes(damaged))
        found = survey(made.layout, disk)
        finished = sum(state in (COMPLETED, FAILED) for state in found.table.state)
        assert finished >= 3, place
        assert found.journal_state == "damaged"
        if finished == 3:
            assert "Run again" in " ".join(found.findings)


def test_what_was_lost_is_named(disk: FakeDisk) -> None:
    made = half_done(disk)
    content = disk.content(made.layout.journal)
    lines = content.splitlines(keepends=True)
    lost = next(line for line in lines if b'"job":"iris/3"' in line)
    replace(disk, made.layout.journal, content.replace(lost, lost.replace(b'"attempt":1', b'"attempt":9')))
    said = " ".join(survey(made.layout, disk).findings)
    assert str(made.layout.journal) in said
    assert "Run again, because their records are lost: 'iris/3'" in said
    assert "3 results kept from the journal, 0 taken from the checkpoint" in said


def test_a_deleted_line_is_a_gap(disk: FakeDisk) -> None:
    made = half_done(disk)
    lines = disk.content(made.layout.journal).splitlines(keepends=True)
    # The checkpoint has iris/0; the line of iris/3 is in no other place.
    for name, again in (("iris/0", False), ("iris/3", True)):
        kept = [line for line in lines if b'"job":"%b"' % name.encode() not in line]
        replace(disk, made.layout.journal, b"".join(kept))
        found = survey(made.layout, disk)
        assert found.journal_state == "damaged"
        assert (name in completed(found)) is not again
        assert (f"'{name}'" in " ".join(found.findings)) is again


def test_a_line_that_stands_there_twice_counts_once(disk: FakeDisk) -> None:
    made = half_done(disk, checkpoint=False)
    lines = disk.content(made.layout.journal).splitlines(keepends=True)
    twice = [line for line in lines for _ in range(2 if b'"outcome":"raised"' in line else 1)]
    replace(disk, made.layout.journal, b"".join(twice))
    found = survey(made.layout, disk)
    assert found.table.charges[2].errors == 1
    assert found.journal_state == "damaged"


def test_lines_of_another_journal_do_not_pass(disk: FakeDisk) -> None:
    made = half_done(disk)
    stranger = Identity("e1", "made", "another", 1)
    line, _ = encode_batch(99, [stranger.opened()], seed_of("another", 1))
    content = disk.content(made.layout.journal)
    replace(disk, made.layout.journal, content + line)
    found = survey(made.layout, disk)
    assert found.journal_state == "torn"
    assert len(completed(found)) == 3


@pytest.mark.parametrize(
    "harm", [b"", b"\0" * 500, b"garbage\n", b"{}", None], ids=["empty", "NULs", "text", "json", "cut"]
)
def test_a_damaged_checkpoint_is_moved_aside_and_rebuilt(disk: FakeDisk, harm: bytes | None) -> None:
    made = half_done(disk)
    content = disk.content(made.layout.checkpoint)
    replace(disk, made.layout.checkpoint, content[:-30] if harm is None else harm)
    before = disk.content(made.layout.checkpoint)
    again = Made(HERE, disk).resume()
    assert len(completed(survey(made.layout, disk))) == 3
    backup = made.layout.checkpoint.with_name("checkpoint_e1.backup.json")
    assert disk.content(backup) == before
    assert any(
        "is damaged" in finding and str(made.layout.checkpoint) in finding for finding in again.findings
    )
    assert any(str(backup) in notice for notice in again.store.notices)
    assert json.loads(disk.content(made.layout.checkpoint))["counts"]["completed"] == 3


def test_a_checkpoint_flipped_at_any_byte_is_noticed(disk: FakeDisk) -> None:
    made = half_done(disk)
    content = disk.content(made.layout.checkpoint)
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x01
        replace(disk, made.layout.checkpoint, bytes(damaged))
        found = survey(made.layout, disk)
        assert found.checkpoint_state == "damaged"
        assert len(completed(found)) == 3


def test_an_earlier_backup_is_never_overwritten(disk: FakeDisk) -> None:
    made = half_done(disk)
    for _ in range(3):
        replace(disk, made.layout.checkpoint, b"broken")
        Made(HERE, disk).resume().die()
    names = [name for name in disk.files if "checkpoint_e1.backup" in name]
    assert sorted(names) == [
        "/fake/logs/checkpoint_e1.backup-2.json",
        "/fake/logs/checkpoint_e1.backup-3.json",
        "/fake/logs/checkpoint_e1.backup.json",
    ]


def test_without_its_journal_the_checkpoint_is_enough(disk: FakeDisk) -> None:
    made = half_done(disk)
    disk.remove(str(made.layout.journal))
    again = Made(HERE, disk).resume()
    assert any(
        "is missing" in finding and "2 taken from the checkpoint" in finding for finding in again.findings
    )
    again.die()
    disk.remove(str(made.layout.checkpoint))
    found = survey(made.layout, disk)
    assert completed(found) == expected(IDS[:2])
    assert found.statistics.runs == 2
    assert found.history.workers[1].pid == 4242


def test_a_journal_that_ends_before_the_checkpoint_is_recognised(disk: FakeDisk) -> None:
    made = half_done(disk)
    content = disk.content(made.layout.journal)
    first_end = content.index(b'"type":"ended"')
    replace(disk, made.layout.journal, content[: content.rindex(b"\n", 0, first_end) + 1])
    again = Made(HERE, disk).resume()
    assert any("its end is missing" in finding for finding in again.findings)
    assert completed(survey(made.layout, disk)) == expected(IDS[:2])
    assert "/fake/logs/journal_e1.backup.jsonl" in disk.files


def test_one_file_destroyed_then_the_other_loses_nothing(disk: FakeDisk) -> None:
    made = half_done(disk)
    everything = {IDS[0], IDS[1], IDS[3]}
    for round_number in range(6):
        victim = made.layout.checkpoint if round_number % 2 else made.layout.journal
        if round_number == 0:
            disk.remove(str(made.layout.checkpoint))
        else:
            disk.remove(str(victim))
        again = Made(HERE, disk).resume()
        again.finish()
        assert set(completed(survey(made.layout, disk))) == everything
    assert survey(made.layout, disk).table.charges[2].errors == 1


def test_neither_file_usable_is_said_with_the_next_step(disk: FakeDisk) -> None:
    made = half_done(disk)
    replace(disk, made.layout.checkpoint, b"x")
    replace(disk, made.layout.journal, b"y\n" * 50)
    with pytest.raises(UnusableCheckpoint) as error:
        survey(made.layout, disk)
    for part in (str(made.layout.checkpoint), str(made.layout.journal), "--experiment-id"):
        assert part in str(error.value)
    assert error.value.exit_code == 65
    assert disk.content(made.layout.journal) == b"y\n" * 50


def test_files_of_different_experiments_are_refused(disk: FakeDisk) -> None:
    half_done(disk)
    other = FakeDisk()
    made = half_done(other)
    replace(disk, made.layout.journal, other.content(made.layout.journal))
    before = dict(disk.files)
    with pytest.raises(UnusableCheckpoint, match="different experiments"):
        survey(made.layout, disk)
    assert disk.files == before
    # Also when the first line, which names the experiment, is damaged.
    replace(
        disk, made.layout.journal, other.content(made.layout.journal).replace(b"longhaul", b"langhaul", 1)
    )
    with pytest.raises(UnusableCheckpoint, match="different experiments"):
        survey(made.layout, disk)


def test_the_format_of_another_version_is_refused_not_repaired(disk: FakeDisk) -> None:
    import zlib

    made = half_done(disk)
    body = disk.content(made.layout.checkpoint)[:-20].replace(
        b"longhaul-checkpoint-1", b"longhaul-checkpoint-9"
    )
    replace(disk, made.layout.checkpoint, body + b',\n"crc":"%08x"}\n' % zlib.crc32(body))
    with pytest.raises(UnusableCheckpoint, match="longhaul-checkpoint-9"):
        survey(made.layout, disk)
    disk.remove(str(made.layout.checkpoint))
    opened = Identity("e1", "made", "u", 1).opened()
    opened.format = "longhaul-journal-9"
    replace(disk, made.layout.journal, encode_batch(1, [opened], seed_of("u", 1))[0])
    with pytest.raises(UnusableCheckpoint, match="longhaul-journal-9"):
        survey(made.layout, disk)


def test_records_of_a_newer_version_are_passed_over(disk: FakeDisk) -> None:
    made = half_done(disk)
    from supervisor.storage.journal.journal_format import seal

    identity = made.store._journal.identity
    n = made.store.next_n
    line, _ = seal([b'{"n":%d,"type":"telepathy","job":"iris/4"' % n], identity.seed)
    replace(disk, made.layout.journal, disk.content(made.layout.journal) + line)
    found = survey(made.layout, disk)
    assert found.journal_state == "good"
    assert "does not know" in found.findings[0]
    assert found.last_n == n


def test_two_copies_that_went_on_separately_keep_the_results_of_both(disk: FakeDisk) -> None:
    made = half_done(disk)
    settled(disk)
    other = copy_of(disk)
    here = Made(HERE, disk).resume()
    here.hand_out(IDS[4])
    here.end(IDS[4])
    here.finish()
    there = Made(HERE, other).resume()
    there.hand_out(IDS[5])
    there.end(IDS[5], result=b'"something longer than what the other one says"')
    there.finish()
    replace(disk, made.layout.checkpoint, other.content(made.layout.checkpoint))
    assert set(completed(survey(made.layout, disk))) == {IDS[0], IDS[1], IDS[3], IDS[4], IDS[5]}


def test_an_interrupted_job_stays_in_progress(disk: FakeDisk) -> None:
    made = Made(HERE, disk).create(IDS)
    made.hand_out(IDS[0])
    made.end(IDS[0], outcome="interrupted", state="in_progress")
    made.finish()
    document: dict[str, Any] = json.loads(disk.content(made.layout.checkpoint))
    assert document["in_progress"] == {IDS[0]: {"attempt": 1, "worker": None, "since": ""}}
    for victim in (None, made.layout.journal, made.layout.checkpoint):
        if victim is not None:
            disk.remove(str(victim))
            Made(HERE, disk).resume().finish()
        found = survey(made.layout, disk)
        assert found.table.state[0] == INTERRUPTED
        assert found.table.attempts[0] == 1


def test_survey_changes_nothing(tmp_path: Path) -> None:
    made = Made(tmp_path, threads=True).create(IDS)
    made.hand_out(*IDS)
    made.end(*IDS[:3])
    made.checkpoint()
    made.die()
    with made.layout.journal.open("ab") as file:
        file.write(b'{"n":99,"type":"en')
    copy = tmp_path.parent / "copy"
    shutil.copytree(tmp_path, copy)
    survey(made.layout).close()
    for path in made.layout.logs.iterdir():
        assert path.read_bytes() == (copy / "logs" / path.name).read_bytes()


@pytest.mark.parametrize("piece", [1, 50, 700])
def test_a_survey_does_not_depend_on_how_much_is_read_at_once(
    disk: FakeDisk, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    made = half_done(disk)
    made.sync()
    made.die()
    whole = survey(made.layout, disk)
    monkeypatch.setattr(atomic_files, "_PIECE", piece)
    found = survey(made.layout, disk)
    assert (found.journal_state, found.checkpoint_state, found.findings) == ("good", "good", [])
    assert found.table.__dict__.keys() == whole.table.__dict__.keys()
    for name, column in whole.table.__dict__.items():
        assert getattr(found.table, name) == column, name
    assert completed(found) == completed(whole)
    assert found.counts() == whole.counts()
