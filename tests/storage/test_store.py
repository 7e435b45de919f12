"""The store under a good disk, a full one, a failing one, a stalled one, and none."""

from __future__ import annotations

import errno
import json
import math
import os
import select
import time
from pathlib import Path

import pytest

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import StorageError, UsageError
from supervisor.core.terms.events import HandOutBlocked, HandOutUnblocked, Synced
from supervisor.core.terms.jobs import COMPLETED
from supervisor.storage import checkpoint_schedule
from supervisor.storage.checkpoint_schedule import SHARE, cost
from supervisor.storage.disk_health import MOST_FAILURES
from supervisor.storage.files.lock import Lock
from supervisor.storage.files.sync import STALLED_AFTER
from supervisor.storage.journal.journal_file import MOST_WAITING
from supervisor.storage.recovery.survey import survey
from supervisor.storage.store import Store
from tests.storage.fake_disk import FakeDisk
from tests.storage.made import Made, completed, expected, plan_of, record_of

IDS = [f"iris/{number}" for number in range(8)]
HERE = Path("/fake")


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.fixture
def made(disk: FakeDisk) -> Made:
    return Made(HERE, disk).create(IDS)


def test_records_are_numbered_and_told_when_they_are_synced(made: Made) -> None:
    store = made.store
    made.sync()
    assert store.poll(0.0) == [Synced(3)]
    made.hand_out(*IDS[:2])
    assert store.next_n == 5
    assert store.poll(0.1) == []
    made.sync()
    assert store.poll(0.2) == [Synced(4)]
    assert store.poll(0.3) == []


def test_results_are_read_back_by_place(made: Made) -> None:
    made.end(IDS[3], IDS[1])
    made.end(IDS[2], outcome="raised")
    record = record_of(made.store, 3)
    assert (record.job, record.outcome) == (IDS[3], "completed")
    assert json.loads(bytes(record.result)) == expected(IDS)[IDS[3]]
    failed = record_of(made.store, 2)
    assert failed.error is not None
    assert failed.error["type"] == "ValueError"
    with pytest.raises(KeyError):
        record_of(made.store, 0)


def test_an_existing_experiment_is_refused(made: Made, disk: FakeDisk) -> None:
    before = {name: bytes(file.data) for name, file in disk.files.items()}
    with pytest.raises(UsageError, match="--resume e1"):
        Store.create(
            made.layout,
            name="other",
            plan=plan_of(["a"]),
            table=JobTable(),
            lock=Lock.none(),
            settings={},
            options={},
            disk=disk,
        )
    assert {name: bytes(file.data) for name, file in disk.files.items()} == before


def test_a_full_disk_waits_and_goes_on_by_itself(made: Made, disk: FakeDisk) -> None:
    """D3: a short write first, ENOSPC on the next, and no room to cut it off later."""
    store = made.store
    store.poll(0.0)
    made.hand_out(*IDS)
    used = sum(len(file.data) for file in disk.files.values())
    disk.capacity = used + 300  # one record and a half
    made.end(*IDS[:3])
    made.end(*IDS[3:5])
    blocked = [event for event in store.poll(0.5) if isinstance(event, HandOutBlocked)]
    assert [event.why for event in blocked] == ["no_space"]
    assert str(made.layout.journal) in blocked[0].detail
    # What was written ends with a whole record, and what was not is not lost.
    assert disk.content(made.layout.journal).endswith(b'"}\n')
    assert record_of(store, 4).job == IDS[4]
    assert store.next_deadline() is not None
    assert not store.checkpoint_due(100, 0.6)
    assert store.poll(0.7) == []
    disk.capacity += 1 << 20
    assert store.poll(0.8) == []  # it is tried once a second
    events = store.poll(2.0)
    assert HandOutUnblocked("no_space") in events
    made.sync()
    assert Synced(store.next_n - 1) in store.poll(2.1)
    made.finish()
    disk.remove(str(made.layout.checkpoint))
    found = survey(made.layout, disk)
    assert found.journal_state == "good"
    assert completed(found) == expected(IDS[:5])


def test_a_record_that_cannot_be_cut_off_is_completed_later(made: Made, disk: FakeDisk) -> None:
    disk.capacity = sum(len(file.data) for file in disk.files.values()) + 100
    disk.fail("truncate", errno.EIO)
    made.end(*IDS[:3])
    disk.capacity += 1 << 20
    made.store.poll(5.0)
    made.sync()
    assert completed(survey(made.layout, disk)) == expected(IDS[:3])


def test_too_little_free_space_blocks_before_the_disk_is_full(made: Made, disk: FakeDisk) -> None:
    disk.free = 10 << 20
    events = made.store.poll(0.0)
    assert [event.why for event in events if isinstance(event, HandOutBlocked)] == ["no_space"]
    disk.free = 100 << 20
    assert HandOutUnblocked("no_space") in made.store.poll(1.5)


def test_a_failed_sync_is_answered_with_a_new_file(made: Made, disk: FakeDisk) -> None:
    """D4: the old descriptor lies from now on, and it is not asked again."""
    made.end(*IDS[:2])
    made.sync()
    made.store.poll(0.0)
    made.end(*IDS[2:4])
    disk.fail("datasync", errno.EIO)
    made.sync()
    old = made.store._journal.identity
    # The kernel has dropped the pages of the failed sync: the old file is rubbish there.
    file = disk.files[str(made.layout.journal)]
    file.data[len(file.safe) :] = b"\0" * (len(file.data) - len(file.safe))
    assert Synced(made.store.next_n - 1) in made.store.poll(0.1)
    assert made.store._journal.identity.generation == old.generation + 1
    assert any("written again" in notice for notice in made.store.notices)
    assert json.loads(bytes(record_of(made.store, 3).result)) == expected([IDS[3]])[IDS[3]]
    made.end(IDS[4])
    made.checkpoint()
    made.finish()
    found = survey(made.layout, disk)
    assert found.journal_state == "good"
    assert completed(found) == expected(IDS[:5])
    disk.remove(str(made.layout.checkpoint))
    assert completed(survey(made.layout, disk)) == expected(IDS[:5])


def test_a_failed_write_is_answered_with_a_new_file(made: Made, disk: FakeDisk) -> None:
    made.sync()
    disk.fail("write", errno.EIO)
    made.end(*IDS[:2])
    assert made.store._journal.identity.generation == 2
    assert completed(survey(made.layout, disk)) == expected(IDS[:2])


def test_if_the_new_file_fails_too_the_run_ends_with_74(made: Made, disk: FakeDisk) -> None:
    """D4: nothing is left to be believed."""
    made.end(IDS[0])
    made.sync()
    made.store.poll(0.0)
    disk.fail("write", errno.EIO, times=5)
    with pytest.raises(StorageError) as error:
        made.end(IDS[1])
    assert error.value.exit_code == 74
    assert "resume" in str(error.value)
    made.store.close(made.position())
    assert completed(survey(made.layout, disk)) == expected(IDS[:1])


def test_a_disk_that_fails_all_the_time_ends_the_run_with_74(made: Made, disk: FakeDisk) -> None:
    """D4: a new file each time would only crawl on."""
    for job in IDS[: MOST_FAILURES - 1]:
        disk.fail("write", errno.EIO)
        made.end(job)
    disk.fail("write", errno.EIO)
    with pytest.raises(StorageError) as error:
        made.end(IDS[MOST_FAILURES - 1])
    assert "times within" in str(error.value)
    assert made.store._journal.identity.generation == MOST_FAILURES


def test_a_synced_part_that_cannot_be_read_back_is_not_passed_on(made: Made, disk: FakeDisk) -> None:
    made.end(IDS[0])
    made.sync()
    made.store.poll(0.0)
    file = disk.files[str(made.layout.journal)]
    file.data[len(file.data) // 2] ^= 0xFF
    disk.fail("datasync", errno.EIO)
    made.end(IDS[1])
    made.sync()
    with pytest.raises(StorageError, match="cannot be read back"):
        made.store.poll(0.1)


def test_a_disk_that_does_not_answer_blocks_after_five_seconds(made: Made) -> None:
    store = made.store
    store.poll(100.0)
    assert store.next_deadline() == pytest.approx(100.0 + STALLED_AFTER)
    assert store.poll(104.9) == []
    events = store.poll(105.1)
    assert [event.why for event in events if isinstance(event, HandOutBlocked)] == ["disk_stalled"]
    made.sync()
    assert HandOutUnblocked("disk_stalled") in store.poll(106.0)


def test_records_that_wait_for_the_disk_are_bounded(made: Made) -> None:
    made.sync()
    made.store.poll(0.0)
    made.end(IDS[0], result=b'"' + b"x" * MOST_WAITING + b'"')
    assert [e.why for e in made.store.poll(0.1) if isinstance(e, HandOutBlocked)] == ["disk_stalled"]
    made.sync()
    assert HandOutUnblocked("disk_stalled") in made.store.poll(0.2)


def test_the_last_records_that_find_no_room_are_told(made: Made, disk: FakeDisk) -> None:
    made.sync()
    disk.capacity = 0
    made.end(IDS[0])
    with pytest.raises(StorageError, match="will run again"):
        made.store.close(made.position())


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(made: Made, disk: FakeDisk) -> None:
    made.end(*IDS[:5])
    disk.fail("sync", errno.EIO)
    made.store.begin_checkpoint(made.position(), 0.0)
    while made.store.work(1.0):
        pass
    made.sync()
    made.store.poll(0.1)
    assert any("could not be written" in notice for notice in made.store.notices)
    assert not made.store.checkpoint_due(5, 0.2)  # not again at once
    assert made.store.checkpoint_due(5, 60.0)
    assert not [name for name in disk.files if name.endswith(".tmp")]
    made.finish()
    assert len(completed(survey(made.layout, disk))) == 5


def test_checkpoints_come_at_every_fifth_completion_but_cost_at_most_a_hundredth_of_the_loop(
    made: Made,
) -> None:
    store = made.store
    assert not store.checkpoint_due(4, 9.9)
    assert not store.checkpoint_due(10_000, 10.0)  # the first one, too, is not worth more
    assert store.checkpoint_due(5, 10.0)
    store.begin_checkpoint(made.position(), 10.0)
    assert not store.checkpoint_due(5, 10.0)
    while store.work(1.0):
        pass
    made.sync()
    store.poll(10.0)
    assert store.checkpoint_age(11.0) == 1.0
    store._checkpoints._cost = 0.1
    assert not store.checkpoint_due(500, 14.9)
    assert not store.checkpoint_due(4, 15.1)
    assert store.checkpoint_due(5, 15.1)


@pytest.mark.parametrize(
    ("spent", "waited", "pause"), [(0.01, 0.0, 1.0), (0.01, 0.01, 1.0), (0.01, 0.05, 3.0)]
)
def test_what_a_checkpoint_takes_from_the_loop_counts_twice_what_the_disk_takes_only_beyond_it(
    spent: float, waited: float, pause: float
) -> None:
    assert math.isclose(SHARE * cost(spent, waited), pause)


@pytest.mark.parametrize("many", [3, 4])
def test_a_resume_without_a_checkpoint_writes_one_at_once_or_if_it_is_large_in_the_first_turns(
    made: Made, disk: FakeDisk, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(checkpoint_schedule, "MANY", many)
    made.end(*IDS[:3])
    made.die()
    resumed = Made(HERE, disk).resume()
    store = resumed.store
    assert disk.exists(str(resumed.layout.checkpoint)) == (many > 3)
    assert store.checkpoint_due(0, 0.0) == (many == 3)
    if many == 3:
        store.begin_checkpoint(resumed.position(), 0.0)
        assert not store.checkpoint_due(4, 9.9)  # as every other one from here on
        while store.work(0.0):
            pass
        resumed.sync()
    disk.remove(str(resumed.layout.journal))
    resumed.die()
    assert completed(survey(resumed.layout, disk)) == expected(IDS[:3])


def test_the_journal_is_synced_before_the_checkpoint_is_renamed_in(made: Made, disk: FakeDisk) -> None:
    """D5: a checkpoint never knows more than the journal on the disk."""
    made.end(*IDS[:5])
    made.store.begin_checkpoint(made.position(), 0.0)
    while made.store.work(1.0):
        pass
    assert not disk.exists(str(made.layout.checkpoint))
    disk.fail("datasync", errno.EIO)  # of the journal
    made.sync()
    assert not disk.exists(str(made.layout.checkpoint))
    made.store.poll(0.1)
    made.checkpoint()
    journal = disk.files[str(made.layout.journal)]
    header = json.loads(disk.content(made.layout.checkpoint))["journal"]
    assert header["position"] <= len(journal.safe)


def test_a_run_that_is_not_recorded_leaves_nothing_behind(tmp_path: Path) -> None:
    made = Made(tmp_path, threads=True).create(IDS, ephemeral=True)
    made.hand_out(*IDS)
    made.end(*IDS[:3])
    made.store.append([], urgent=True)
    assert select.select([made.store.fileno()], [], [], 5.0)[0]
    assert made.store.poll(0.0) == [Synced(made.store.next_n - 1)]
    assert not made.store.checkpoint_due(5, 0.0)
    assert record_of(made.store, 2).job == IDS[2]
    assert made.store.plan.lines([1, 2]).count(b"\n") == 1
    made.store.close(made.position())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_sync_thread_tells_through_the_descriptor(tmp_path: Path) -> None:
    made = Made(tmp_path, threads=True).create(IDS)
    made.end(*IDS)
    last = made.store.next_n - 1
    told = 0
    end = time.monotonic() + 20
    while told < last and time.monotonic() < end:
        select.select([made.store.fileno()], [], [], 1.0)
        for event in made.store.poll(time.monotonic()):
            if isinstance(event, Synced):
                told = event.n
    assert told == last
    made.finish()
    found = survey(made.layout)
    assert completed(found) == expected(IDS)
    assert found.checkpoint_state == found.journal_state == "good"
    found.close()


def test_many_resumes_leave_no_descriptor_open(tmp_path: Path) -> None:
    Made(tmp_path, threads=True).create(IDS).finish()
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        made = Made(tmp_path, threads=True).resume()
        made.end(IDS[0])
        made.store.table.state[0] = COMPLETED
        made.finish()
    # What earlier tests have left to the garbage collector may be closed by now.
    assert len(os.listdir("/dev/fd")) <= before


def test_resuming_a_finished_experiment_changes_no_result(made: Made, disk: FakeDisk) -> None:
    made.end(*IDS)
    made.finish()
    again = Made(HERE, disk).resume(plan_of(IDS))
    assert again.findings == again.store.notices == []
    assert again.store.table.counts().completed == len(IDS)
    assert again.store.statistics.runs == 2
    again.finish()
    assert completed(survey(made.layout, disk)) == expected(IDS)
