"""A journal that is whole is read alone: what comes of it is what comes of both files."""

from __future__ import annotations

import random
from typing import Any

import pytest

from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.recovery import replayer
from supervisor.storage.recovery.journal_only import JournalOnlyRecovery
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.storage.recovery.survey import survey
from tests.conftest import some
from tests.storage.fake_disk import FakeDisk
from tests.storage.histories import (
    HERE,
    IDS,
    assert_same,
    complete_together,
    live,
    lives,
    simulated_lives,
    state_of,
)
from tests.storage.made import Made, completed

pytestmark = pytest.mark.slow


class Ways:
    """Both ways of one survey, compared; `alone` counts how often the journal was enough."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alone = self.together = 0
        self._read = JournalOnlyRecovery.read
        self._patch = monkeypatch

    def compare(self, layout: Layout, disk: Disk | None = None) -> Recovered:
        self._patch.setattr(JournalOnlyRecovery, "read", lambda _: False)
        together = survey(layout, disk)
        self._patch.setattr(JournalOnlyRecovery, "read", self._counted())
        found = survey(layout, disk)
        assert_same(together, found)
        together.close()
        return found

    def _counted(self) -> Any:
        def read(whole: JournalOnlyRecovery) -> bool:
            trusted = self._read(whole)
            self.alone += trusted
            self.together += not trusted
            return trusted

        return read


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", some([range(8), range(8, 50), range(50, 100)], 1))
def test_simulated_histories_are_read_the_same_both_ways(
    ways: Ways, monkeypatch: pytest.MonkeyPatch, seeds: range
) -> None:
    simulated_lives(monkeypatch, seeds, ways.compare)
    assert ways.alone > ways.together


@pytest.mark.parametrize("seed", some(range(12), 4))
def test_histories_of_all_kinds_are_read_the_same_both_ways(ways: Ways, seed: int) -> None:
    rng = random.Random(seed)

    def end(made: Made, disk: FakeDisk) -> None:
        ending = rng.random()
        if ending < 0.3:
            made.checkpoint()
        if ending < 0.6:
            made.store.table.open_leases.clear()
            made.finish()
        made.die()
        if rng.random() < 0.3:  # a new generation at the next resume
            text = disk.files[str(made.layout.journal)].data
            text[text.index(b"\n", len(text) // 2) - 30] ^= 1

    lives(rng, ways.compare, end)
    assert ways.alone


def test_what_does_not_agree_is_read_together(ways: Ways) -> None:
    disk = FakeDisk()
    made = Made(HERE, disk).create(IDS)
    complete_together(made, IDS[:20])
    made.checkpoint()
    complete_together(made, IDS[20:30])
    made.sync()
    made.die()
    ways.compare(made.layout, disk).close()
    assert (ways.alone, ways.together) == (1, 0)
    path = str(made.layout.journal)
    lines = disk.content(path).splitlines(keepends=True)
    disk.files[path].data[:] = b"".join(lines[:10] + lines[11:])
    found = ways.compare(made.layout, disk)
    assert (ways.alone, ways.together) == (1, 1)
    assert found.needs_generation
    assert len(completed(found)) == 30


@pytest.mark.parametrize("few", [0, 1, 1000])
def test_runs_are_taken_as_their_records_one_by_one(
    ways: Ways, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(replayer, "_FEW", few)
    rng = random.Random(few)
    disk = FakeDisk()
    made = Made(HERE, disk).create(IDS)
    for _ in range(60):
        live(made, rng, IDS)
    made.sync()
    in_columns = ways.compare(made.layout, disk)
    monkeypatch.setattr(
        replayer.Replayer,
        "take",
        lambda replayer, start, lines: [replayer._take_line(*row) for row in each(start, lines)],
    )
    singly = ways.compare(made.layout, disk)
    assert state_of(in_columns) == state_of(singly)


def each(start: int, lines: list[bytes]) -> Any:
    for line in lines:
        yield start, line
        start += len(line) + 1
