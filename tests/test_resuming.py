"""Whether the function is what the results were made with, over several runs."""

from __future__ import annotations

from typing import Any

from supervisor.resuming import code_changed, with_earlier


def code(module: str, function: str) -> dict[str, Any]:
    return {"function": "evaluate", "file": "/x/exp.py", "sha256": module, "function_sha256": function}


class Runs:
    """One run after the other, each with the code that its script has then."""

    def __init__(self, first: dict[str, Any]) -> None:
        self.last = first

    def resume(self, now: dict[str, Any], kept: int) -> str:
        """What is said."""
        found = with_earlier(self.last, now, kept)
        said = code_changed(self.last, found, kept)
        self.last = found
        return said or ""


def test_a_change_is_told_when_it_is_made_and_that_results_are_mixed_as_long_as_they_are() -> None:
    runs = Runs(code("m1", "f1"))
    assert runs.resume(code("m1", "f1"), 9) == ""
    assert "evaluate changed after 9 results; they are kept" in runs.resume(code("m2", "f2"), 9)
    assert "since some of the 12 results" in runs.resume(code("m2", "f2"), 12)
    assert "since some of the 8 results" in runs.resume(code("m3", "f2"), 8)  # the others are repeated
    assert runs.resume(code("m3", "f2"), 0) == ""  # all are
    assert runs.resume(code("m3", "f2"), 12) == ""


def test_a_file_that_changes_around_the_function_is_told_once() -> None:
    runs = Runs(code("m1", "f1"))
    assert "exp.py changed after 1 result, evaluate itself did not" in runs.resume(code("m2", "f1"), 1)
    assert runs.resume(code("m2", "f1"), 2) == ""


def test_a_function_that_is_as_it_was_again_is_still_not_that_of_all_results() -> None:
    runs = Runs(code("m1", "f1"))
    runs.resume(code("m2", "f2"), 3)
    assert "changed after 5 results" in runs.resume(code("m1", "f1"), 5)
    assert runs.last["earlier"] == ["f2"]


def test_a_function_without_a_file_is_known_by_its_own_source() -> None:
    before, now = {"function": "f", "sha256": "a"}, {"function": "f", "sha256": "b"}
    assert "f changed after 3 results" in (code_changed(before, with_earlier(before, now, 3), 3) or "")
