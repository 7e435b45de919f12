"""What the columns of a plan say is what reading its lines comes to."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.plan import plan_columns
from supervisor.storage.plan.plan_file import PlanFile
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.storage.recovery.survey import survey
from tests.conftest import some
from tests.storage.fake_disk import FakeDisk
from tests.storage.histories import HERE, IDS, assert_same, complete_together, lives, simulated_lives
from tests.storage.made import Made, completed, plan_of


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_columns, "ENOUGH", 1)


class Ways:
    """The same survey with the columns and without them. `used`: how often there were some of this plan."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used = 0
        self._patch = monkeypatch

    def compare(self, layout: Layout, disk: Disk | None = None) -> Recovered:
        with self._patch.context() as patch:
            patch.setattr(PlanFile, "in_columns", lambda *_: None)
            without = survey(layout, disk)
        found = survey(layout, disk)
        assert_same(without, found)
        plan, other = found.plan, without.plan
        assert (plan is None) == (other is None)
        if plan is not None and other is not None:
            self.used += plan._has_columns
            assert (plan.offsets, plan.lengths, plan.size) == (other.offsets, other.lengths, other.size)
            assert (plan.damaged, plan.torn, plan._in_order) == (other.damaged, other.torn, other._in_order)
            assert (plan.repeatable(found.table) is None) == (other.repeatable(without.table) is None)
        without.close()
        return found


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", some([range(400, 404), range(404, 440)], 1))
def test_simulated_histories_are_the_same_with_columns(
    ways: Ways, monkeypatch: pytest.MonkeyPatch, seeds: range
) -> None:
    simulated_lives(monkeypatch, seeds, ways.compare)
    assert ways.used


@pytest.mark.parametrize("seed", some(range(12), 4))
def test_histories_of_all_kinds_are_the_same_with_columns(ways: Ways, seed: int) -> None:
    """The script's plan changes from run to run."""
    lives(random.Random(seed), ways.compare, lambda made, _: made.die())
    assert ways.used


def a_killed_run(disk: FakeDisk) -> Made:
    made = Made(HERE, disk).create(IDS)
    complete_together(made, IDS[:20])
    made.die()
    return made


def test_no_line_of_the_plan_is_decoded(ways: Ways, disk: FakeDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    made = a_killed_run(disk)
    ways.compare(made.layout, disk).close()
    assert ways.used == 1
    monkeypatch.setattr(PlanFile, "_take_group", None)
    monkeypatch.setattr(PlanFile, "_take_lines", None)
    assert len(completed(survey(made.layout, disk))) == 20


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("which", ["columns", "plan"])
def test_a_flipped_bit_in_either_file_is_noticed(ways: Ways, disk: FakeDisk, which: str, at: float) -> None:
    made = a_killed_run(disk)
    data = disk.files[str(getattr(made.layout, which))].data
    data[int(at * (len(data) - 1))] ^= 1
    assert len(completed(ways.compare(made.layout, disk))) == 20
    assert not ways.used


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_torn_columns_are_passed_over(ways: Ways, disk: FakeDisk, kept: float) -> None:
    made = a_killed_run(disk)
    data = disk.files[str(made.layout.columns)].data
    del data[int(len(data) * kept) :]
    assert len(completed(ways.compare(made.layout, disk))) == 20
    assert not ways.used


def test_columns_of_another_plan_are_passed_over(ways: Ways, disk: FakeDisk) -> None:
    """The same ids, of the same lengths, in another order: as many bytes."""
    made = a_killed_run(disk)
    lines = disk.content(made.layout.plan).splitlines(keepends=True)
    disk.files[str(made.layout.plan)].data[:] = b"".join(lines[::-1])
    assert len(completed(ways.compare(made.layout, disk))) == 20
    assert not ways.used


def test_a_kill_between_a_longer_plan_and_its_columns_leaves_those_that_do_not_count(
    ways: Ways, disk: FakeDisk
) -> None:
    made = a_killed_run(disk)
    before = disk.content(made.layout.columns)
    made = Made(HERE, disk).resume(plan_of([*IDS, "new/1"]))
    complete_together(made, ["new/1"])
    made.die()
    found = ways.compare(made.layout, disk)
    assert ways.used == 1 and len(found.table) == len(IDS) + 1
    found.close()
    disk.files[str(made.layout.columns)].data[:] = before
    assert len(completed(ways.compare(made.layout, disk))) == 21
    assert ways.used == 1


def test_a_run_makes_them_anew_where_they_are_gone(ways: Ways, disk: FakeDisk) -> None:
    made = a_killed_run(disk)
    before = disk.content(made.layout.columns)
    disk.remove(str(made.layout.columns))
    made = Made(HERE, disk).resume(plan_of(IDS))
    made.die()
    assert disk.content(made.layout.columns) == before
    ways.compare(made.layout, disk).close()
    assert ways.used == 1


def test_a_plan_that_tells_of_jobs_that_are_gone_has_none(ways: Ways, disk: FakeDisk) -> None:
    made = a_killed_run(disk)
    disk.remove(str(made.layout.columns))
    made = Made(HERE, disk).resume(plan_of(IDS[:-3]))
    made.die()
    assert not disk.exists(str(made.layout.columns))
    assert ways.compare(made.layout, disk).table.gone() == 3


def test_a_disk_that_has_no_room_for_them_does_without(ways: Ways, disk: FakeDisk) -> None:
    opened = disk.open

    def refused(path: str, flags: int, mode: int = 0o666) -> int:
        if Path(path).name.startswith(".jobs_"):
            raise OSError(28, "no space")
        return opened(path, flags, mode)

    disk.open = refused  # type: ignore[method-assign]
    made = a_killed_run(disk)
    assert not made.store.notices and not disk.exists(str(made.layout.columns))
    assert len(completed(ways.compare(made.layout, disk))) == 20


def test_small_experiments_have_none(monkeypatch: pytest.MonkeyPatch, disk: FakeDisk) -> None:
    monkeypatch.setattr(plan_columns, "ENOUGH", len(IDS) + 1)
    made = a_killed_run(disk)
    assert not disk.exists(str(made.layout.columns))
