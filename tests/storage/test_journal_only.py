"""A journal that is whole is read alone: what comes of it is what comes of both files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.records import Completions, Leased, Reset
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.recovery import replayer
from supervisor.storage.recovery.journal_only import JournalOnlyRecovery
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.storage.recovery.survey import survey
from tests.storage.fake_disk import FakeDisk
from tests.storage.made import AT, Made, completed, plan_of
from tools.simulation import history as simulated

HERE = Path("/fake")
IDS = [f"iris/{number}" for number in range(60)]


def state_of(found: Recovered) -> dict[str, Any]:
    """All that a resume goes by."""
    table, locations = found.table, found.locations
    finished = [job for job, state in enumerate(table.state) if state in (COMPLETED, FAILED)]
    return {
        "jobs": (table.ids, table.numbers, table.domains, table.domain_of, table.wanted),
        "states": (table.state, table.attempts, table.seconds, table.outcome, table.charges),
        "leases": table.open_leases,
        "places": [
            [column[job] for job in finished]
            for column in (
                locations.origin,
                locations.recorded_state,
                locations.offset,
                locations.length,
                locations.lease,
            )
        ],
        "facts": vars(found.history),
        "statistics": found.statistics,
        "found": (found.journal_state, found.checkpoint_state, found.last_n, found.gaps, found.findings),
        "identity": found.identity,
    }


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
        one, other = state_of(together), state_of(found)
        for key in one:
            assert one[key] == other[key], key
        assert completed(found) == completed(together)
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


@pytest.mark.parametrize("start", range(0, 100, 25))
def test_simulated_histories_are_read_the_same_both_ways(
    ways: Ways, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    monkeypatch.setattr(simulated, "survey", ways.compare)
    for seed in range(start, start + 25):
        simulated.play(seed)
    assert ways.alone > ways.together


def complete_together(made: Made, ids: list[str]) -> None:
    """As the core records what a worker has sent at once."""
    table = made.store.table
    jobs = [table.numbers[job_id] for job_id in ids]
    first = made.lease
    made.store.append([Leased(0, made.incarnation, first, ids, AT)])
    made.lease += len(ids)
    seconds = [0.1 * (job + 1) for job in jobs]
    attempts = table.complete(jobs, seconds)
    for job in jobs:
        table.outcome.pop(job, None)
    results = [b'{"of":"%b","x":1}' % job_id.encode() for job_id in ids]
    leases = list(range(first, first + len(ids)))
    made.store.append([Completions(0, AT, jobs, ids, attempts, seconds, results, leases)])


def reset(made: Made, ids: list[str], why: Any) -> None:
    table = made.store.table
    for job_id in ids:
        table.reset(table.numbers[job_id], forget_charges=why != "retry")
    made.store.append([Reset(ids, why, AT)])


def live(made: Made, rng: random.Random, ids: list[str]) -> None:
    """Something that happens in a run."""
    table = made.store.table

    def some(*states: int) -> list[str]:
        return [job_id for job_id in ids if table.state[table.numbers[job_id]] in states]

    open_jobs = {job for leases in made.open.values() for job in leases.values()}
    free = [job_id for job_id in some(0, 2) if table.numbers[job_id] not in open_jobs]
    what = rng.random()
    if what < 0.35 and free:
        at = rng.randrange(len(free))
        complete_together(made, free[at : at + rng.randint(1, 12)])
    elif what < 0.5 and free:
        made.hand_out(*rng.sample(free, min(3, len(free))))
    elif what < 0.75 and open_jobs:
        outcome, state = rng.choice(
            [
                ("completed", ""),
                ("raised", "failed"),
                ("raised", "pending"),
                ("crashed", "pending"),
                ("interrupted", "in_progress"),
                ("cancelled", "failed"),
            ]
        )
        made.end(table.ids[rng.choice(sorted(open_jobs))], outcome=outcome, state=state)
    elif what < 0.82 and (failed := some(FAILED)):
        reset(made, failed[:3], "retry")
    elif what < 0.88 and (done := some(COMPLETED)):
        reset(made, done[-2:], "rerun")
    elif what < 0.95:
        made.checkpoint()
    else:
        made.note("something")


@pytest.mark.parametrize("seed", range(12))
def test_histories_of_all_kinds_are_read_the_same_both_ways(ways: Ways, seed: int) -> None:
    rng = random.Random(seed)
    disk = FakeDisk()
    made = Made(HERE, disk).create(IDS)
    ids = list(IDS)
    for _ in range(6):
        for _ in range(rng.randint(5, 40)):
            live(made, rng, ids)
        ending = rng.random()
        made.sync()
        if ending < 0.3:
            made.checkpoint()
        if ending < 0.6:
            made.store.table.open_leases.clear()
            made.finish()
        made.die()
        if rng.random() < 0.3:  # a new generation at the next resume
            path = str(made.layout.journal)
            text = disk.files[path].data
            text[text.index(b"\n", len(text) // 2) - 30] ^= 1
        ways.compare(made.layout, disk).close()
        gone = rng.randint(0, 3)
        ids = [job_id for job_id in ids if rng.random() > 0.02 * gone]
        made = Made(HERE, disk).resume(plan_of(ids))
        ways.compare(made.layout, disk).close()
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
