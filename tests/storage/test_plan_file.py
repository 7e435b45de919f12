"""The plan file: built before anything is touched, extended, compared, rebuilt."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.jobs import NOTHING_OWN, Job, OwnSettings
from supervisor.core.terms.needs import Needs
from supervisor.storage.files.disk import Disk
from supervisor.storage.plan.plan_builder import PlanBuilder
from supervisor.storage.plan.plan_diff import compare
from supervisor.storage.plan.plan_file import PlanFile
from supervisor.storage.plan.plan_line import PlannedJob, decode_line
from tests.experiment_fixture import slowness
from tests.storage.fake_disk import FakeDisk
from tests.storage.made import Made, plan_of
from workers.transport.messages import PlanLine

IDS = [f"iris/{number}" for number in range(6)]
HERE = Path("/fake")


def read(path: Path, disk: Disk | None = None) -> tuple[PlanFile, JobTable]:
    table = JobTable()
    plan = PlanFile.read(disk or Disk(), path, table)
    assert plan is not None
    return plan, table


def test_duplicate_ids_are_refused_with_both_positions() -> None:
    builder = plan_of(["a", "b", "c"])
    with pytest.raises(UsageError, match=r"'b'.*positions 2 and 4"):
        builder.add("b", None, b"{}")


def test_lines_are_what_the_worker_gets(tmp_path: Path) -> None:
    plan = PlanFile.create(Disk(), tmp_path / "plan", plan_of(IDS))
    text = plan.lines([2, 3, 4])
    assert [json.loads(line)["id"] for line in text.split(b"\n")] == IDS[2:5]
    scattered = plan.lines([4, 0, 5])
    assert [json.loads(line)["id"] for line in scattered.split(b"\n")] == ["iris/4", "iris/0", "iris/5"]
    assert json.loads(plan.lines([1])) == {"id": "iris/1", "domain": "iris", "params": {"name": "iris/1"}}
    plan.close()


def test_neighbours_are_read_with_one_call(tmp_path: Path) -> None:
    calls = []

    class Counting(Disk):
        def pread(self, fd: int, size: int, offset: int) -> bytes:
            calls.append(size)
            return super().pread(fd, size, offset)

    plan = PlanFile.create(Counting(), tmp_path / "plan", plan_of(IDS))
    whole = plan.lines(range(6))
    assert len(calls) == 1
    assert b"\n".join([plan.lines([job]) for job in range(6)]) == whole
    assert len(calls) == 1  # of what was read just now nothing is read again
    plan.close()


def test_a_plan_that_is_refused_touches_nothing(tmp_path: Path) -> None:
    builder = PlanBuilder()
    builder.add("a", None, b"{}")
    with pytest.raises(UsageError):
        builder.add("a", None, b"{}")
    assert list(tmp_path.iterdir()) == []


def test_params_with_line_breaks_stay_on_one_line(tmp_path: Path) -> None:
    builder = PlanBuilder()
    builder.add("a", None, b'{\n"x": [1,\n 2]}')
    plan = PlanFile.create(Disk(), tmp_path / "plan", builder)
    assert (tmp_path / "plan").read_bytes().count(b"\n") == 1
    assert json.loads(bytes(decode_line(plan.line(0)).params)) == {"x": [1, 2]}
    plan.close()


def test_comparison_names_new_gone_changed_and_returned(tmp_path: Path) -> None:
    plan = PlanFile.create(Disk(), tmp_path / "plan", plan_of(IDS))
    table = JobTable()
    plan_of(IDS).fill(table)
    plan.extend([], ["iris/5"])
    plan.close()
    plan, table = read(tmp_path / "plan")
    assert list(table.wanted) == [1, 1, 1, 1, 1, 0]
    builder = PlanBuilder()
    builder.add("new", None, b"{}")
    for job_id in ("iris/3", "iris/2", "iris/5"):
        builder.add(job_id, "iris", b'{"name":"%b"}' % job_id.encode())
    builder.add("iris/1", "iris", b'{"name":1.0}')
    builder.add("iris/0", "other", b'{"name":"iris/0"}')
    result = compare(plan, table, builder)
    assert result.new == ["new"]
    assert result.gone == ["iris/4"]
    assert result.returned == ["iris/5"]
    assert result.relabelled == ["iris/0"]
    assert result.matching == 5
    assert [(change.id, change.old, change.new) for change in result.changed] == [
        ("iris/1", {"name": "iris/1"}, {"name": 1.0})
    ]
    plan.close()


def test_each_setting_of_a_plan_line_is_a_field_of_job_with_the_same_default() -> None:
    own = msgspec.structs.asdict(NOTHING_OWN)
    assert own.pop("needs") is None
    assert {name: getattr(Job(), name) for name in own} == own
    assert {getattr(Job(), name) for name in Needs.__struct_fields__} == {None}
    own |= dict.fromkeys(Needs.__struct_fields__)
    assert (
        {*Job.__struct_fields__}
        == {*own, *PlannedJob.__struct_fields__} - {"needs"}
        == {*own, *PlanLine.__struct_fields__}
    )


def test_a_jobs_own_settings_stand_in_its_line_only_if_it_has_any(tmp_path: Path) -> None:
    builder = PlanBuilder()
    builder.add("plain", None, b"{}")
    builder.add("own", "iris", b"{}", OwnSettings(timeout=5.0, priority=-1))
    plan = PlanFile.create(Disk(), tmp_path / "plan", builder)
    assert json.loads(plan.line(0)) == {"id": "plain", "domain": None, "params": {}}
    expected = {"id": "own", "domain": "iris", "params": {}, "timeout": 5.0, "priority": -1}
    assert json.loads(plan.line(1)) == expected
    table = JobTable()
    builder.fill(table)
    assert table.own == {1: OwnSettings(timeout=5.0, priority=-1)}
    plan.close()


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (OwnSettings(timeout=5.0), OwnSettings(retries=2)),
        (OwnSettings(needs=Needs(cpus=2)), OwnSettings(needs=Needs(cpus=2, gpus=0))),
        (OwnSettings(needs=Needs(resources={"a": 1})), NOTHING_OWN),
    ],
)
def test_other_settings_of_a_job_are_no_other_parameters(
    tmp_path: Path, was: OwnSettings, now: OwnSettings
) -> None:
    before, after = PlanBuilder(), PlanBuilder()
    for builder, own in ((before, was), (after, now)):
        builder.add("same", None, b"{}")
        builder.add("own", None, b"{}", own)
    plan = PlanFile.create(Disk(), tmp_path / "plan", before)
    table = JobTable()
    before.fill(table)
    result = compare(plan, table, after)
    assert (result.changed, result.new, result.gone) == ([], [], [])
    assert result.relabelled == ["own"]  # its line is written anew
    assert compare(plan, table, before).relabelled == []
    plan.close()


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}', True),
        (b'{"a":1}', b'{"a":1.0}', False),
        (b'{"a":1}', b'{"a":true}', False),
    ],
)
def test_params_are_the_same_if_the_function_cannot_tell(
    tmp_path: Path, old: bytes, new: bytes, same: bool
) -> None:
    before, after = PlanBuilder(), PlanBuilder()
    before.add("x", None, old)
    after.add("x", None, new)
    plan = PlanFile.create(Disk(), tmp_path / "plan", before)
    table = JobTable()
    before.fill(table)
    assert (compare(plan, table, after).changed == []) is same
    plan.close()


def test_a_torn_last_line_is_cut_and_its_job_added_again() -> None:
    disk = FakeDisk()
    made = Made(HERE, disk).create(IDS)
    made.finish()
    file = disk.files[str(made.layout.plan)]
    del file.data[-10:]
    again = Made(HERE, disk).resume(plan_of(IDS))
    plan, table = read(made.layout.plan, disk)
    assert table.ids == IDS
    assert plan.damaged == 0
    assert again.findings == []
    assert again.store.plan.lines(range(6)) == plan.lines(range(6))


@pytest.mark.parametrize("harm", ["removed", "damaged"])
def test_a_lost_plan_is_rebuilt_from_the_script(harm: str) -> None:
    disk = FakeDisk()
    made = Made(HERE, disk).create([*IDS, "gone/1"])
    made.end("iris/4", "gone/1")
    made.finish()
    if harm == "removed":
        disk.remove(str(made.layout.plan))
    else:
        disk.files[str(made.layout.plan)].data[5:120] = b"#" * 115
    again = Made(HERE, disk).resume(plan_of(IDS))
    assert any("rebuilt from the jobs of the script" in finding for finding in again.findings)
    table = again.store.table
    counts = table.counts()
    assert (counts.total, counts.completed, counts.pending, table.gone()) == (6, 1, 5, 1)
    for job_id in IDS:
        assert json.loads(again.store.plan.line(table.numbers[job_id]))["id"] == job_id
    again.finish()
    _, table = read(made.layout.plan, disk)
    assert {job_id for job_id in table.ids if table.wanted[table.numbers[job_id]]} == set(IDS)


def test_changed_params_are_kept_or_replaced() -> None:
    for keep in (True, False):
        disk = FakeDisk()
        made = Made(HERE, disk).create(IDS)
        made.finish()
        again = Made(HERE, disk).resume(plan_of(IDS, depth=3), keep_params=keep)
        assert ("depth" in json.loads(again.store.plan.line(0))["params"]) is not keep
        plan, _ = read(made.layout.plan, disk)
        assert plan.line(0) == again.store.plan.line(0)


def filled(builder: PlanBuilder, ids: list[str], *, together: bool, changed: str = "") -> PlanBuilder:
    domains = [job_id.partition("/")[0] for job_id in ids]
    params = [{"name": job_id, "x": int(job_id == changed)} for job_id in ids]
    if together:
        for at in range(0, len(ids), 2):
            part = slice(at, at + 2)
            assert builder.add_batch(ids[part], domains[part], params[part])
    else:
        for job_id, domain, values in zip(ids, domains, params, strict=True):
            own = OwnSettings(priority=1) if job_id == IDS[2] else NOTHING_OWN
            builder.add(job_id, domain, json.dumps(values, separators=(",", ":")).encode(), own)
    return builder


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("ids", "changed"),
    [
        (IDS, ""),
        (IDS[:4], ""),
        ([*IDS, "more/1", "more/2"], ""),
        ([*IDS[:2], "new/1", *IDS[2:]], ""),
        (list(reversed(IDS)), ""),
        (IDS, IDS[3]),
        (["other/1"], ""),
    ],
)
def test_a_script_that_repeats_its_plan_gives_the_same_as_one_that_is_collected(
    tmp_path: Path, ids: list[str], changed: str, together: bool
) -> None:
    PlanFile.create(Disk(), tmp_path / "plan", filled(PlanBuilder(), IDS, together=together)).close()
    plan, table = read(tmp_path / "plan")
    expected = filled(PlanBuilder(), ids, together=together, changed=changed)
    builder = filled(PlanBuilder(plan.repeatable(table)), ids, together=together, changed=changed)
    assert (len(builder), builder.size) == (len(expected), expected.size)
    assert plan.has_bytes_of(builder) == (ids == IDS and not changed)
    assert compare(plan, table, builder) == compare(plan, table, expected)
    with pytest.raises(UsageError, match="positions 1 and"):
        builder.add(ids[0], None, b"{}")
    assert builder.own == expected.own
    assert list(builder.domains.items()) == list(expected.domains.items())
    assert list(builder.lengths) == list(expected.lengths)
    assert list(builder.lines()) == list(expected.lines())
    plan.close()


def test_a_plan_that_was_extended_is_not_followed(tmp_path: Path) -> None:
    PlanFile.create(Disk(), tmp_path / "plan", plan_of(IDS)).close()
    plan, table = read(tmp_path / "plan")
    assert plan.repeatable(table) is not None
    plan.extend([], gone=IDS[:1])
    plan.close()
    plan, table = read(tmp_path / "plan")
    assert plan.repeatable(table) is None
    assert compare(plan, table, plan_of(IDS)).returned == IDS[:1]
    plan.close()


def test_a_large_plan_that_did_not_change_is_compared_quickly(tmp_path: Path) -> None:
    ids = [f"iris/forest/{number}" for number in range(20_000)]
    plan = PlanFile.create(Disk(), tmp_path / "plan", plan_of(ids))
    table = JobTable()
    builder = plan_of(ids)
    builder.fill(table)
    started = time.process_time()
    result = compare(plan, table, builder)
    assert time.process_time() - started < 1.0 * slowness()
    assert (result.matching, result.new, result.gone, result.changed) == (20_000, [], [], [])
    plan.close()


def test_a_line_that_was_written_again_is_not_read_from_its_old_place(tmp_path: Path) -> None:
    plan = PlanFile.create(Disk(), tmp_path / "plan", plan_of(IDS))
    old = plan.line(2)
    new = old.replace(b'"name":"iris/2"', b'"name":"iris/9"')
    assert len(new) == len(old) and new != old
    plan.extend([(2, new + b"\n")])
    assert plan.lines(range(1, 4)) == b"\n".join([plan.line(1), new, plan.line(3)])


@pytest.mark.parametrize(
    "tail", [b'{"id":"b","domain":null,"params":{"x":2}}', bytes(300), b'{"id":"b","dom']
)
def test_what_takes_the_place_of_a_torn_line_is_read_and_not_what_stood_there(tail: bytes) -> None:
    disk = FakeDisk()
    PlanFile.create(disk, "/fake/plan", plan_of(IDS)).close()
    disk.files["/fake/plan"].data += tail
    plan, _ = read(Path("/fake/plan"), disk)
    whole = plan.line(0)  # as a resume compares it, which reads ahead
    lines = [b'{"id":"%b","domain":null,"params":{"x":3}}' % name for name in (b"c", b"d")]
    plan.extend([(len(IDS) + place, line + b"\n") for place, line in enumerate(lines)])
    assert plan.line(0) == whole
    assert plan.lines([len(IDS), len(IDS) + 1]) == b"\n".join(lines)


@given(
    changes=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["again", "gone", "longer"])), max_size=6),
    first=st.integers(0, 9),
    size=st.integers(1, 10),
)
def test_lines_in_a_row_are_those_of_the_single_jobs_whatever_was_changed(
    changes: list[tuple[int, str]], first: int, size: int
) -> None:
    """New jobs get their lines behind the others; what is gone or written again leaves its old one."""
    disk = FakeDisk()
    live = PlanFile.create(disk, "/fake/plan", plan_of(IDS))
    ids = list(IDS)
    for job, change in changes:
        live.line(min(job, len(ids) - 1))
        if change == "gone":
            live.extend([], [ids[min(job, len(ids) - 1)]])
            continue
        job = min(job, len(ids))
        ids += [f"iris/{job}"] if job == len(ids) else []
        note = "x" * (change == "longer")
        live.extend(
            [(job, b'{"id":"%b","domain":null,"params":{"n":"%b"}}\n' % (ids[job].encode(), note.encode()))]
        )
    again, _ = read(Path("/fake/plan"), disk)
    jobs = range(min(first, len(ids) - 1), min(first + size, len(ids)))
    for plan in (live, again, live.duplicate()):
        assert plan.lines(jobs) == b"\n".join(map(live.line, jobs))
