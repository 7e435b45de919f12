"""Random histories of an experiment on a disk, and the comparison of what two surveys come to."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.records import Completions, Leased, Reset
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.recovery.recovered_experiment import Recovered
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
        "places": {
            column: [getattr(locations, column)[job] for job in finished]
            for column in ("origin", "recorded_state", "offset", "length", "lease")
        },
        "facts": vars(found.history),
        "statistics": found.statistics,
        "found": (found.journal_state, found.checkpoint_state, found.last_n, found.gaps, found.findings),
        "identity": found.identity,
    }


def assert_same(one: Recovered, other: Recovered, *, leases: bool = True) -> None:
    """Both surveys have come to the same. Without `leases` those of finished jobs are not compared."""
    first, second = state_of(one), state_of(other)
    for state in (first, second):
        if not leases:
            del state["places"]["lease"]
    for key in first:
        assert first[key] == second[key], key
    assert completed(one) == completed(other)


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


def simulated_lives(
    monkeypatch: pytest.MonkeyPatch,
    seeds: range,
    compare: Callable[[Layout, Disk | None], Recovered],
) -> None:
    """The simulation's histories of these seeds; compared at each resume in them."""
    monkeypatch.setattr(simulated, "survey", compare)
    for seed in seeds:
        simulated.play(seed)


def lives(
    rng: random.Random,
    compare: Callable[[Layout, FakeDisk], Recovered],
    end: Callable[[Made, FakeDisk], None],
) -> None:
    """Six runs of one experiment, a part of whose plan changes each time; compared after each death and each resume.

    `end` writes what a run writes last, and lets it die.
    """
    disk = FakeDisk()
    made = Made(HERE, disk).create(IDS)
    ids = list(IDS)
    for _ in range(6):
        for _ in range(rng.randint(5, 40)):
            live(made, rng, ids)
        made.sync()
        end(made, disk)
        compare(made.layout, disk).close()
        ids = [job_id for job_id in ids if rng.random() > 0.02 * rng.randint(0, 2)]
        if rng.random() < 0.3:
            ids.append(f"new/{len(ids)}-{rng.random()}")
        made = Made(HERE, disk).resume(plan_of(ids))
        compare(made.layout, disk).close()
