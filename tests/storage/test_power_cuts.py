"""The machine stops at any operation of the disk, and what was not synced is lost or torn.

What was told as synced before the cut must be there after the next boot, whatever else is.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from supervisor.core.terms.errors import UnusableCheckpoint
from supervisor.core.terms.events import Synced
from supervisor.storage.recovery.survey import survey
from tests.conftest import some
from tests.storage.fake_disk import FakeDisk, PowerCut
from tests.storage.made import Made, completed, expected, plan_of

IDS = [f"iris/{number}" for number in range(12)]
HERE = Path("/fake")


class Story:
    """One run, up to the power cut; knows what it was told is safe."""

    def __init__(self, disk: FakeDisk, seed: int) -> None:
        self.disk = disk
        self.chance = random.Random(seed)
        self.safe: set[str] = set()
        self.recorded: list[tuple[int, str]] = []
        self.created = False

    def play(self, made: Made, ids: list[str], *, resume: bool) -> None:
        try:
            if resume:
                made.resume(plan_of(ids))
            else:
                made.create(ids)
            self.created = True
            self._work(made, ids)
            made.finish()
            self.safe.update(job_id for _, job_id in self.recorded)
        except PowerCut:
            pass

    def _work(self, made: Made, ids: list[str]) -> None:
        table = made.store.table
        left = [job_id for job_id in ids if table.state[table.numbers[job_id]] not in (3, 4)]
        for job_id in left:
            made.hand_out(job_id)
            made.end(job_id)
            self.recorded.append((made.store.next_n - 1, job_id))
            if self.chance.random() < 0.5:
                made.sync()
            if self.chance.random() < 0.3 and not made.store._checkpoints.busy:
                made.store.begin_checkpoint(made.position(), 0.0)
                while made.store.work(1.0):
                    pass
            for event in made.store.poll(0.0):
                if isinstance(event, Synced):
                    self.safe.update(known for n, known in self.recorded if n <= event.n)


def boot(disk: FakeDisk, seed: int) -> FakeDisk:
    return disk.after_power_cut(seed)


@pytest.mark.parametrize("seed", some(range(3), 1))
def test_a_power_cut_at_any_operation_loses_nothing_that_was_synced(seed: int) -> None:
    """D5: on a disk that forgets, tears and reorders whatever was not synced."""
    whole = FakeDisk()
    Story(whole, seed).play(Made(HERE, whole), IDS, resume=False)
    for cut in range(whole.operations):
        disk = FakeDisk()
        disk.cut_at = cut
        story = Story(disk, seed)
        story.play(Made(HERE, disk), IDS, resume=False)
        later = boot(disk, seed * 1000 + cut)
        try:
            found = survey(Made(HERE, later).layout, later)
        except UnusableCheckpoint:
            assert not story.created
            assert not story.safe
            continue
        assert story.safe <= set(completed(found)), cut
        assert completed(found).items() <= expected(IDS).items()


@pytest.mark.parametrize("seed", some(range(4), 2))
def test_cut_after_cut_the_experiment_is_finished_in_the_end(seed: int) -> None:
    chance = random.Random(seed)
    disk = FakeDisk()
    Made(HERE, disk).create(IDS)
    safe: set[str] = set()
    for number in range(25):
        disk.cut_at = disk.operations + chance.randint(1, 30)
        story = Story(disk, seed * 100 + number)
        story.play(Made(HERE, disk), IDS, resume=True)
        safe |= story.safe
        disk = boot(disk, chance.randint(0, 1 << 30))
        done = completed(survey(Made(HERE, disk).layout, disk))
        assert safe <= set(done), number
    disk.cut_at = None
    story = Story(disk, seed)
    story.play(Made(HERE, disk), IDS, resume=True)
    assert completed(survey(Made(HERE, disk).layout, disk)) == expected(IDS)


@pytest.mark.parametrize("victim", ["journal", "checkpoint"])
def test_a_power_cut_in_the_middle_of_a_repair_loses_nothing(victim: str) -> None:
    whole = FakeDisk()
    made = Made(HERE, whole).create(IDS)
    made.end(*IDS[:6])
    made.sync()
    made.checkpoint()
    made.die()
    path = made.layout.journal if victim == "journal" else made.layout.checkpoint
    whole.files[str(path)].data[400] ^= 0xFF
    for file in whole.files.values():
        file.safe = bytes(file.data)
    probe = whole.after_power_cut(0)
    Made(HERE, probe).resume()
    for cut in range(probe.operations + 1):
        disk = whole.after_power_cut(0)
        disk.cut_at = cut
        with contextlib.suppress(PowerCut):
            Made(HERE, disk).resume()
        later = boot(disk, cut)
        again = Made(HERE, later).resume()
        again.finish()
        assert expected(IDS[:6]).items() <= completed(survey(made.layout, later)).items(), cut
