"""Jobs looked at in groups: the same plan, and the same refusals, as one by one."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.jobs import Job
from supervisor.experiment import planning
from supervisor.experiment.planning import build_plan


def function(**params: Any) -> None: ...


def outcome(jobs: Any, *, group: int | None = None) -> tuple[str, ...]:
    """The text of the plan, its ids and its lengths, or the refusal."""
    together = mock.patch.object(planning, "_GROUP", group or planning._GROUP)
    with together:
        try:
            plan = build_plan(function, jobs, None, all_tasks=True)
        except UsageError as error:
            return ("refused", str(error))
    builder = plan.builder
    text = b"".join(builder.chunks())
    return text.decode(), repr(builder.domains), repr(list(builder.lengths)), repr(builder.own)


def one_by_one(jobs: Any) -> tuple[str, ...]:
    with mock.patch.object(planning._Collected, "add_batch", return_value=False):
        return outcome(jobs, group=1)


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
        ([("a", 1)], "neither a Job nor a dict of params"),
    ],
)
def test_dicts_that_are_no_jobs_are_refused(jobs: Any, words: str) -> None:
    kind, said = outcome(jobs)
    assert kind == "refused" and words in said


def test_a_dict_that_looks_like_a_job_is_told_what_a_job_is() -> None:
    with pytest.raises(UsageError, match="a dict is the params themselves, with an id it is a Job"):
        build_plan(lambda rate: rate, [{"id": "x", "params": {"rate": 1}}], None, all_tasks=True)
