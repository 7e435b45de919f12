"""Results for a terminal that is narrow, for one that is not UTF-8, and as a database."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from supervisor.commands.column_fitting import fitted
from tests.commands.conftest import Longhaul
from tests.conftest import some

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
JOB = "Ünï/漢/🎉"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs of which two parameters differ and two do not; results with odd names and values."""
    folder = tmp_path_factory.mktemp("grid")
    script = folder / "grid.py"
    script.write_text(
        "from supervisor import Job, main\n"
        "def f(lr, Seed, seed, model, epochs):\n"
        "    if Seed == 3: raise ValueError('no 漢')\n"
        "    return {'acc': lr * Seed, 'loss': {'train': float('nan'), 'test': float('inf')}, 'big': 2**70,\n"
        "            'job': 'mine', 'layers': [1, 2], 'words': 'x' * 50}\n"
        "jobs = [Job(id=f'Ünï/漢/🎉{s}', params=dict(lr=0.1 * s, Seed=s, seed=7, model='deep', epochs=3))\n"
        "        for s in range(1, 4)]\n"
        "if __name__ == '__main__': main(f, jobs, name='grid', all_tasks=True, workers=2)\n"
    )
    run = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    return folder / "data" / "outputs" / "grid"


def on_terminal(words: list[str], *, width: int, **variables: str) -> str:
    """What a terminal of this width gets to see."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: nobody has it open any more
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert process.wait() == 0, seen
    return re.sub(r"\x1b\[[0-9;]*m", "", seen.decode(errors="replace").replace("\r\n", "\n"))


def test_a_terminal_gets_the_parameters_that_differ_and_the_columns_that_fit(grid: Path) -> None:
    text = on_terminal(["results", str(grid)], width=80)
    lines = text.splitlines()
    assert [line for line in lines[:4] if len(line) > 80] == []
    assert lines[0].split()[:3] == ["job", "params.lr", "params.Seed"]
    assert "params.model" not in lines[0] and "code" not in lines[0]
    assert "the same for all: seed=7, model=deep, epochs=3" in text
    assert "no room for " in text and "--all-columns" in text
    assert "0.2" in text and len([line for line in lines if line.startswith("Ünï")]) == 3
    everything = on_terminal(["results", str(grid), "--all-columns"], width=400)
    assert "params.model" in everything and "result.loss.test" in everything and "no room" not in everything
    chosen = on_terminal(["results", str(grid), "-c", "job,model"], width=80)
    assert "params.model" in chosen and "the same" not in chosen


def test_columns_are_chosen_by_what_they_are_worth_and_keep_their_order() -> None:
    heads = ["job", "state", "params.a", "params.b", "result.x"]
    rows = [["one", "completed", "1", "same", "0.5"], ["two", "failed", "2", "same", ""]]
    table = fitted(heads, rows, 30)
    assert (table.heads, table.rows[0]) == (["job", "params.a", "result.x"], ["one", "1", "0.5"])
    assert table.notes == ["the same for all: b=same", "no room for state; --columns NAMES, or --all-columns"]
    assert fitted(heads, rows, 3).heads == ["job"]
    assert fitted(heads, rows[:1], 200).heads == heads
    assert fitted(heads, [], 200).heads == heads


ENCODINGS, FORMS = ("ascii", "latin-1", "utf-16"), ("table", "csv", "jsonl")
# First each encoding and each form once.
BOTH = [(ENCODINGS[n % 3], FORMS[(n + n // 3) % 3]) for n in range(9)]


@pytest.mark.parametrize(("encoding", "form"), some(BOTH, 3))
def test_a_pipe_that_is_not_utf8_gets_everything(grid: Path, encoding: str, form: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "supervisor", "results", str(grid), "--format", form],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    text = run.stdout.decode(encoding)
    assert len(text.splitlines()) >= 3
    if form == "jsonl":
        assert [json.loads(line)["job"] for line in text.splitlines()] == [f"{JOB}{s}" for s in (1, 2, 3)]


def test_a_terminal_that_is_not_utf8_gets_question_marks(grid: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    text = on_terminal(["results", str(grid)], width=80, **plain)
    assert "?n?/?/?1" in text and "the same for all" in text


def test_a_database_has_five_tables_and_is_written_whole(
    grid: Path, tmp_path: Path, longhaul: Longhaul, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.db"
    target.write_text("what was there before")
    code, text, err = longhaul("results", grid, "-f", "sqlite", "-o", target)
    assert (code, text) == (0, f"written: {target}\n"), err
    assert os.listdir(tmp_path) == ["out.db"]
    with sqlite3.connect(target) as database:
        assert database.execute("SELECT name, jobs, completed, failed FROM experiments").fetchall() == [
            ("grid", 3, 2, 1)
        ]
        joined = "SELECT job, lr, Seed, [params.seed], acc, big, layers FROM jobs JOIN results USING (experiment, job)"
        assert database.execute(joined).fetchall() == [
            (f"{JOB}1", 0.1, 1, 7, 0.1, str(2**70), "[1,2]"),
            (f"{JOB}2", 0.2, 2, 7, 0.4, str(2**70), "[1,2]"),
        ]
        odd = "SELECT [loss.train], [loss.test], [result.job] FROM results LIMIT 1"
        assert database.execute(odd).fetchall() == [(None, float("inf"), "mine")]
        assert database.execute("SELECT outcome, state, attempts FROM jobs WHERE Seed = 3").fetchall() == [
            ("raised", "failed", 1)
        ]
        assert database.execute("SELECT type, message, attempt FROM failures").fetchall() == [
            ("ValueError", "no 漢", 1)
        ]
        assert database.execute("SELECT COUNT(*), COUNT(DISTINCT job) FROM attempts").fetchall() == [(3, 3)]
    before = target.read_bytes()
    monkeypatch.setattr("supervisor.commands.result_database._failures", lambda report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        longhaul("results", grid, "-f", "sqlite", "-o", target)
    assert (os.listdir(tmp_path), target.read_bytes()) == (["out.db"], before)


ENDED_WHILE_IT_WRITES = """
import sys, threading
from supervisor.__main__ import main
from supervisor.commands import result_database

def failures(report):
    print("writing", flush=True)
    threading.Event().wait()

result_database._failures = failures
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_no_half_of_a_database_is_left(grid: Path, tmp_path: Path, signum: signal.Signals) -> None:
    """SIGHUP is what a closed terminal sends."""
    target = tmp_path / "out.db"
    target.write_text("what was there before")
    process = subprocess.Popen(
        [sys.executable, "-c", ENDED_WHILE_IT_WRITES, "results", grid, "-f", "sqlite", "-o", target],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if signum == signal.SIGINT else -signum)
    assert (errors, os.listdir(tmp_path), target.read_text()) == ("", ["out.db"], "what was there before")


def test_several_experiments_go_into_one_database(
    grid: Path, outputs: Path, tmp_path: Path, longhaul: Longhaul
) -> None:
    code, _, err = longhaul("results", grid, outputs, "-f", "sqlite", "-o", tmp_path / "both.db")
    assert code == 0, err
    with sqlite3.connect(tmp_path / "both.db") as database:
        found = dict(
            database.execute("SELECT name, COUNT(*) FROM experiments JOIN jobs USING (experiment) GROUP BY 1")
        )
        assert found == {"grid": 3, "trial": 14}
        assert database.execute("SELECT COUNT(*) FROM jobs WHERE lr IS NULL").fetchone() == (14,)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["-f", "sqlite"], 2, "say which one with -o FILE"),
        (["-f", "sqlite", "-o", "x.db", "-c", "job"], 2, "choose and sort with SQL"),
        (["-f", "sqlite", "-o", "x.db", "-s", "job"], 2, "choose and sort with SQL"),
        (["-f", "sqlite", "-o", "nowhere/x.db"], 73, "cannot be written"),
        (["-f", "sqlite", "-o", "."], 73, "is not a file"),
    ],
)
def test_what_no_database_is_made_for(
    grid: Path,
    words: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    longhaul: Longhaul,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = longhaul("results", grid, *words)
    assert (found, said in err, os.listdir(tmp_path)) == (code, True, []), err
