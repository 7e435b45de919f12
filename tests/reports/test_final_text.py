"""The lines of logs_final.json: those that are made of the bytes of plan and journal are what the reference makes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import msgspec
import pytest

from supervisor.core.terms.code_spans import CodeSpan
from supervisor.core.terms.jobs import OwnSettings
from supervisor.core.terms.needs import Needs
from supervisor.core.terms.records import Completions, Ended, Leased
from supervisor.reports import final_text as module
from supervisor.reports.report import Report
from supervisor.reports.result_reader import Results
from supervisor.storage.plan.plan_builder import PlanBuilder
from tests.storage.made import AT, Made
from workers.transport.messages import CompletedWith

ODD = ['a","result":1', '"}\n{"id":"x', "ü/\u2028", '\\","params":{}}', "}\n", "\x00\x7f", "😀" * 30]
RESULTS: list[Any] = [
    None,
    1.5,
    "x",
    {"a": 1, "result": 2, "attempt": 3},
    [{"crc": "00000000"}],
    {},
    "y" * 3000,
]
COMPLETE = 1400  # jobs that fill two groups, and more


def plan(ids: Sequence[str], **own: OwnSettings) -> PlanBuilder:
    builder = PlanBuilder()
    for number, job_id in enumerate(ids):
        params = msgspec.json.encode({"n": number, "params": {"id": job_id}})
        domain = ("", "iris", "d\u00fc")[number % 3] or None
        builder.add(job_id, domain, params, *([own[job_id]] if job_id in own else []))
    return builder


def complete(made: Made, jobs: Sequence[int], chance: Random, more: dict[int, CompletedWith]) -> None:
    """Their outcomes in turns of random size and order, as workers send them."""
    table = made.store.table
    order = list(jobs)
    for at in range(0, len(order), 64):
        piece = order[at : at + 64]
        if chance.random() < 0.5:
            chance.shuffle(piece)
        results = [msgspec.json.encode(chance.choice(RESULTS)) for _ in piece]
        seconds = [chance.choice([1e-6, 0.25, 3.0]) for _ in piece]
        attempts = [table.attempts[job] + 1 for job in piece]
        for job, taken, attempt in zip(piece, seconds, attempts, strict=True):
            table.move(job, "completed")
            table.seconds[job], table.attempts[job] = taken, attempt
        batch = Completions(0, AT, piece, [table.ids[job] for job in piece], attempts, seconds, results, [])
        batch.leases = [job + 5 for job in piece]
        batch.more = {piece.index(job): each for job, each in more.items() if job in piece}
        made.store.append([batch])


def texts(made: Made) -> tuple[bytes, bytes, int]:
    """The text, that of the reference alone, and how many groups were made of bytes."""
    used: list[bool] = []
    batch = module._lines_batch

    def counted(*arguments: Any) -> bytes:
        used.append(True)
        return batch(*arguments)

    def whole() -> bytes:
        results = Results.of_store(made.store.parts)
        try:
            return b"".join(Report(results).final_text())
        finally:
            results.close()

    with mock.patch.object(module, "_lines_batch", counted):
        quick = whole()
    with mock.patch.object(Results, "plan_bodies", return_value=None):
        return quick, whole(), len(used)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path, threads=True)
    yield made
    made.store.close()


IDS = [*ODD, *(f"job/{number}" for number in range(COMPLETE))]


@pytest.mark.parametrize("seed", range(4))
def test_the_lines_made_of_bytes_are_those_of_the_reference(made: Made, seed: int) -> None:
    """Several codes, attempts that differ, results of all kinds; three groups of completed jobs."""
    chance = Random(seed)
    made.codes = [CodeSpan("0" * 16, 1), CodeSpan('1"+', 300 + seed)][: 1 + seed % 2]
    made.disk.make_directory(str(made.layout.logs))
    made.create(IDS)
    for job in chance.sample(range(len(IDS)), 40):
        made.store.table.attempts[job] = chance.randrange(3)
    complete(made, range(len(IDS)), chance, {})
    made.store.save(made.position())
    quick, reference, used = texts(made)
    assert quick == reference
    assert used == 3
    assert [entry["job"] for entry in json.loads(quick)] == IDS


@pytest.mark.parametrize("seed", range(4))
def test_a_job_with_anything_else_has_its_line_from_the_reference(made: Made, seed: int) -> None:
    """A failure, a job that never ran, a value that is not finite; printed output stands in no line."""
    chance = Random(seed)
    made.create(IDS)
    table = made.store.table
    odd = (0, 600, 1200)[seed % 3]
    more = {1100: CompletedWith(1, 0.0, b"", 17, [])} if seed != 2 else {}
    if seed == 3:
        more[odd] = CompletedWith(1, 0.0, b"", 0, [("/a", "nan")])
    complete(made, [job for job in range(len(IDS)) if job != odd or seed == 3], chance, more)
    if seed == 1:
        table.move(odd, "leased")
        table.move(odd, "failed")
        made.store.append([Ended(IDS[odd], 1, 1, "raised", "failed", 0.5, 0, AT, error={"type": "E"})])
    made.store.save(made.position())
    quick, reference, used = texts(made)
    assert quick == reference
    assert used == 3


def test_a_group_with_many_others_is_left_to_the_reference(made: Made) -> None:
    made.create(IDS)
    complete(made, [job for job in range(len(IDS)) if job > 600 or job % 7], Random(0), {})
    made.store.save(made.position())
    quick, reference, used = texts(made)
    assert quick == reference
    assert used == 2


def test_a_job_that_sets_something_of_its_own_is_left_to_the_reference(made: Made) -> None:
    own = {"job/3": OwnSettings(timeout=3.0), "job/1300": OwnSettings(needs=Needs(cpus=2))}
    with mock.patch("tests.storage.made.plan_of", lambda ids: plan(ids, **own)):
        made.create(IDS)
    given = Leased(0, 1, 1312, ["job/1300"], AT, {"cpus": 2})
    made.store.append([given])
    complete(made, range(len(IDS)), Random(0), {})
    made.store.save(made.position())
    quick, reference, used = texts(made)
    assert quick == reference
    assert used == 1
    assert [entry["job"] for entry in json.loads(quick) if "needs" in entry and "given" in entry] == [
        "job/1300"
    ]
    assert not [entry["job"] for entry in json.loads(quick) if "timeout" in entry]


def test_a_resumed_plan_is_seen_to_be_plain(made: Made) -> None:
    made.create(IDS)
    complete(made, range(0, len(IDS), 2), Random(0), {})
    made.store.close(made.position())
    made.resume(plan([*IDS, "new"], new=OwnSettings(retries=2)))
    complete(made, range(1, len(IDS), 2), Random(1), {})
    made.store.save(made.position())
    quick, reference, used = texts(made)
    assert quick == reference
    assert used == 2
