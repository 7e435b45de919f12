from __future__ import annotations

import json
import sys
from subprocess import CalledProcessError
from time import perf_counter

import pytest

from workers.runner import Runner
from workers.transport.messages import Failed, Failure
from workers.values.tracebacks import MAX_TEXT, describe


def failure_of(function: object, **params: object) -> Failed:
    line = json.dumps({"id": "j", "domain": None, "params": params}).encode()
    outcome = Runner(function).run(3, 1, line, perf_counter())  # type: ignore[arg-type]
    assert isinstance(outcome, Failed)
    return outcome


def test_a_place_in_the_users_code_is_named_rather_than_one_in_a_library() -> None:
    def job() -> None:
        json.loads("{")

    failure = failure_of(job).failure
    assert failure.where == f"test_tracebacks.py:{job.__code__.co_firstlineno + 1}"
    assert failure.type == "json.decoder.JSONDecodeError"
    assert failure.traceback.startswith("Traceback (most recent call last):\n")
    assert "runner.py" not in failure.traceback and "json.loads" in failure.traceback


def test_causes_and_notes_are_kept() -> None:
    def job() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            second = ValueError("second")
            second.add_note("look here")
            raise second from error

    text = failure_of(job).failure.traceback
    assert "KeyError: 'first'" in text and "direct cause" in text and "look here" in text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, StopIteration])
def test_whatever_is_raised_is_an_outcome(kind: type[BaseException]) -> None:
    def job() -> None:
        raise kind()

    outcome = failure_of(job)
    assert (outcome.lease, outcome.outcome, outcome.failure.type) == (3, "raised", kind.__name__)


def test_an_errno_is_kept() -> None:
    def job() -> None:
        raise OSError(28, "No space left on device", "/some/file")

    assert failure_of(job).failure.errno == 28


class Hostile(Exception):
    def __init__(self, first: str, second: str) -> None:
        self.first = first

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def test_an_exception_that_cannot_be_shown_or_pickled_does_no_harm() -> None:
    def job() -> None:
        raise Hostile("a", "b")

    failure = failure_of(job).failure
    assert failure.type.endswith("Hostile")
    assert failure.message == "(its __str__ raised RuntimeError)"


def test_lone_surrogates_are_made_encodable() -> None:
    def job() -> None:
        raise ValueError("name \udcff")

    failure = failure_of(job).failure
    assert failure.message == "name \\udcff"
    failure.traceback.encode()


def test_long_texts_keep_head_and_tail() -> None:
    def job() -> None:
        raise ValueError("start" + "x" * 1_000_000 + "end")

    failure = failure_of(job).failure
    assert failure.message.startswith("start") and failure.message.endswith("end")
    assert len(failure.message) < 9000 and len(failure.traceback) < MAX_TEXT + 100


def test_a_recursion_without_end_is_described_shortly() -> None:
    def job(depth: int = 0) -> int:
        return job(depth + 1) + other(depth)

    def other(depth: int) -> int:
        return job(depth)

    failure = failure_of(job).failure
    assert failure.type == "RecursionError" and len(failure.traceback) < MAX_TEXT


def test_wrong_parameters_are_an_outcome_of_the_job() -> None:
    def job(x: int) -> int:
        return x

    failure = failure_of(job, y=1).failure
    assert failure.type == "TypeError" and "'y'" in failure.message


def test_a_result_without_a_form_names_its_path_and_shows_itself() -> None:
    outcome = failure_of(lambda: {"models": [1, object()]})
    assert outcome.outcome == "unencodable"
    assert outcome.failure.message.startswith("/models/1: ")
    assert "<object object" in outcome.failure.value_repr


def test_a_result_whose_repr_raises_does_no_harm() -> None:
    class Bad:
        def __repr__(self) -> str:
            sys.exit(1)

    outcome = failure_of(Bad)
    assert outcome.failure.value_repr == "<Bad whose __repr__ raised SystemExit>"


@pytest.mark.parametrize("error", [SystemExit(), ValueError("out"), CalledProcessError(-15, ["solver"])])
def test_what_a_job_raises_when_its_process_was_asked_to_stop_is_not_its_fault(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm's scancel signals the programs that jobs wait for as well as us."""

    def job() -> None:
        raise error

    assert failure_of(job).outcome == "raised"
    monkeypatch.setattr("workers.job.current_job.CURRENT.stopping", True)
    assert failure_of(job).outcome == "interrupted"


def test_an_exception_that_was_never_raised_can_be_described() -> None:
    assert describe(ValueError("x")) == Failure("ValueError", "x", "ValueError: x\n")
