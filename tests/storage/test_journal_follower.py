"""The follower goes on where it was, whatever happens to the journal in between."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from supervisor.core.terms.errors import StorageError
from supervisor.core.terms.records import Ended
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_follower import JournalFollower
from supervisor.storage.journal.journal_format import LineHead, decode_heads, decode_record
from supervisor.storage.journal.journal_reader import history
from tests.storage.made import Made

IDS = [f"iris/{number}" for number in range(40)]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path).create(IDS)


def read(follower: JournalFollower) -> list[LineHead]:
    return [head for part in follower.read() for head in part.heads if head is not None]


def ends(heads: list[LineHead]) -> list[str]:
    return [head.job for head in heads if head.type == "ended"]


def test_it_goes_on_where_it_was(made: Made) -> None:
    follower = JournalFollower(made.layout)
    assert [head.type for head in read(follower)] == ["opened", "run_started", "worker_started"]
    assert read(follower) == []
    made.hand_out(*IDS[:3])
    made.end(*IDS[:3])
    assert ends(read(follower)) == IDS[:3]
    made.hand_out(IDS[3])
    made.end(IDS[3], outcome="raised")
    (leased, ended) = read(follower)
    assert (leased.type, leased.lease, leased.worker) == ("leased", 4, 0)
    assert (ended.job, ended.outcome, ended.state, ended.seconds) == (IDS[3], "raised", "failed", 0.25)
    assert (follower.started_anew, follower.damaged, follower.lost) == (0, 0, 0)
    assert follower.position == made.layout.journal.stat().st_size


def test_a_line_that_is_being_written_is_read_when_it_is_whole(made: Made) -> None:
    follower = JournalFollower(made.layout)
    read(follower)
    made.hand_out(IDS[0])
    made.end(IDS[0])
    whole = made.layout.journal.read_bytes()
    for size in range(follower.position, len(whole)):
        made.layout.journal.write_bytes(whole[:size])
        assert len(ends(read(follower))) == 0, size
    made.layout.journal.write_bytes(whole)
    assert ends(read(follower)) == [IDS[0]]


def test_another_file_in_its_place_is_read_from_the_start(made: Made, tmp_path: Path) -> None:
    made.hand_out(*IDS[:5])
    made.end(*IDS[:5])
    follower = JournalFollower(made.layout)
    first = read(follower)
    other = tmp_path / "other"
    other.write_bytes(made.layout.journal.read_bytes())
    os.replace(other, made.layout.journal)
    assert read(follower) == first
    assert follower.started_anew == 1
    made.layout.journal.write_bytes(b"".join(made.layout.journal.read_bytes().splitlines(keepends=True)[:5]))
    assert len(read(follower)) == 5
    assert follower.started_anew == 2


def test_a_new_generation_in_the_same_inode_is_noticed(made: Made, tmp_path: Path) -> None:
    """The kernel gives the number of a removed file to the next one."""
    follower = JournalFollower(made.layout)
    read(follower)
    later = Made(tmp_path / "later").create(IDS)
    later.hand_out(*IDS)
    later.end(*IDS)
    made.layout.journal.write_bytes(later.layout.journal.read_bytes())
    assert ends(read(follower)) == IDS
    assert follower.started_anew == 1


def test_after_a_repair_it_follows_the_new_journal(made: Made) -> None:
    follower = JournalFollower(made.layout)
    made.hand_out(*IDS[:9])
    made.end(*IDS[:9])
    made.checkpoint()
    read(follower)
    made.die()
    text = bytearray(made.layout.journal.read_bytes())
    at = text.index(b'"iris/4"')
    text[at : at + 3] = b"XXX"
    made.layout.journal.write_bytes(text)
    Made(made.layout.directory).resume()
    heads = read(follower)
    assert follower.started_anew == 1
    assert sorted(ends(heads)) == sorted(IDS[:9])
    assert [head.type for head in heads if head.type in ("carried_run", "run_started")][-2:] == [
        "carried_run",
        "run_started",
    ]


def test_damage_is_passed_over_and_counted(made: Made) -> None:
    made.hand_out(*IDS[:9])
    made.end(*IDS[:9])
    text = bytearray(made.layout.journal.read_bytes())
    at = text.index(b'"job":"iris/4"')
    text[at + 7 : at + 10] = b"XXX"
    made.layout.journal.write_bytes(text)
    follower = JournalFollower(made.layout)
    assert ends(read(follower)) == [*IDS[:4], *IDS[5:9]]
    assert (follower.damaged, follower.lost) == (1, 1)
    made.hand_out(IDS[9])
    made.end(IDS[9])
    assert ends(read(follower)) == [IDS[9]]
    assert (follower.damaged, follower.lost) == (1, 1)


def test_without_a_first_line_the_others_are_still_read(made: Made) -> None:
    made.hand_out(*IDS[:9])
    made.end(*IDS[:9])
    text = made.layout.journal.read_bytes()
    made.layout.journal.write_bytes(b"#" + text[1:])
    follower = JournalFollower(made.layout)
    assert ends(read(follower)) == IDS[:9]
    made.hand_out(IDS[9])
    made.end(IDS[9])
    assert ends(read(follower)) == [IDS[9]]


def test_no_journal_has_no_lines_and_an_unreadable_one_is_named(tmp_path: Path) -> None:
    assert read(JournalFollower(Layout(tmp_path, "none"))) == []
    layout = Layout(tmp_path, "folder")
    layout.journal.mkdir(parents=True)
    with pytest.raises(StorageError, match="journal_folder"):
        read(JournalFollower(layout))


def test_heads_are_those_of_the_records_whatever_the_result_holds(made: Made) -> None:
    results = [b'{"result":{"at":"x"},"type":"leased"}', b'"\\",\\"result\\":"', b"[1,2]", b"null"]
    for job, result in zip(IDS, results, strict=False):
        made.hand_out(job)
        made.end(job, result=result)
    lines = made.layout.journal.read_bytes().splitlines()
    heads = decode_heads(lines)
    for head, line in zip(heads, lines, strict=True):
        record = decode_record(line)
        assert head is not None and record is not None
        if isinstance(record, Ended):
            for field in LineHead.__struct_fields__[1:]:
                assert getattr(head, field) == getattr(record, field, "")  # only a hand-out has a place
    assert len(ends([head for head in heads if head])) == len(
        list(filter(lambda r: isinstance(r, Ended), history(made.layout)))
    )


def test_a_line_of_another_version_hides_no_other() -> None:
    good = msgspec.json.encode({"type": "ended", "at": "x", "job": "a", "worker": 3})
    strange = msgspec.json.encode({"type": "ended", "at": 5, "job": "b"})
    heads = decode_heads([good, strange, good])
    assert heads[1] is None
    assert [head.worker for head in heads if head is not None] == [3, 3]
