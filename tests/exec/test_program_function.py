"""`program`: a program as the function of a script's jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisor import Job, UsageError, program, run


def test_jobs_of_a_script_are_runs_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    function = program("sh", "-c", 'echo "{{\\"x\\": $1}}"; exit {code}', "sh", "{x}", retry_codes=[75])
    jobs = [
        Job(id="good", params={"x": 0.5, "code": 0}),
        Job(id="again", params={"x": 1, "code": 75}, retries=1),
        Job(id="bad", params={"x": 1, "code": 3}, retries=1),
        Job(id="less", params={"x": 1}, retries=1),
    ]
    report = run(function, jobs, name="programs", backoff=0.01, workers=2, progress=False)
    assert report.results() == {"good": {"x": 0.5}}
    assert {one.job: (one.type, one.attempt) for one in report.failures()} == {
        "again": ("exit code 75", 2),
        "bad": ("exit code 3", 1),
        "less": ("no value", 1),
    }


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ((), {}),
        (("",), {}),
        (("a", 1), {}),
        (("a", "{"), {}),
        (("a",), {"result": "x"}),
        (("a",), {"on_drain": "x"}),
    ],
)
def test_a_command_that_cannot_be_run_is_refused(words: Any, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"program\(\): "):
        program(*words, **more)
