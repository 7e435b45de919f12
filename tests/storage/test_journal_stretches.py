"""What the index of stretches says of a journal is what reading that journal comes to."""

from __future__ import annotations

import random
from array import array
from pathlib import Path
from typing import Any

import pytest

from supervisor.storage.checkpoint import journal_stretches
from supervisor.storage.checkpoint.journal_stretches import Stretches, StretchWriter
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_scan import KnownRun
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.storage.recovery.replayer import Replayer
from supervisor.storage.recovery.survey import survey
from tests.conftest import some
from tests.storage.fake_disk import FakeDisk
from tests.storage.histories import HERE, IDS, assert_same, complete_together, lives, reset, simulated_lives
from tests.storage.made import AT, Made, completed, plan_of


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_stretches, "STRETCH", 1500)


class Ways:
    """The same survey with the index and without it. `used`: how many runs of lines were not read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used = 0
        self._patch = monkeypatch
        take_run = Replayer.take_run

        def counted(replayer: Replayer, *which: Any) -> None:
            self.used += 1
            take_run(replayer, *which)

        monkeypatch.setattr(Replayer, "take_run", counted)

    def compare(self, layout: Layout, disk: Disk | None = None) -> Recovered:
        with self._patch.context() as patch:
            patch.setattr(Stretches, "read", lambda *_: None)
            without = survey(layout, disk)
        found = survey(layout, disk)
        assert_same(without, found)
        assert (found.scan is None) == (without.scan is None)
        if found.scan is not None and without.scan is not None:
            assert found.scan.checksum == without.scan.checksum
            assert found.scan.intact == without.scan.intact and found.scan.end == without.scan.end
        without.close()
        return found


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


def test_a_known_run_tells_of_its_last_lease_also_where_the_record_of_the_hand_out_is_lost(
    disk: FakeDisk,
) -> None:
    """No number of a lease is given twice."""
    found = Recovered(disk, Made(HERE, disk).layout)
    found.table.add_planned(IDS, [None] * len(IDS))
    Replayer(found).take_run(0, KnownRun(2, 0, 3, 7, AT, array("d", [1.0] * 3), array("I", [100] * 3)))
    assert found.history.next_lease == 10
    assert found.locations.lease[:3].tolist() == [7, 8, 9]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", some([range(300, 308), range(308, 360)], 1))
def test_simulated_histories_are_the_same_with_an_index(
    ways: Ways, monkeypatch: pytest.MonkeyPatch, seeds: range
) -> None:
    simulated_lives(monkeypatch, seeds, ways.compare)
    assert ways.used


@pytest.mark.parametrize("seed", some(range(12), 4))
def test_histories_of_all_kinds_are_the_same_with_an_index(ways: Ways, seed: int) -> None:
    rng = random.Random(seed)

    def end(made: Made, disk: FakeDisk) -> None:
        if rng.random() < 0.3:
            made.store.table.open_leases.clear()
            made.finish()
        made.die()

    lives(rng, ways.compare, end)


def a_killed_run(disk: FakeDisk, *, checkpoint: bool = False) -> Made:
    """Four stretches, and lines after the last one."""
    made = Made(HERE, disk).create(IDS)
    for at in range(0, 50, 5):
        complete_together(made, IDS[at : at + 5])
        if at == 10:
            made.hand_out(IDS[50], IDS[51])
            made.end(IDS[50], outcome="raised")
            if checkpoint:
                made.checkpoint()
    made.die()
    return made


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


def stretches_of(made: Made, disk: FakeDisk) -> list[bytes]:
    return disk.content(made.layout.stretches).splitlines(keepends=True)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_only_what_is_no_run_and_what_follows_the_last_stretch_is_read(
    ways: Ways, disk: FakeDisk, checkpoint: bool
) -> None:
    made = a_killed_run(disk, checkpoint=checkpoint)
    assert len(stretches_of(made, disk)) >= 4
    found = ways.compare(made.layout, disk)
    assert ways.used >= (5 if checkpoint else 8)
    assert len(completed(found)) == 50
    assert [found.table.ids[job] for job in found.running()] == [IDS[51]]
    assert not found.findings


def flip(disk: FakeDisk, path: Path, at: float) -> None:
    data = disk.files[str(path)].data
    data[int(at * (len(data) - 1))] ^= 1


@pytest.mark.parametrize("at", [0.0, 0.02, 0.3, 0.5, 0.9, 1.0])
def test_a_damaged_line_of_the_index_and_what_follows_it_are_passed_over(
    ways: Ways, disk: FakeDisk, at: float
) -> None:
    made = a_killed_run(disk)
    ways.compare(made.layout, disk).close()
    whole, ways.used = ways.used, 0
    flip(disk, made.layout.stretches, at)
    found = ways.compare(made.layout, disk)
    assert ways.used < whole or at == 1.0  # there it is the newline
    assert len(completed(found)) == 50 and not found.findings


def test_an_index_that_is_torn_serves_up_to_there(ways: Ways, disk: FakeDisk) -> None:
    made = a_killed_run(disk)
    lines = stretches_of(made, disk)
    data = disk.files[str(made.layout.stretches)].data
    used = []
    for left in (0, len(lines[0]) - 2, len(lines[0]), len(lines[0]) + 40, len(data)):
        ways.used = 0
        data[:] = b"".join(lines)[:left]
        ways.compare(made.layout, disk).close()
        used.append(ways.used)
    assert used == sorted(used) and used[1] == 0 < used[2] == used[3] < used[4]


@pytest.mark.parametrize("at", [0.05, 0.2, 0.4, 0.6, 0.99])
def test_damage_in_the_journal_is_found_as_without_an_index(ways: Ways, disk: FakeDisk, at: float) -> None:
    made = a_killed_run(disk)
    flip(disk, made.layout.journal, at)
    found = ways.compare(made.layout, disk)
    assert found.journal_state in ("damaged", "torn")
    assert len(completed(found)) >= 45


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.8, 0.97])
def test_a_journal_that_a_power_cut_has_shortened_is_read_as_far_as_it_goes(
    ways: Ways, disk: FakeDisk, kept: float
) -> None:
    made = a_killed_run(disk)
    data = disk.files[str(made.layout.journal)].data
    del data[int(len(data) * kept) :]
    ways.compare(made.layout, disk).close()
    made = Made(HERE, disk).resume(plan_of(IDS))  # another line than the one that is lost
    made.note("other")
    made.die()
    ways.compare(made.layout, disk).close()


def test_one_of_another_generation_is_passed_over(ways: Ways, disk: FakeDisk) -> None:
    made = a_killed_run(disk)
    kept = disk.content(made.layout.stretches)
    flip(disk, made.layout.journal, 0.5)
    made = Made(HERE, disk).resume(plan_of(IDS))
    made.die()
    disk.files[str(made.layout.stretches)].data[:] = kept
    ways.used = 0
    ways.compare(made.layout, disk).close()
    assert not ways.used


def test_jobs_that_stand_in_another_order_are_not_taken_for_others(ways: Ways, disk: FakeDisk) -> None:
    made = a_killed_run(disk)
    lines = disk.content(made.layout.plan).splitlines(keepends=True)
    disk.files[str(made.layout.plan)].data[:] = b"".join(lines[::-1])
    assert len(completed(ways.compare(made.layout, disk))) == 50
    assert not ways.used


def test_jobs_that_are_new_in_the_plan_change_nothing_for_the_others(ways: Ways, disk: FakeDisk) -> None:
    made = a_killed_run(disk)
    twice = b'{"id":"new","domain":null,"params":{}}\n' * 2
    disk.files[str(made.layout.plan)].data += twice
    found = ways.compare(made.layout, disk)
    assert ways.used and len(found.table) == len(IDS) + 1
    assert len(completed(found)) == 50


def test_what_became_of_a_job_after_its_run_of_lines_is_not_lost(
    ways: Ways, disk: FakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_stretches, "STRETCH", 5000)
    made = Made(HERE, disk).create(IDS)
    complete_together(made, IDS[:5])
    reset(made, IDS[:5], "rerun")
    complete_together(made, IDS[2:4])
    complete_together(made, IDS[10:20])
    made.note("x" * 5000)
    made.die()
    found = ways.compare(made.layout, disk)
    assert ways.used == 1  # that of the last ten
    assert completed(found).keys() == {*IDS[2:4], *IDS[10:20]}


def test_a_run_that_goes_on_after_a_kill_makes_it_anew(ways: Ways, disk: FakeDisk) -> None:
    first = a_killed_run(disk)
    before = disk.content(first.layout.stretches)
    made = Made(HERE, disk).resume(plan_of(IDS))
    assert disk.content(made.layout.stretches) == before  # of use until there is another one
    complete_together(made, IDS[52:57])
    made.note("x" * 2000)
    made.die()
    assert disk.content(made.layout.stretches) != before
    disk.remove(str(made.layout.checkpoint))
    ways.used = 0
    assert len(completed(ways.compare(made.layout, disk))) == 55
    assert ways.used == 1


def test_a_disk_that_has_no_room_for_an_index_does_without(disk: FakeDisk, ways: Ways) -> None:
    made = Made(HERE, disk).create(IDS)
    opened = disk.open

    def refused(path: str, flags: int, mode: int = 0o666) -> int:
        if "stretches" in path:
            raise OSError(28, "no space")
        return opened(path, flags, mode)

    disk.open = refused  # type: ignore[method-assign]
    for at in range(0, 50, 5):
        complete_together(made, IDS[at : at + 5])
    made.die()
    assert not made.store.notices and not disk.exists(str(made.layout.stretches))
    assert len(completed(ways.compare(made.layout, disk))) == 50


def test_the_journal_of_a_new_generation_has_none(disk: FakeDisk, ways: Ways) -> None:
    made = Made(HERE, disk).create(IDS)
    complete_together(made, IDS[:5])
    made.store._regenerate(OSError(5, "Input/output error"))
    for at in range(5, 50, 5):
        complete_together(made, IDS[at : at + 5])
    made.die()
    assert len(completed(ways.compare(made.layout, disk))) == 50
    assert not ways.used


def test_small_experiments_have_none(monkeypatch: pytest.MonkeyPatch, disk: FakeDisk) -> None:
    monkeypatch.setattr(journal_stretches, "STRETCH", 8 << 20)
    made = a_killed_run(disk)
    assert not disk.exists(str(made.layout.stretches))


def test_a_batch_that_is_no_run_counts_as_other_lines(disk: FakeDisk, ways: Ways) -> None:
    made = Made(HERE, disk).create(IDS)
    complete_together(made, IDS[4:0:-1])
    complete_together(made, IDS[10:20])
    complete_together(made, IDS[20:30])
    made.die()
    assert len(completed(ways.compare(made.layout, disk))) == 24
    assert ways.used
    assert isinstance(made.store._stretches, StretchWriter)
