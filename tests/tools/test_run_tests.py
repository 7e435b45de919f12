"""Tests in parts side by side, and what failed there once more, alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import run_tests

pytestmark = pytest.mark.slow

STEADY = "def test_steady():\n    pass\n"
BROKEN = "def test_broken():\n    assert 1 + 1 == 3\n"
UNSTEADY = """
from pathlib import Path

def test_unsteady():
    been_here = Path(__file__).with_suffix(".been_here")
    if not been_here.exists():
        been_here.touch()
        raise AssertionError("too late")
"""
MANY = """
import pytest

@pytest.mark.parametrize("number", range(20))
def test_number(number):
    with open(__file__ + ".log", "a") as log:
        print(number, file=log)
    assert number < 0
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_tests, "_OURS", tmp_path / "logs")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return Parts(tmp_path)


class Parts:
    """Files of tests, each a part of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def run(self, *texts: str) -> int:
        words = []
        for number, text in enumerate(texts):
            file = self._directory / f"test_{number}.py"
            file.write_text(text)
            words.append(f"PART{number} {file.name}")
        return run_tests.main(["-q", "--", *words])


def test_all_parts_are_run_and_shown(parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    assert parts.run(STEADY, STEADY, STEADY) == 0
    assert capfd.readouterr().out.count("1 passed") == 3


@pytest.mark.parametrize("order", [(BROKEN, STEADY), (STEADY, BROKEN)], ids=["first", "second"])
def test_what_fails_again_is_a_failure(
    parts: Parts, order: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert parts.run(*order) == 1
    shown = capfd.readouterr().out
    assert shown.count("1 failed") == 2 and "UNSTEADY" not in shown


def test_what_passes_alone_is_named(parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    assert parts.run(STEADY, UNSTEADY + STEADY) == 0
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("UNSTEADY")]
    assert "test_1.py::test_unsteady" in line


def test_one_of_two_that_fails_again_is_a_failure(parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    assert parts.run(UNSTEADY + BROKEN) == 1
    assert "UNSTEADY test_0.py::test_unsteady" in capfd.readouterr().out


def test_many_failures_are_not_repeated(parts: Parts, tmp_path: Path) -> None:
    assert parts.run(MANY) == 1
    assert len((tmp_path / "test_0.py.log").read_text().split()) == 20


@pytest.mark.parametrize(
    "text", ["this is no Python", "import os; os._exit(9)", "import os; os.kill(os.getpid(), 9)"]
)
def test_what_is_no_failed_test_fails_at_once(
    parts: Parts, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert parts.run(STEADY, text) > 0
    assert "once more" not in capfd.readouterr().out


def test_what_failed_in_an_earlier_run_is_not_repeated(parts: Parts) -> None:
    assert parts.run(BROKEN) == 1
    assert parts.run(STEADY) == 0
    assert parts.run(UNSTEADY) == 0
