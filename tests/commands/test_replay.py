"""longhaul replay: one job of a record, once more, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.conftest import ROOT, snapshot
from tests.experiment_fixture import wait_for

pytestmark = pytest.mark.slow


def replay(*words: str | Path, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "supervisor", "replay", *map(str, words)],
        input=stdin,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The script and its outputs, to be spoilt; the record still names the first place."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_completed_job_gives_the_same_result_again(outputs: Path, tmp_path: Path) -> None:
    before = snapshot(outputs)
    done = replay("a/b/c", outputs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "working on ok 2\n"
    assert "the same result as in the record" in done.stderr
    assert snapshot(outputs) == before
    assert list(tmp_path.iterdir()) == []


def test_a_failure_comes_again_and_pdb_opens_where_it_happened(outputs: Path, tmp_path: Path) -> None:
    done = replay("raise/3", outputs, "--pdb", stdin="p kind, n\nq\n", cwd=tmp_path)
    assert done.returncode == 1
    assert "('raise', 3)" in done.stdout
    assert "-> raise ValueError(" in done.stdout
    assert "in the record it raised: ValueError no such split: 3" in done.stderr
    trace = done.stderr[done.stderr.index("Traceback") :]
    assert "commands" not in trace


def test_the_attempt_is_the_one_of_the_record(outputs: Path, tmp_path: Path) -> None:
    done = replay("flaky/1", outputs, cwd=tmp_path)  # it fails in its first attempt only
    assert done.returncode == 0
    assert "attempt 2" in done.stderr


def test_a_job_that_kills_its_process_is_announced(outputs: Path, tmp_path: Path) -> None:
    done = replay("crash/1", outputs, cwd=tmp_path)
    assert done.returncode == 3
    assert "may crash this process as well" in done.stderr


def test_a_job_without_a_record_yet_can_be_replayed_and_artifacts_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "exp.py").write_text("""
import sys
from supervisor import Job, main
from workers import current_job

def evaluate(n):
    (current_job().directory / "made").write_text("x")
    return [str(current_job().directory), sys.argv[1:], open("exp.py").readline()]

if __name__ == "__main__":
    main(evaluate, [Job(id=str(n), params={"n": n}) for n in range(2)], name="trial", all_tasks=True)
""")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "exp.py", "--only", "0"]
    subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)
    outputs = tmp_path / "data" / "outputs" / "trial"
    done = replay("1", outputs, cwd=ROOT)  # another directory than that of the run
    assert done.returncode == 0, done.stderr
    place, argv, _ = json.loads(done.stderr[done.stderr.index("[") :].splitlines()[0])
    assert not Path(place).exists() and str(outputs) not in place
    assert argv == ["--only", "0"]


def test_a_script_that_has_gone_is_asked_for(folder: Path, finished: Path, tmp_path: Path) -> None:
    outputs = folder / "data" / "outputs" / "trial"
    journal = outputs / "logs" / "journal_night.jsonl"
    checkpoint = outputs / "logs" / "checkpoint_night.json"
    assert str(finished / "exp.py") in checkpoint.read_text()
    moved = finished / "exp.py"
    text = moved.read_text()
    moved.unlink()
    try:
        done = replay("last", outputs, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith(f"error: the script {moved} is not there")
        changed = tmp_path / "other.py"
        changed.write_text(text + "# changed\n")
        done = replay("last", outputs, "--script", changed, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"{changed} has changed since the last run" in done.stderr
    finally:
        moved.write_text(text)
    assert journal.exists()


def test_a_script_that_breaks_when_imported_is_one_clear_error(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    done = replay("last", outputs, "--script", tmp_path / "broken.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: the script cannot be imported: ModuleNotFoundError" in done.stderr
    (tmp_path / "empty.py").write_text("")
    done = replay("last", outputs, "--script", tmp_path / "empty.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "has no 'evaluate'" in done.stderr


def test_a_function_that_nobody_can_import_is_told(tmp_path: Path) -> None:
    program = (
        "import supervisor\n"
        "def f(n): return n\n"
        "supervisor.run(f, [supervisor.Job(id='x', params={'n': 1})], name='trial', progress=False)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    done = replay("x", cwd=tmp_path)
    assert done.returncode == 2
    assert "a notebook" in done.stderr and "Traceback" not in done.stderr


ENDLESS = """
from supervisor import Job, main

def evaluate():
    open("began", "w").close()
    while True:
        pass

if __name__ == "__main__":
    main(evaluate, [Job(id="endless")], name="night", timeout=0.5, retries=0, output="out")
"""


@pytest.mark.parametrize(("word", "end"), [("", "shows where it is"), ("--pdb", "opens the debugger")])
def test_a_job_that_ran_into_its_timeout_is_replayed_without_one(tmp_path: Path, word: str, end: str) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert run.returncode == 1, run.stderr
    (tmp_path / "began").unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor", "replay", "endless", "out", *filter(None, [word])],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((tmp_path / "began").exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert f"its timeout does not apply here; Ctrl+C {end}" in err
    assert "endless.py" in err and "KeyboardInterrupt" in err
    assert ("(Pdb)" in out) == bool(word)
