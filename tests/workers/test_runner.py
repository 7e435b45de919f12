"""Lines of a message to jobs: decoded together, and each under its own lease."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from time import perf_counter
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import supervisor
import workers
import workers.runner
from workers.job.job_exceptions import JobInterrupted
from workers.runner import Runner, planned, with_output
from workers.transport.messages import Completed, CompletedWith, Failed, Failure

good = st.builds(
    lambda number, text: msgspec.json.encode({"id": f"j{number}", "domain": None, "params": {"x": text}}),
    st.integers(),
    st.text(),
)


def results(lines: list[Any]) -> list[Any]:
    runner = Runner(lambda x: x)
    outcomes = [runner.run(lease, 1, line, perf_counter()) for lease, line in enumerate(lines)]
    return [o.result if isinstance(o, Completed | CompletedWith) else o.failure.message for o in outcomes]


@given(
    st.lists(good | st.sampled_from([b"", b" ", b"{", b"\xff", b'{"id":7}', b"{}"]), min_size=1),
    st.integers(0, 200),
)
def test_each_lease_has_the_line_that_was_meant_for_it(lines: list[bytes], together: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers.runner, "_TOGETHER", together)
        patch.setattr(workers.runner, "_LARGE", 60)
        found = list(planned(b"\n".join(lines)))
    assert len(found) == len(lines)
    assert results(found) == results(list(lines))


def test_more_than_the_result_is_said_only_where_there_is_more() -> None:
    runner = Runner(lambda x: {"plain": x, "tuple": (x,), "nan": float("nan")}[x])
    lines = [msgspec.json.encode({"id": x, "params": {"x": x}}) for x in ("plain", "tuple", "nan")]
    plain, converted, nonfinite = (
        runner.run(lease, 1, line, perf_counter()) for lease, line in enumerate(lines)
    )
    assert isinstance(plain, Completed)
    assert isinstance(converted, CompletedWith) and converted.converted == ["tuple"]
    assert isinstance(nonfinite, CompletedWith) and nonfinite.nonfinite == [("", "nan")]
    loud = CompletedWith(0, plain.seconds, plain.result, 7)
    assert with_output(plain, 7) == loud and with_output(loud, 7) == loud
    assert with_output(converted, 7) == CompletedWith(1, converted.seconds, b'["tuple"]', 7, [], ["tuple"])
    failed = Failed(0, 0.1, "raised", Failure("E", "no"))
    assert with_output(failed, 7) is failed and failed.output == 7


def raised(function: Callable[[], Any]) -> Failed:
    """What becomes of an attempt at a job that calls it."""
    outcome = Runner(function).run(0, 1, msgspec.json.encode({"id": "a", "params": {}}), perf_counter())
    assert isinstance(outcome, Failed)
    return outcome


def test_a_job_is_interrupted_by_either_name_and_by_what_came_pickled_from_a_child() -> None:
    class Saved(JobInterrupted):
        pass

    errors = [
        JobInterrupted("saved"),
        workers.Interrupted("saved"),
        pickle.loads(pickle.dumps(JobInterrupted("saved"))),
        pickle.loads(b"cworkers\nInterrupted\n(Vsaved\ntR."),
    ]
    for error in errors:
        failed = raised(Mock(side_effect=error))
        assert (failed.outcome, failed.wish) == ("interrupted", "")
        assert (failed.failure.type, failed.failure.message) == ("workers.JobInterrupted", "saved")
    assert raised(Mock(side_effect=Saved)).outcome == "interrupted"


def test_another_exception_of_that_name_is_an_error_like_any_other() -> None:
    class Interrupted(Exception):
        pass

    assert raised(Mock(side_effect=Interrupted)).outcome == "raised"
    assert raised(Mock(side_effect=supervisor.RunInterrupted(None))).outcome == "raised"
