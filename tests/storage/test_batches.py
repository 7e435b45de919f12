"""Functions that do a whole batch at once, held to the result of their references, which do one."""

from __future__ import annotations

import os
import re
from array import array
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.dispatch.job_queue import JobQueue
from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.dispatch.turn import Turn
from supervisor.core.state.columns import compact, get, put
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.statistics import Statistics
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.events import Effects
from supervisor.core.terms.jobs import COMPLETED, NOTHING_OWN, OwnSettings
from supervisor.core.terms.needs import Needs
from supervisor.core.terms.records import AnyRecord, Completions, Ended, Noted, Records, lines_in
from supervisor.core.terms.settings import Settings
from supervisor.storage.checkpoint.checkpoint_format import entry_begin, finished_entries, joined_entries
from supervisor.storage.files.disk import Disk
from supervisor.storage.journal.journal_format import (
    contents,
    contents_batch,
    decode_record,
    encode_batch,
    ended_part,
    ended_parts_batch,
    ended_records,
    named_parts_batch,
    seed_of,
    verify,
    verify_batch,
)
from supervisor.storage.journal.record_locations import RecordLocations, grouped, read_joined, read_records
from supervisor.storage.plan.plan_builder import PlanBuilder
from supervisor.storage.plan.plan_line import bodies_batch, decode_line
from tools.simulation.promises import singly
from workers.transport.messages import Completed, CompletedWith

pytestmark = pytest.mark.slow

AT = "2025-10-14T21:00:00.000Z"
SEED = seed_of("u", 1)

texts = st.text(max_size=8) | st.sampled_from(
    ["\ud800", '","attempt":1,', "}\n", "|", "%08x", 'a","crc":"00000000"}', "\u2028", "\x00"]
)
json_results = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
).map(msgspec.json.encode)
results = json_results | st.sampled_from(
    [b'{"a":\n1}', b"[1,\n\n2]\n", b'"}\\n"', b'{"x":{}}', b"null", b'""']
)
completed = st.builds(
    Completed,
    lease=st.integers(1, 2**40),
    seconds=st.floats(0, 1e9) | st.sampled_from([0.0, 1e-9, 5e-324]),
    result=results,
)
completed |= st.builds(
    CompletedWith,
    lease=st.integers(1, 2**40),
    seconds=st.floats(0, 1e9),
    result=results,
    output=st.sampled_from([0, 1, 2**40]),
    nonfinite=st.sampled_from([[], [("/a", "nan"), ("/b/~1\n", "-inf")]]),
)


@st.composite
def batches(draw: st.DrawFn) -> Completions:
    outcomes = draw(st.lists(completed, min_size=1, max_size=6))
    size = len(outcomes)
    return Completions(
        worker=draw(st.integers(0, 300)),
        at=AT,
        jobs=range(size),
        ids=draw(st.lists(texts, min_size=size, max_size=size)),
        attempts=draw(st.lists(st.integers(1, 2**32 - 1), min_size=size, max_size=size)),
        seconds=[outcome.seconds for outcome in outcomes],
        results=[outcome.result for outcome in outcomes],
        leases=[outcome.lease for outcome in outcomes],
        more={place: each for place, each in enumerate(outcomes) if isinstance(each, CompletedWith)},
        workers=draw(st.just([]) | st.lists(st.integers(0, 300), min_size=size, max_size=size)),
    )


others = st.builds(
    Noted, what=texts, at=st.just(AT), detail=st.dictionaries(texts, texts, max_size=2)
) | st.builds(
    Ended,
    job=texts,
    attempt=st.just(1),
    lease=st.just(1),
    outcome=st.just("completed"),
    state=st.just("completed"),
    seconds=st.just(0.5),
    worker=st.just(0),
    at=st.just(AT),
    result=results.map(msgspec.Raw),
)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**12), st.lists(batches() | others, max_size=5))
def test_a_batch_of_completions_is_written_as_its_records_would_be(n: int, records: list[Any]) -> None:
    data, lengths = encode_batch(n, records, SEED)
    assert (data, lengths) == encode_batch(n, list(singly(records)), SEED)
    alone = [encode_batch(n + place, [record], SEED)[0] for place, record in enumerate(singly(records))]
    assert data == b"".join(alone)
    assert lengths == [len(line) for line in alone] and len(lengths) == lines_in(records)
    lines = data.split(b"\n")[:-1]
    assert [verify(line, SEED) for line in lines] == list(range(n, n + len(lines)))
    assert verify_batch(lines, SEED)
    for line in lines:
        assert decode_record(line) is not None


@given(st.lists(batches(), min_size=1, max_size=4))
def test_statistics_of_a_batch_are_those_of_its_records(records: list[Completions]) -> None:
    together, singles = Statistics(), Statistics()
    for record in records:
        together.apply(record)
    for one in singly(records):
        singles.apply(one)
    assert together == singles


@given(
    st.lists(st.binary(min_size=25, max_size=40), min_size=2, max_size=6),
    st.integers(0, 5),
    st.integers(0, 39),
)
def test_one_bad_line_among_good_ones_does_not_pass(texts: list[bytes], which: int, place: int) -> None:
    records = [Noted(text.hex(), AT) for text in texts]
    lines = encode_batch(1, records, SEED)[0].split(b"\n")[:-1]
    at = which % len(lines)
    bad = bytearray(lines[at])
    bad[place % len(bad)] ^= 1
    for wrong in (bytes(bad), lines[at][:-1], lines[at][1:], b""):
        assert not verify_batch([*lines[:at], wrong, *lines[at + 1 :]], SEED)


# ----------------------------------------------------------------------------- the ledger


def made(jobs: int) -> tuple[Ledger, Turn]:
    table = JobTable()
    for number in range(jobs):
        table.add(f"j{number}", None)
    ledger = Ledger(table, JobQueue(table.state), Settings())
    return ledger, Turn(1.0, AT, 1)


@st.composite
def answers(
    draw: st.DrawFn,
) -> tuple[list[int], list[int], list[int], list[int], list[Completed | CompletedWith]]:
    """States, newest leases and failed jobs of six; then jobs and what came of them."""
    states = draw(st.lists(st.sampled_from([1, 1, 1, 1, 0, 2, 3, 4]), min_size=6, max_size=6))
    newest = draw(st.lists(st.sampled_from([0, 100, 100, 100, 7]), min_size=6, max_size=6))
    failed = draw(st.lists(st.integers(0, 5), max_size=1))
    order = draw(st.sampled_from([[0, 1, 2, 3], [2, 3, 4], [5, 3, 1], [4], [1, 2, 1], [3, 2]]))
    outcomes: list[Completed | CompletedWith] = [
        Completed(100 + job if job not in order[at + 1 :] else 50 + at, draw(st.floats(0, 9)), b"%d" % at)
        for at, job in enumerate(order)
    ]
    for at in draw(st.sets(st.integers(0, len(order) - 1), max_size=2)):
        plain, converted = outcomes[at], draw(st.sampled_from([[], ["set"], ["set", "tuple"]]))
        more = (draw(st.integers(0, 1)), [("", "nan")], converted)
        outcomes[at] = CompletedWith(plain.lease, plain.seconds, plain.result, *more)
    return states, [lease + job for job, lease in enumerate(newest)], failed, order, outcomes


@settings(max_examples=500, deadline=None)
@given(answers(), st.booleans())
def test_results_booked_together_are_booked_as_one_by_one(
    drawn: tuple[list[int], list[int], list[int], list[int], list[Completed | CompletedWith]],
    each_of_another_worker: bool,
) -> None:
    states, newest, failed, order, outcomes = drawn
    seen: list[tuple[Any, ...]] = []
    for together in (True, False):
        ledger, turn = made(6)
        table = ledger.table
        table.state[:] = bytes(states)
        ledger.newest_lease[:] = array("Q", newest)
        table.outcome.update(dict.fromkeys(failed, "raised"))
        slots = range(len(order)) if each_of_another_worker else [0] * len(order)
        if together and each_of_another_worker:
            for slot, job, outcome in zip(slots, order, outcomes, strict=True):
                ledger.completed_batch(turn, slot, [job], [outcome.lease], [outcome])
        elif together:
            ledger.completed_batch(turn, 0, compact(order), [each.lease for each in outcomes], outcomes)
        else:
            for slot, job, outcome in zip(slots, order, outcomes, strict=True):
                ledger.completed(turn, slot, job, outcome)
        effects: Effects = turn.effects
        records: Records = effects.records
        seen.append(
            (
                encode_batch(1, records, SEED),
                effects.commands,
                bytes(table.state),
                list(table.attempts),
                list(table.seconds),
                table.outcome,
                turn.last_n(),
            )
        )
    assert seen[0] == seen[1]


def test_the_results_of_many_workers_are_one_record() -> None:
    ledger, turn = made(3)
    ledger.lease(range(3), 10)
    for job in range(3):
        ledger.completed_batch(turn, 7 + job, [job], [10 + job], [Completed(10 + job, 0.5, b"%d" % job)])
    (batch,) = turn.effects.records
    assert isinstance(batch, Completions)
    assert [(one.job, one.worker, one.lease) for one in batch.each()] == [
        ("j0", 7, 10),
        ("j1", 8, 11),
        ("j2", 9, 12),
    ]


def test_a_replay_of_a_batch_comes_to_the_same_table() -> None:
    ledger, turn = made(5)
    leases = ledger.lease(range(5), 10)
    assert leases == [1] * 5
    outcomes = [Completed(10 + job, 0.5 + job, b"1") for job in range(5)]
    ledger.completed_batch(turn, 0, range(5), list(range(10, 15)), outcomes)
    (batch,) = turn.effects.records
    assert isinstance(batch, Completions)
    again = made(5)[0].table
    lines = encode_batch(1, turn.effects.records, SEED)[0].split(b"\n")[:-1]
    for line in lines:
        record: AnyRecord | None = decode_record(line)
        assert record is not None
        again.apply(record)
    table = ledger.table
    assert (again.state, again.attempts, again.seconds) == (table.state, table.attempts, table.seconds)
    assert set(table.state) == {COMPLETED}


# -------------------------------------------------------------------------------- places

numbers = st.lists(st.integers(0, 30), unique=True, max_size=12) | st.builds(
    lambda start, size: list(range(start, start + size)), st.integers(0, 20), st.integers(0, 11)
)


@given(numbers)
def test_columns_are_read_and_written_at_once_as_one_by_one(jobs: list[int]) -> None:
    column = array("I", range(100, 131))
    assert list(get(column, compact(jobs))) == [column[job] for job in jobs]
    singly_put, together = column[:], column[:]
    for place, job in enumerate(jobs):
        singly_put[job] = place
    put(together, compact(jobs), array("I", range(len(jobs))))
    assert together == singly_put and len(together) == 31
    assert list(compact(jobs)) == jobs


@settings(deadline=None)
@given(
    gaps=st.lists(st.tuples(st.integers(0, 9_000), st.integers(1, 9_000)), max_size=7)
    | st.lists(st.tuples(st.just(0), st.integers(1, 9_000)), min_size=4, max_size=7),
    scale=st.sampled_from([1, 300]),
    ends_stay=st.booleans(),
    chance=st.randoms(use_true_random=False),
)
def test_places_are_read_together_as_alone(
    tmp_path_factory: Any, gaps: list[tuple[int, int]], scale: int, ends_stay: bool, chance: Random
) -> None:
    """In any order, also if the first and the last one are where they are in the file; no two of them overlap."""
    ends = list(accumulate(gap + length for gap, length in gaps))
    places = [(end - length, length) for end, (_, length) in zip(ends, gaps, strict=True)]
    first, last = (places[:1], places[-1:]) if ends_stay and len(places) > 1 else ([], [])
    inner = places[len(first) : len(places) - len(last)]
    chance.shuffle(inner)
    places = first + inner + last
    path: Path = tmp_path_factory.mktemp("places") / "file"
    block = os.urandom(130_000)
    with open(path, "wb") as file:
        file.write(block)
        file.truncate(130_000 * scale)
    offsets = [offset * scale for offset, _ in places]
    lengths = [length for _, length in places]
    disk = Disk()
    fd = disk.open(str(path), os.O_RDONLY)
    try:
        expected = [os.pread(fd, length, offset) for offset, length in zip(offsets, lengths, strict=True)]
        assert read_records(disk, fd, offsets, lengths) == expected
        assert read_joined(disk, fd, offsets, lengths) in (b"".join(expected), None if places else b"")
    finally:
        disk.close(fd)


@given(st.lists(st.sampled_from([0, 100, 1 << 20, 5 << 20]), max_size=60), st.integers(1, 1000))
def test_groups_hold_every_job_once_in_order_and_little(sizes: list[int], repeat: int) -> None:
    lengths = array("I", sizes * (1 + repeat // 200))
    groups = [list(group) for group in grouped(range(len(lengths)), lengths)]
    assert [job for group in groups for job in group] == list(range(len(lengths)))
    for group in groups:
        assert len(group) <= 512
        heavy = [lengths[job] for job in group if lengths[job]]
        assert len(heavy) <= 1 or sum(heavy) <= 4 << 20


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(3, 4), st.integers(0, 9)), unique_by=lambda row: row[0]
    )
)
def test_locations_are_noted_together_as_alone(rows: list[tuple[int, int, int]]) -> None:
    together, alone = RecordLocations(), RecordLocations()
    jobs = [job for job, _, _ in rows]
    offsets, lengths, leases = (
        range(len(rows)),
        [9 * size for _, _, size in rows],
        [size for *_, size in rows],
    )
    together.note_batch(compact(jobs), 1, bytes([state for _, state, _ in rows]), offsets, lengths, leases)
    for (job, state, lease), offset, length in zip(rows, offsets, lengths, strict=True):
        alone.note(job, 1, state, offset, length, lease)
    together.grow(40)
    alone.grow(40)
    for column in ("origin", "recorded_state", "offset", "length", "lease"):
        assert getattr(together, column)[:40] == getattr(alone, column)[:40]
    together.move_batch(compact(jobs), 2, lengths, offsets)
    assert [together.offset[job] for job in jobs] == lengths
    assert {together.origin[job] for job in jobs} <= {2}


# ------------------------------------------------------------------------- parts of lines


@given(batches())
def test_parts_and_contents_of_lines_are_taken_together_as_alone(batch: Completions) -> None:
    data, lengths = encode_batch(1, [batch], SEED)
    lines = data.split(b"\n")[:-1]
    parts = [ended_part(line) for line in lines]
    begins = list(accumulate(lengths[:-1], initial=0))
    assert ended_parts_batch(data, begins, lengths) == parts
    for part, record in zip(parts, map(decode_record, lines), strict=True):
        assert isinstance(record, Ended)
        assert ended_records([record.job], [part]) == [record]
    alone = [contents([line])[0] for line in lines]
    assert contents_batch(b"\n".join(lines)) == contents(lines) == alone


@given(batches(), st.sampled_from([1, 7, 96, 99_998]), st.randoms())
def test_entries_are_made_of_whole_lines_as_of_ids_and_parts(
    batch: Completions, n: int, chance: Random
) -> None:
    """In any order of the jobs; not if the numbers of the lines have more digits in one than in another."""
    data, lengths = encode_batch(n, [batch], SEED)
    lines = data.splitlines(keepends=True)
    order = chance.sample(range(len(batch)), len(batch))
    lines, lengths = [lines[place] for place in order], [lengths[place] for place in order]
    begins = list(accumulate(lengths[:-1], initial=0))
    ends = [begins[order.index(place)] for place in (0, len(batch) - 1)]
    found = named_parts_batch(b"".join(lines), lengths, ends, entry_begin(3))
    if len(str(n)) != len(str(n + len(batch) - 1)):
        assert found is None
        return
    assert found is not None
    lines = [line[:-1] for line in lines]
    ids = [
        msgspec.json.encode(record.job) for record in map(decode_record, lines) if isinstance(record, Ended)
    ]
    wanted = finished_entries(ids, [3] * len(lines), map(ended_part, lines))
    assert joined_entries(found) == wanted


# -------------------------------------------------------------------------------- the plan


planned = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(['"}\n{"id":', '","params":{}}']),
        st.sampled_from([None, "x", "d\u00fc", '","gone":true']),
        st.dictionaries(st.text(max_size=3), json_results.map(msgspec.Raw), max_size=2).map(
            msgspec.json.encode
        ),
    ),
    min_size=1,
    max_size=4,
)


@given(planned, st.none() | st.sampled_from([OwnSettings(timeout=2.0), OwnSettings(needs=Needs(cpus=2))]))
def test_the_bodies_of_lines_are_what_is_decoded_of_them(
    jobs: list[tuple[str, str | None, bytes]], own: OwnSettings | None
) -> None:
    """A line with anything else has no body; all that are known to be plain are not looked at."""
    builder = PlanBuilder()
    for number, (job_id, domain, params) in enumerate(jobs):
        last = number == len(jobs) - 1
        builder.add(f"{number}{job_id}", domain, params, own if own is not None and last else NOTHING_OWN)
    lines = [line[:-1] for line in builder.lines()]
    found = bodies_batch(b"\n".join(lines), len(lines), plain=False)
    if own is not None:
        assert found is None
        return
    encode = msgspec.json.encode
    wanted = [
        b'%b,"domain":%b,"params":%b' % (encode(one.id), encode(one.domain), bytes(one.params))
        for one in map(decode_line, lines)
    ]
    assert found == bodies_batch(b"\n".join(lines), len(lines), plain=True) == wanted
    assert bodies_batch(b"\n".join(lines), len(lines) + 1, plain=False) is None


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from("abcdef") | st.text(st.characters(codec="utf-8"), max_size=3),
                st.sampled_from([None, "x", "y"]),
            ),
            max_size=4,
        ),
        max_size=4,
    )
)
def test_jobs_are_added_together_as_one_by_one_or_refused(
    groups: list[list[tuple[str, str | None]]],
) -> None:
    together, singly_added = PlanBuilder(), PlanBuilder()
    for group in groups:
        ids, domains = [job for job, _ in group], [domain for _, domain in group]
        params: list[dict[str, Any]] = [{"n": place} for place in range(len(group))]
        if not together.add_batch(ids, domains, params):
            rows = list(zip(ids, domains, map(msgspec.json.encode, params), strict=True))
            with pytest.raises(UsageError, match="two jobs have the id"):
                any(together.add(*row) for row in rows)
            return
        for job_id, domain, values in zip(ids, domains, params, strict=True):
            singly_added.add(job_id, domain, msgspec.json.encode(values))
    assert list(together.lines()) == list(singly_added.lines())
    assert together.domains == singly_added.domains and together.lengths == singly_added.lengths


# ------------------------------------------------------------------------------ all pairs

# Every function that does to many what a slower one, the reference, does to each; and the test that
# holds both to the same result.
PAIRS = {
    "encode_batch": (
        "storage/test_batches",
        "test_a_batch_of_completions_is_written_as_its_records_would_be",
    ),
    "_bodies_batch": (
        "storage/test_batches",
        "test_a_batch_of_completions_is_written_as_its_records_would_be",
    ),
    "verify_batch": (
        "storage/test_batches",
        "test_a_batch_of_completions_is_written_as_its_records_would_be",
    ),
    "ended_parts_batch": (
        "storage/test_batches",
        "test_parts_and_contents_of_lines_are_taken_together_as_alone",
    ),
    "contents_batch": (
        "storage/test_batches",
        "test_parts_and_contents_of_lines_are_taken_together_as_alone",
    ),
    "named_parts_batch": (
        "storage/test_batches",
        "test_entries_are_made_of_whole_lines_as_of_ids_and_parts",
    ),
    "bodies_batch": ("storage/test_batches", "test_the_bodies_of_lines_are_what_is_decoded_of_them"),
    "_lines_batch": ("reports/test_final_text", "test_the_lines_made_of_bytes_are_those_of_the_reference"),
    "read_batch": ("storage/test_batches", "test_places_are_read_together_as_alone"),
    "note_batch": ("storage/test_batches", "test_locations_are_noted_together_as_alone"),
    "move_batch": ("storage/test_batches", "test_locations_are_noted_together_as_alone"),
    "completed_batch": ("storage/test_batches", "test_results_booked_together_are_booked_as_one_by_one"),
    "settle_batch": (
        "core/test_worker_state",
        "test_leases_are_settled_together_as_one_by_one_or_not_at_all",
    ),
    "close_batch": ("core/test_open_leases", "test_leases_are_closed_together_as_one_by_one"),
    "add_batch": ("storage/test_batches", "test_jobs_are_added_together_as_one_by_one_or_refused"),
}


def test_every_pair_of_a_fast_function_and_its_reference_is_held_together() -> None:
    root = Path(__file__).resolve().parents[2]
    defined = {
        name
        for room in ("core", "storage", "reports")
        for path in (root / "supervisor" / room).rglob("*.py")
        for name in re.findall(r"def (\w+_batch)\(", path.read_text())
    }
    assert defined == set(PAIRS)
    for module, test in PAIRS.values():
        assert f"def {test}(" in (root / "tests" / f"{module}.py").read_text()
