"""Jobs looked at in groups: the same plan, and the same refusals, as one by one."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from types import MappingProxyType
from typing import Any
from unittest import mock
from uuid import UUID

import msgspec
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.jobs import NOTHING_OWN, Job, OwnSettings
from supervisor.core.terms.needs import Needs
from supervisor.experiment import planning
from supervisor.experiment.planning import build_plan


def function(**params: Any) -> None: ...


class Earlier:
    """The plan that these jobs made in an earlier run."""

    def __init__(self, jobs: list[Job]) -> None:
        builder = build_plan(function, jobs, None, all_tasks=True).builder
        self.lengths = builder.lengths
        self._bytes = b"".join(builder.chunks())
        self._domains = builder.domains

    def text(self, offset: int, size: int) -> bytes:
        return self._bytes[offset : offset + size]

    def domains(self, jobs: int) -> dict[str, str | None]:
        return dict(islice(self._domains.items(), jobs))


def outcome(jobs: Any, *, group: int | None = None, earlier: Earlier | None = None) -> tuple[str, ...]:
    """The text of the plan, its ids and its lengths, or the refusal."""
    together = mock.patch.object(planning, "_GROUP", group or planning._GROUP)
    with together:
        try:
            plan = build_plan(function, jobs, None, all_tasks=True, earlier=earlier)
        except UsageError as error:
            return ("refused", str(error))
    builder = plan.builder
    text = b"".join(builder.chunks())
    return text.decode(), repr(builder.domains), repr(list(builder.lengths)), repr(builder.own)


def one_by_one(jobs: Any, earlier: Earlier | None = None) -> tuple[str, ...]:
    with mock.patch.object(planning._Collected, "add_batch", return_value=False):
        return outcome(jobs, group=1, earlier=earlier)


class Text(str):
    pass


class Dataset(str, enum.Enum):  # noqa: UP042 - as scripts have them
    IRIS = "iris"


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**400, 1e300, 5e-324, -0.0])
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "a\nb", '","params":{', "}\n", Text("t")])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
jobs_made = st.builds(
    Job,
    id=st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(['a","domain":null', "\ud800"]),
    domain=st.none() | st.text(max_size=2),
    params=st.dictionaries(st.text(min_size=1, max_size=3), values, max_size=3),
    priority=st.sampled_from([0, 0, 0, 0, 1, False, 0.0]),
    retries=st.sampled_from([None, None, None, 2]),
    cpus=st.sampled_from([None, None, None, 2, 0]),
    memory=st.sampled_from([None, None, None, "8G", 0, -1]),
    gpus=st.sampled_from([None, None, None, 0, 0.5, 1.5]),
    resources=st.sampled_from([None, None, None, {}, {"license": 1}, {"license": 0}, [1]]),
)
plain_jobs = st.builds(
    Job,
    id=st.text(min_size=1, max_size=12),
    domain=st.none() | st.text(min_size=1, max_size=2),
    params=st.dictionaries(
        st.text(min_size=1, max_size=3), st.integers() | st.floats() | st.text(), max_size=2
    ),
)


@pytest.mark.parametrize("priority", [False, True, 0.0, 1.5])
def test_a_priority_that_is_no_whole_number_is_judged_alike(priority: Any) -> None:
    jobs = [Job(id="a"), Job(id="b", priority=priority)]
    assert outcome(jobs, group=1) == one_by_one(jobs)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(plain_jobs, plain_jobs, jobs_made, st.just("no job")), min_size=1, max_size=9))
def test_a_plan_made_by_groups_is_the_plan_made_one_by_one(jobs: list[Any]) -> None:
    expected = one_by_one(jobs)
    for group in (2, 3, 512):
        assert outcome(jobs, group=group) == expected
        assert outcome(lambda: iter(jobs), group=group) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(plain_jobs, min_size=1, max_size=9, unique_by=lambda job: job.id),
    st.lists(st.tuples(st.integers(0, 9), jobs_made | plain_jobs), max_size=2),
)
def test_a_plan_that_repeats_an_earlier_one_is_the_plan_made_one_by_one(
    before: list[Job], changes: list[tuple[int, Job]]
) -> None:
    try:
        earlier = Earlier(before)
    except UsageError:  # NaN
        return
    now = list(before)
    for place, job in changes:
        now[place:place] = [job]
    expected = one_by_one(now, earlier)
    for group in (2, 512):
        assert outcome(now, group=group, earlier=earlier) == expected
        assert outcome(lambda: iter(now), group=group, earlier=earlier) == expected


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize(
    ("was", "now"),
    [
        (None, float("nan")),
        (None, float("-inf")),
        ("2026-03-01", date(2026, 3, 1)),
        ("iris", Dataset.IRIS),
        ("t", Text("t")),
        ("1.5", Decimal("1.5")),
        ("12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
        ("aGk=", b"hi"),
        (2, numpy.int64(2)),
        (0.5, numpy.float64(0.5)),
        ([1], (1,)),
        ([1], {1}),
        ([None], [float("nan")]),
        ({"1": 2}, {1: 2}),
    ],
)
def test_another_value_of_the_same_json_is_judged_as_in_a_new_plan(
    kind: Callable[[Any], Any], was: Any, now: Any
) -> None:
    """At any place of a plan that is repeated otherwise."""
    before = [Job(id=str(number), params={"a": number, "x": was}) for number in range(100)]
    earlier = Earlier(before)
    for place in (0, 50, 99):
        jobs = list(before)
        jobs[place] = Job(id=str(place), params={"a": place, "x": now})
        assert outcome(lambda jobs=jobs: kind(jobs), earlier=earlier) == one_by_one(jobs, earlier)


def test_the_params_of_a_plan_that_is_repeated_are_not_looked_through_again() -> None:
    jobs = [
        Job(id=str(number), domain="d" * (number % 2) or None, params={"n": number}) for number in range(99)
    ]
    earlier = Earlier(jobs)
    with mock.patch.object(planning, "all_plain", wraps=planning.all_plain) as looked:
        plan = build_plan(function, lambda: iter(jobs), None, all_tasks=True, earlier=earlier)
    assert plan.builder.repeats(earlier) == len(jobs)
    # Names of params are new in the first group: its jobs are checked one by one.
    assert not looked.called


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize(
    "other",
    [
        {"a": 50, "y": "t"},
        {"a": 50},
        {"x": "t", "a": 50},
        {"a": 50, "x": "t", "y": None},
        {},
    ],
)
def test_a_job_with_other_names_is_noticed_where_a_plan_is_repeated(
    kind: Callable[[Any], Any], other: dict[str, Any]
) -> None:
    before = [Job(id=str(number), params={"a": number, "x": "t"}) for number in range(100)]
    jobs = list(before)
    jobs[50] = Job(id="50", params=other)
    for earlier in (Earlier(before), Earlier(jobs)):
        for now in (before, jobs):
            assert outcome(lambda now=now: kind(now), earlier=earlier) == one_by_one(now, earlier)


@pytest.mark.parametrize("other", [{"y": 1}, {"x": 1, "y": 1}], ids=["another", "one more"])
def test_names_that_the_function_no_longer_takes_are_refused_also_where_a_plan_is_repeated(
    other: dict[str, int],
) -> None:
    def narrower(a: int, x: int = 0) -> None: ...

    jobs = [Job(id=str(number), params={"a": number, "x": 1}) for number in range(100)]
    jobs[80] = Job(id="80", params={"a": 80, **other})
    with pytest.raises(UsageError, match=r"job '80': narrower.* cannot be called with a, (x, )?y"):
        build_plan(narrower, lambda: iter(jobs), None, all_tasks=True, earlier=Earlier(jobs))


@pytest.mark.parametrize("kind", [list, iter])
def test_a_name_that_is_no_text_is_refused_also_where_the_function_does_not_say_what_it_takes(
    kind: Callable[[Any], Any],
) -> None:
    before = [Job(id=str(number), params={"1": number}) for number in range(100)]
    jobs: list[Any] = [*before[:50], Job(id="50", params={1: 50}), *before[51:]]  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="job '50': params"):
        build_plan(dict, lambda: kind(jobs), None, all_tasks=True, earlier=Earlier(before))


@pytest.mark.parametrize("second", [3, 511, 512, 513, 1023, 1024, 1030])
def test_an_id_that_comes_twice_is_refused_with_both_positions_wherever_it_comes(second: int) -> None:
    ids = [str(number) for number in range(1100)]
    ids[second] = "2"
    refusal = outcome([Job(id=job_id) for job_id in ids])
    assert "'2'" in refusal[1] and f"positions 3 and {second + 1} " in refusal[1]


def _changes_its_dict(inside: Callable[[dict[str, Any]], Any]) -> Iterator[Job]:
    params: dict[str, Any] = {}
    for number in range(1000):
        params["number"] = number
        yield Job(id=str(number), params=inside(params))
    params.clear()


@pytest.mark.parametrize(
    "inside",
    [lambda params: params, lambda params: {"nested": params}, lambda params: {"pair": (1, params)}],
    ids=["the same dict", "inside of a new one", "inside of a tuple"],
)
def test_a_script_may_use_one_dict_for_all_its_jobs(inside: Callable[[dict[str, Any]], Any]) -> None:
    text, *_ = outcome(lambda: _changes_its_dict(inside))
    for number, line in enumerate(text.splitlines()):
        assert f'"number":{number}}}' in line, "what it was when the job was made"


@pytest.mark.parametrize("kind", [list, iter])
def test_jobs_with_huge_parameters_are_looked_at_a_few_at_a_time(kind: Callable[[Any], Any]) -> None:
    jobs = [Job(id=str(number), params={"text": "x" * 500_000}) for number in range(60)]
    with mock.patch.object(planning._Collected, "add_batch", return_value=False) as together:
        assert outcome(lambda: kind(jobs))[0] != "refused"
    sizes = [len(call.args[0]) for call in together.call_args_list]
    assert sum(sizes) == 60 and sizes[0] <= planning._FIRST_GROUP and set(sizes[1:-1]) == {8}


def test_an_id_and_a_domain_may_be_of_a_kind_of_text() -> None:
    made = outcome([Job(id=Text("a"), domain=Text("d")), Job(id=Dataset.IRIS, domain=Dataset.IRIS)])
    assert made[0] == '{"id":"a","domain":"d","params":{}}\n{"id":"iris","domain":"iris","params":{}}\n'
    assert made[1] == repr({"a": "d", "iris": "iris"})


# ------------------------------------------------------------------------- what jobs need


def own_of(**fields: Any) -> OwnSettings:
    return planning.own_settings(Job(id="a", **fields), 1)


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"cpus": 4}, Needs(cpus=4)),
        ({"cpus": numpy.float32(0.1), "memory": "8G"}, Needs(cpus=0.1, memory=8 << 30)),
        ({"cpus": numpy.int64(4), "gpus": numpy.float32(0.5)}, Needs(cpus=4, gpus=0.5)),
        ({"cpus": Fraction(1, 2), "gpus": Decimal("0.25")}, Needs(cpus=0.5, gpus=0.25)),
        ({"cpus": "1.5", "gpus": "2"}, Needs(cpus=1.5, gpus=2)),
        ({"memory": numpy.int64(3 << 20)}, Needs(memory=3 << 20)),
        ({"memory": numpy.int64(0)}, Needs(memory=0)),
        ({"memory": 0}, Needs(memory=0)),
        ({"memory": "none"}, Needs(memory=0)),
        ({"gpus": 0}, Needs(gpus=0)),
        ({"gpus": 0.25, "resources": {"b": 1, "a": 2}}, Needs(gpus=0.25, resources={"a": 2, "b": 1})),
        ({"resources": MappingProxyType({"license": numpy.int8(1)})}, Needs(resources={"license": 1})),
    ],
)
def test_what_a_job_needs_is_kept_as_numbers(fields: dict[str, Any], needs: Needs) -> None:
    own = own_of(**fields)
    assert own == OwnSettings(needs=needs)
    written = msgspec.to_builtins(own)["needs"]
    assert msgspec.json.decode(msgspec.json.encode(written), type=Needs) == needs


@pytest.mark.parametrize("fields", [{}, {"resources": {}}, {"cpus": None, "resources": None}])
def test_a_job_that_says_nothing_has_nothing_of_its_own(fields: dict[str, Any]) -> None:
    assert own_of(**fields) is NOTHING_OWN


def test_needs_stand_in_the_plan_of_those_jobs_alone() -> None:
    text = outcome([Job(id="a"), Job(id="b", cpus=2, memory="1G", timeout=3), Job(id="c", gpus=0)])[0]
    needs = [json.loads(line).get("needs") for line in text.splitlines()]
    assert needs == [None, {"cpus": 2, "memory": 1 << 30}, {"gpus": 0}]


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout": 5},
        {"retries": 1},
        {"priority": 1},
        {"cpus": 2},
        {"memory": 0},
        {"gpus": 0},
        {"resources": {"license": 1}},
        {"cpus": -1},
        {"resources": 1},
    ],
)
def test_one_job_among_many_that_says_something_is_noticed(fields: dict[str, Any]) -> None:
    """Jobs whose params have known names are looked at together."""
    jobs = [Job(id=str(n), params={"n": n}, **(fields if n == 300 else {})) for n in range(600)]
    assert outcome(jobs) == one_by_one(jobs) != outcome([Job(id=str(n), params={"n": n}) for n in range(600)])


def test_equal_needs_are_one_object() -> None:
    plan = build_plan(function, (Job(id=str(n), cpus=n % 2 + 1) for n in range(6)), None, all_tasks=True)
    assert len(set(map(id, plan.builder.own.values()))) == 2


SHARE = "expected a whole number of GPUs, or less than 1 for a share of one"
SIZE = "expected a size: 1000000, 400M or 2G"


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("cpus", -1, "cpus=-1: expected a number of 0.001 or more"),
        ("cpus", 0, "cpus=0: expected a number of 0.001 or more"),
        ("cpus", "many", "cpus='many': expected a number"),
        ("cpus", float("nan"), "cpus=nan: expected a number"),
        ("cpus", True, "cpus=True: expected a number"),
        ("cpus", 10**7, "cpus=10000000: expected at most 1,000,000"),
        ("cpus", numpy.array([[1], [2]]), "cpus=array([[1], [2]]): expected a number"),
        ("cpus", numpy.array([4]), "cpus=array([4]): expected a number"),
        ("cpus", numpy.True_, "cpus=np.True_: expected a number"),
        ("cpus", numpy.complex64(1), "cpus=np.complex64(1+0j): expected a number"),
        ("cpus", Decimal("sNaN"), "cpus=Decimal('sNaN'): expected a number"),
        ("memory", 1 << 70, f"memory={1 << 70}: expected a size of at most 4,194,304T"),
        ("memory", -1, "memory=-1: expected a size of at least 1M"),
        ("memory", 5, "memory=5: expected a size of at least 1M"),
        ("memory", 8e9, f"memory=8000000000.0: {SIZE}"),
        ("memory", "8Q", "memory='8Q': '8Q' is not a size: write 1000000, 400M or 2G"),
        ("memory", False, f"memory=False: {SIZE}"),
        ("memory", [8], f"memory=[8]: {SIZE}"),
        ("memory", numpy.array([1, 2]), f"memory=array([1, 2]): {SIZE}"),
        ("gpus", 1.5, f"gpus=1.5: {SHARE}"),
        ("gpus", -0.5, f"gpus=-0.5: {SHARE}"),
        ("gpus", 0.0001, f"gpus=0.0001: {SHARE}"),
        ("gpus", [1], "gpus=[1]: expected a number"),
        ("resources", ["license"], "resources=['license']: expected names and amounts, such as "),
        ("resources", {"a b": 1}, "resources={'a b': 1}: 'a b' is not a name: "),
        (
            "resources",
            {"license": 0},
            "resources={'license': 0}: license=0: expected a number of 0.001 or more",
        ),
        ("resources", {"a\nb": 1}, "resources={'a\\nb': 1}: 'a\\nb' is not a name: "),
        ("resources", {"a": "1\n2"}, "resources={'a': '1\\n2'}: a=1 2: expected a number"),
        (
            "resources",
            {"gpus": 1},
            "resources={'gpus': 1}: 'gpus' is no resource of your own",
        ),
        ("priority", 1.5, "priority=1.5: expected a whole number (higher ones start first)"),
        ("priority", None, "priority=None: expected a whole number (higher ones start first)"),
    ],
)
def test_a_need_that_makes_no_sense_is_refused_with_job_and_field(field: str, value: Any, why: str) -> None:
    jobs = [Job(id="fine"), Job(id="a", **{field: value})]
    kind, told = outcome(jobs)
    assert (kind, told) == one_by_one(jobs)
    assert told.startswith(f"job 'a': {why}") and "\n" not in told


# --------------------------------------------------------------------------- plain dicts


@pytest.mark.parametrize("kind", [list, iter])
def test_a_dict_is_a_job_with_these_params(kind: Callable[[Any], Any]) -> None:
    dicts: list[Any] = [{"rate": 0.1, "size": 3}, {"rate": 0.2, "size": (1, 2)}, {}]
    assert outcome(lambda: kind(dicts)) == outcome([Job(params=params) for params in dicts])
    mixed = [Job(id="a"), {"rate": 1}, Job(id="b", domain="d"), {"rate": 2}]
    assert outcome(lambda: kind(mixed)) == outcome(
        [Job(id="a"), Job(params={"rate": 1}), Job(id="b", domain="d"), Job(params={"rate": 2})]
    )


def test_one_dict_may_be_used_for_all_jobs_of_a_generator() -> None:
    def jobs() -> Iterator[dict[str, int]]:
        params: dict[str, int] = {}
        for number in range(3):
            params["number"] = number
            yield params

    assert '"number=0"' in (text := outcome(jobs)[0]) and '"number=2"' in text


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ([{"a": 1}, {"a": 1}], "two jobs have the id 'a=1'"),
        ([{"a": object()}], "job number 1: params"),
        ([{1: 2}], "job number 1: params"),
        ({"a": 1}, "an iterable of Job or of dicts of params"),
        ([("a", 1)], "neither a Job nor a dict of params: write a dict, {name: value}"),
        ([Job(id=5, params={"a": 1})], "a non-empty string, not 5; write id='5'"),  # type: ignore[arg-type]
        (
            lambda: None,
            "not NoneType None; the function returned nothing: return the list, or yield each job",
        ),
    ],
)
def test_dicts_that_are_no_jobs_are_refused(jobs: Any, words: str) -> None:
    kind, said = outcome(jobs)
    assert kind == "refused" and words in said


def test_a_dict_that_looks_like_a_job_is_told_what_a_job_is() -> None:
    with pytest.raises(UsageError, match="a dict is the params themselves, with an id it is a Job"):
        build_plan(lambda rate: rate, [{"id": "x", "params": {"rate": 1}}], None, all_tasks=True)
