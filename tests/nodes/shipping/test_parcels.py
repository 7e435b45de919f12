"""Parcels from one side to the other: in pieces, in turn, within a window, whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisor.nodes.shipping import parcels
from supervisor.nodes.shipping.file_messages import (
    WINDOW,
    FileBegins,
    FileBytes,
    ParcelBegins,
    ParcelBroken,
    ParcelEnds,
    ParcelKept,
    ParcelPart,
    Taken,
    cost_of,
)
from supervisor.nodes.shipping.parcels import (
    AGAIN_AFTER,
    Arrived,
    Entry,
    Parcel,
    ParcelReceiver,
    ParcelSender,
)
from supervisor.system.confined_tree import ConfinedTree

ALL = 1 << 40


def parcel_of(root: Path, lease: int = 1, *, completed: bool = True) -> Parcel:
    return Parcel("artifacts", 7, lease, [Entry("jobs", str(root))], completed)


def receiver_in(directory: Path) -> ParcelReceiver:
    directory.mkdir(exist_ok=True)
    return ParcelReceiver(lambda head: str(directory / str(head.number)))


def bring(sender: ParcelSender, receiver: ParcelReceiver, now: float = 0.0) -> list[Arrived]:
    """Until nothing is left to be sent."""
    arrived = []
    while parts := sender.messages(ALL, now):
        arrived += [found for part in parts if (found := receiver.take(part)) is not None]
        for answer in receiver.collect_answers():
            if isinstance(answer, Taken):
                sender.taken(answer.size)
            else:
                sender.kept(answer, now)
    return arrived


def test_what_arrives_is_what_was_sent(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "large").write_bytes(os.urandom(3 * WINDOW + 17))
    (root / "nothing").touch()
    (root / "in").symlink_to("a/b")
    (root / "out").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    sender, receiver = ParcelSender(), receiver_in(tmp_path / "to")
    sender.add(parcel_of(root))
    (arrived,) = bring(sender, receiver)
    assert arrived.artifacts is not None and arrived.states is None
    arrived.artifacts.move_to(str(tmp_path / "moved"))
    there = tmp_path / "moved"
    assert (there / "a" / "b" / "large").read_bytes() == (root / "a" / "b" / "large").read_bytes()
    assert os.readlink(there / "in") == "a/b" and (there / "nothing").stat().st_size == 0
    assert sorted(arrived.left_out) == ["out", "pipe"] and arrived.head.completed


def test_no_more_than_the_window_is_under_way_and_small_ones_pass_large_ones(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.mkdir()
    small.mkdir()
    (large / "data").write_bytes(bytes(10 * WINDOW))
    (small / "data").write_bytes(b"small")
    sender = ParcelSender()
    first = sender.add(parcel_of(large))
    second = sender.add(parcel_of(small))
    parts = sender.messages(ALL, 0.0)
    assert WINDOW <= sum(map(cost_of, parts)) < WINDOW + (128 << 10)
    assert not sender.ready and sender.messages(ALL, 0.0) == []
    assert [type(part) for part in parts if part.number == second][-1] is ParcelEnds
    sender.taken(1 << 20)
    assert sender.ready
    assert {part.number for part in sender.messages(ALL, 0.0)} == {first}
    sender.taken(WINDOW)
    assert sum(map(cost_of, sender.messages(100_000, 0.0))) < 200_000


def test_files_that_the_other_side_has_are_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("old", "new"):
        (root / name).write_text(name)
    os.utime(root / "old", (1e9, 1e9))

    def sent(parcel: Parcel) -> list[bytes]:
        return [part.path for part in parcels.parts_of(1, parcel) if isinstance(part, FileBegins)]

    first = parcel_of(root)
    assert sent(first) == [b"jobs/new", b"jobs/old"]
    assert list(first.sent) == [b"jobs/old"]  # new may change within one tick of its clock
    again = parcel_of(root)
    again.known = first.sent
    assert sent(again) == [b"jobs/new"]
    (root / "old").write_text("changed")
    assert sent(again) == [b"jobs/new", b"jobs/old"]


def test_who_cannot_keep_it_says_so_at_once_and_gets_it_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "data").write_bytes(bytes(3 * WINDOW))
    sender, receiver = ParcelSender(), receiver_in(tmp_path / "to")
    sender.add(parcel_of(root))
    full = True
    write = ConfinedTree.write

    def refuse(self: ConfinedTree, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device", "data")
        write(self, data)

    monkeypatch.setattr(ConfinedTree, "write", refuse)
    parts = sender.messages(ALL, 10.0)
    assert [receiver.take(part) for part in parts] == [None] * len(parts)
    (answer,) = [answer for answer in receiver.collect_answers() if isinstance(answer, ParcelKept)]
    assert answer == ParcelKept(1, "No space left on device: data", again=True)
    assert list((tmp_path / "to").iterdir()) == []
    sender.taken(sum(map(cost_of, parts)))
    assert sender.kept(answer, 10.0) is None
    assert sender.messages(ALL, 10.0) == [ParcelBroken(1)]  # the rest does not come
    receiver.take(ParcelBroken(1))
    assert receiver.collect_answers()[:-1] == []
    assert sender.messages(ALL, 10.0) == [] and sender.next_deadline() == 10.0 + AGAIN_AFTER
    full = False
    assert len(bring(sender, receiver, 10.0 + AGAIN_AFTER)) == 1
    assert (tmp_path / "to" / "1" / "data").stat().st_size == 3 * WINDOW


def test_a_parcel_that_nobody_needs_is_called_off(tmp_path: Path) -> None:
    receiver = ParcelReceiver(lambda head: None)
    receiver.take(ParcelBegins(1, "state", 7, 1))
    receiver.take(FileBegins(1, b"states/a", 0o644, 0))
    assert receiver.collect_answers()[0] == ParcelKept(1, dropped=True)


def test_what_was_dropped_is_not_known_to_the_other_side(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "old").write_text("old")
    os.utime(root / "old", (1e9, 1e9))
    sender, parcel = ParcelSender(), parcel_of(root)
    for answer, known in ((ParcelKept(1), [b"jobs/old"]), (ParcelKept(2, dropped=True), [])):
        assert sender.add(parcel) == answer.number
        sender.messages(ALL, 0.0)
        done = sender.kept(answer, 0.0)
        assert done is not None and list(done.sent) == known


@pytest.mark.parametrize(
    "part",
    [
        FileBegins(1, b"../evil", 0o644, 0),
        FileBegins(1, b"/tmp/evil", 0o644, 0),
        FileBegins(1, b"jobs/../../evil", 0o644, 0),
        FileBegins(1, b"output/evil", 0o644, 0),
        FileBegins(1, b"states", 0o644, 0),
        FileBytes(1, b"of no file"),
    ],
)
def test_what_leads_out_is_refused_and_nothing_of_it_stays(tmp_path: Path, part: ParcelPart) -> None:
    receiver = receiver_in(tmp_path / "to")
    receiver.take(ParcelBegins(1, "artifacts", 7, 1))
    receiver.take(part)
    (answer,) = [answer for answer in receiver.collect_answers() if isinstance(answer, ParcelKept)]
    assert answer.problem.startswith("its directory cannot hold") and not answer.again
    assert receiver.take(ParcelEnds(1)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["to"] and list((tmp_path / "to").iterdir()) == []


def test_what_cannot_be_read_is_a_problem_of_its_parcel_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "data").write_text("x")
    sender, receiver = ParcelSender(), receiver_in(tmp_path / "to")
    bad = parcel_of(root)
    bad.entries = [Entry("jobs", str(root) + "/data/below")]
    sender.add(bad)
    sender.add(parcel_of(root))
    parts = sender.messages(ALL, 0.0)
    assert ParcelBroken(1) in parts
    arrived = [found for part in parts if (found := receiver.take(part)) is not None]
    assert [each.head.number for each in arrived] == [2]
    (answer,) = [each for each in receiver.collect_answers() if isinstance(each, ParcelKept)]
    done = sender.kept(answer, 0.0)
    assert done is bad and done.problem.startswith("Not a directory")


def test_what_its_owner_may_not_read_is_sent_and_joins_what_may_not_be_changed(tmp_path: Path) -> None:
    """A job may give its files such modes; that the system minds them, shows only who is not root."""
    for attempt in ("one", "two"):
        root = tmp_path / attempt
        (root / "sealed").mkdir(parents=True)
        (root / "sealed" / attempt).write_text(attempt)
        (root / "sealed" / attempt).chmod(0o200)
        (root / "sealed").chmod(0o100)
        sender, receiver = ParcelSender(), receiver_in(tmp_path / f"to-{attempt}")
        sender.add(parcel_of(root))
        (arrived,) = bring(sender, receiver)
        assert arrived.artifacts is not None
        arrived.artifacts.move_to(str(tmp_path / "target"))
        assert (root / "sealed").stat().st_mode & 0o777 == 0o100
    sealed = tmp_path / "target" / "sealed"
    assert sealed.stat().st_mode & 0o777 == 0o100
    sealed.chmod(0o700)
    assert {path.name: path.stat().st_mode & 0o777 for path in sealed.iterdir()} == {
        "one": 0o200,
        "two": 0o200,
    }
    for folder in (tmp_path / "one", tmp_path / "two"):
        (folder / "sealed").chmod(0o700)
