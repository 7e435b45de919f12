"""One experiment with something of everything, made once by a script; each test looks at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.__main__ import main
from tests.experiment_fixture import experiment

__all__ = ["experiment"]

ROOT = Path(__file__).resolve().parent.parent.parent

SCRIPT = """
import os
from supervisor import Job, main
from workers import current_job

def prepare():
    return "prepared"

def evaluate(kind, n=0):
    print("working on", kind, n)
    assert current_job().context == "prepared"
    if kind == "raise":
        raise ValueError(f"no such split: {n}")
    if kind == "crash":
        os._exit(3)
    if kind == "flaky" and current_job().attempt == 1:
        raise OSError("connection reset")
    return {"x": n / 4, "nan": float("nan"), "in": {"list": [1, 2]}, "seed": current_job().seed}

JOBS = [Job(id=f"raise/{n}", domain="bad", params={"kind": "raise", "n": n}) for n in range(7)]
JOBS += [Job(id="crash/1", params={"kind": "crash"}), Job(id="flaky/1", params={"kind": "flaky"})]
JOBS += [
    Job(id=name, params={"kind": "ok", "n": n})
    for n, name in enumerate(["-dash", "with blank", "a/b/c", "star[*]", "last"])
]

if __name__ == "__main__":
    main(evaluate, JOBS, name="trial", setup=prepare, all_tasks=True, workers=1, retries=1, seed=7)
"""

Longhaul = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a script that has run once, as the experiment `night`."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "exp.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "exp.py", "--experiment-id", "night"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return folder


@pytest.fixture
def outputs(finished: Path) -> Path:
    """data/outputs/trial; not to be changed."""
    return finished / "data" / "outputs" / "trial"


@pytest.fixture
def spare(outputs: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    shutil.copytree(outputs, tmp_path / "trial")
    return tmp_path / "trial"


@pytest.fixture
def longhaul(capsys: pytest.CaptureFixture[str]) -> Longhaul:
    """Run the command in this process; its exit code, stdout and stderr."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
