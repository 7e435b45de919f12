"""What the index says of a journal is what reading that journal comes to."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from supervisor.storage.checkpoint import checkpoint_writer, journal_index
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.recovery.journal_only import JournalOnlyRecovery
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.storage.recovery.survey import survey
from tests.conftest import some
from tests.storage.fake_disk import FakeDisk
from tests.storage.histories import HERE, IDS, assert_same, complete_together, lives, simulated_lives
from tests.storage.made import Made, completed, expected, plan_of

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "ENOUGH", 0)
    monkeypatch.setattr(journal_index, "_BLOCK", 7)


class Ways:
    """The same survey with the index and without it; `used` counts how often there was one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used = self.not_used = 0
        self._agrees = JournalOnlyRecovery.agrees_with
        self._patch = monkeypatch

    def compare(self, layout: Layout, disk: Disk | None = None) -> Recovered:
        self._patch.setattr(JournalOnlyRecovery, "agrees_with", lambda *_: False)
        without = survey(layout, disk)
        self._patch.setattr(JournalOnlyRecovery, "agrees_with", self._counted())
        used = self.used
        found = survey(layout, disk)
        self.not_used += self.used == used
        assert_same(without, found, leases=False)  # leases: compared with a checkpoint's, which agrees
        assert found.scan is None or without.scan is None or found.scan.checksum == without.scan.checksum
        without.close()
        return found

    def _counted(self) -> Any:
        def agrees(whole: JournalOnlyRecovery, found: journal_index.Index) -> bool:
            agreed = self._agrees(whole, found)
            self.used += agreed
            return agreed

        return agrees


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", some([range(200, 208), range(208, 260)], 1))
def test_simulated_histories_are_the_same_with_an_index(
    ways: Ways, monkeypatch: pytest.MonkeyPatch, seeds: range
) -> None:
    simulated_lives(monkeypatch, seeds, ways.compare)
    assert ways.used


@pytest.mark.parametrize("seed", some(range(12), 4))
def test_histories_of_all_kinds_are_the_same_with_an_index(ways: Ways, seed: int) -> None:
    rng = random.Random(seed)

    def end(made: Made, disk: FakeDisk) -> None:
        if rng.random() < 0.6:
            made.checkpoint()
        if rng.random() < 0.5:
            made.store.table.open_leases.clear()
            made.finish()
        made.die()

    lives(rng, ways.compare, end)
    assert ways.used


def a_finished_experiment() -> tuple[Made, FakeDisk]:
    disk = FakeDisk()
    made = Made(HERE, disk).create(IDS)
    complete_together(made, IDS[:20])
    made.hand_out(IDS[20], IDS[21])
    made.end(IDS[20], outcome="raised")
    made.checkpoint()
    complete_together(made, IDS[30:40])
    made.sync()
    made.die()
    return made, disk


def flip(disk: FakeDisk, path: Path, at: float) -> None:
    data = disk.files[str(path)].data
    data[int(at * (len(data) - 1))] ^= 1


def test_an_index_saves_reading_what_stands_before_the_checkpoint(
    ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, disk = a_finished_experiment()
    ways.compare(made.layout, disk).close()
    assert (ways.used, ways.not_used) == (1, 0)
    monkeypatch.setattr(JournalOnlyRecovery, "read", lambda _: pytest.fail("the journal was read"))
    found = survey(made.layout, disk)
    assert len(completed(found)) == 30
    assert [found.table.ids[job] for job in found.table.outcome] == [IDS[20]]
    assert [found.table.ids[job] for job in found.running()] == [IDS[21]]


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_a_damaged_index_is_passed_over(ways: Ways, at: float) -> None:
    made, disk = a_finished_experiment()
    flip(disk, made.layout.index, at)
    found = ways.compare(made.layout, disk)
    assert (ways.used, ways.not_used) == (0, 1)
    assert not found.findings
    assert len(completed(found)) == 30


@pytest.mark.parametrize("left", [0, 1, 20, 100, 1000])
def test_an_index_that_is_cut_short_is_passed_over(ways: Ways, left: int) -> None:
    made, disk = a_finished_experiment()
    del disk.files[str(made.layout.index)].data[left:]
    ways.compare(made.layout, disk).close()
    assert (ways.used, ways.not_used) == (0, 1)


def test_one_of_another_checkpoint_is_passed_over(ways: Ways) -> None:
    made, disk = a_finished_experiment()
    kept = disk.content(made.layout.index)
    made = Made(HERE, disk).resume(plan_of(IDS))
    complete_together(made, IDS[40:50])
    made.checkpoint()
    made.die()
    disk.files[str(made.layout.index)].data[:] = kept
    ways.compare(made.layout, disk).close()
    assert (ways.used, ways.not_used) == (0, 1)


@pytest.mark.parametrize("at", [0.05, 0.3, 0.6, 0.95])
def test_damage_in_the_journal_is_found_as_without_an_index(ways: Ways, at: float) -> None:
    made, disk = a_finished_experiment()
    flip(disk, made.layout.journal, at)
    found = ways.compare(made.layout, disk)
    assert found.needs_generation
    assert completed(found).keys() >= expected(IDS[:20]).keys()
    made = Made(HERE, disk).resume(plan_of(IDS))
    assert made.store.table.state.count(3) >= 20


def test_jobs_that_stand_in_another_order_are_not_taken_for_others(ways: Ways) -> None:
    made, disk = a_finished_experiment()
    lines = disk.content(made.layout.plan).splitlines(keepends=True)
    disk.files[str(made.layout.plan)].data[:] = b"".join(lines[::-1])
    found = ways.compare(made.layout, disk)
    assert (ways.used, ways.not_used) == (0, 1)
    assert completed(found).keys() == {*IDS[:20], *IDS[30:40]}


def test_every_run_leaves_an_index_that_the_next_one_can_use(ways: Ways) -> None:
    made, disk = a_finished_experiment()
    for _ in range(3):
        made = Made(HERE, disk).resume(plan_of(IDS))
        made.finish()
        ways.compare(made.layout, disk).close()
    assert ways.used >= 3 and not ways.not_used


def test_a_disk_that_has_no_room_for_an_index_does_without(
    ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FakeDisk()
    made = Made(HERE, disk).create(IDS)
    complete_together(made, IDS[:20])
    monkeypatch.setattr(
        journal_index, "write_atomically", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "no space"))
    )
    made.checkpoint()
    made.die()
    assert not made.store.notices
    ways.compare(made.layout, disk).close()
    assert (ways.used, ways.not_used) == (0, 1)


def test_small_experiments_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "ENOUGH", journal_index.ENOUGH)
    made, disk = a_finished_experiment()
    assert disk.exists(str(made.layout.checkpoint))
    assert not disk.exists(str(made.layout.index))


@pytest.mark.parametrize("change", ["relabelled", "gone", "torn"])
def test_a_plan_with_more_in_it_than_a_line_for_each_job_is_read_with_care(ways: Ways, change: str) -> None:
    made, disk = a_finished_experiment()
    plan = disk.files[str(made.layout.plan)].data
    if change == "relabelled":
        plan += plan[: plan.index(b"\n") + 1].replace(b'"domain":"iris"', b'"domain":"rose"')
    elif change == "gone":
        plan += b'{"id":"iris/59","gone":true}\n'
    else:
        plan += b'{"id":"ir'
    found = ways.compare(made.layout, disk)
    assert (ways.used, ways.not_used) == (1, 0)
    table = found.table
    assert table.ids == IDS
    assert [table.numbers[job_id] for job_id in IDS] == list(range(60))
    assert found.counts().total == (59 if change == "gone" else 60)
    assert ("rose" in table.domains) == (change == "relabelled")
    made = Made(HERE, disk).resume(plan_of(IDS))
    assert made.store.plan.line(0)


def test_a_new_job_behind_the_others_has_no_place_in_the_index(ways: Ways) -> None:
    made, disk = a_finished_experiment()
    disk.files[str(made.layout.plan)].data += b'{"id":"iris/60","domain":"iris","params":{}}\n'
    ways.compare(made.layout, disk).close()
    assert (ways.used, ways.not_used) == (0, 1)
