"""Runs that a test starts, with test modules that no import finds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import some
from tests.real_scripts.conftest import RealScript

TEST = """
import functools, pickle
import pytest
from supervisor import Job, run

class Point:
    def __init__(self, x): self.x = x

def evaluate(n, k=1):
    return [type(pickle.loads(pickle.dumps(Point(n)))) is Point, n, k]

class Experiment:
    def go(self, n): return evaluate(n)

FUNCTIONS = [evaluate, functools.partial(evaluate, k=2), Experiment().go, lambda n: evaluate(n)]

@pytest.mark.parametrize("function", FUNCTIONS)
def test_run(tmp_path, function):
    found = run(function, [Job(id="a", params={"n": 3})], name="t", output=tmp_path, progress=False)
    assert found.results() == {"a": [True, 3, 2 if "partial" in repr(function) else 1]}
"""


MODES = ["importlib", "prepend", "append"]
PLACES = ["test_one.py", "tests/inner/test_one.py", "tests/made/test_one.py"]
# First each mode and each place once.
BOTH = [(MODES[n % 3], PLACES[(n + n // 3) % 3]) for n in range(9)]


@pytest.mark.parametrize(("mode", "place"), some(BOTH, 3))
def test_a_run_in_a_test(real_script: RealScript, mode: str, place: str) -> None:
    real_script.write(TEST, at=real_script.folder / place, footer=False)
    if "made" in place:
        for folder in ("tests", "tests/made"):
            (real_script.folder / folder / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--import-mode={mode}", place],
        cwd=real_script.folder,
        env=real_script.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
