"""The command `longhaul`, on experiments that a script has made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from supervisor.__main__ import main
from supervisor.storage.files.lock import Lock

ROOT = Path(__file__).resolve().parent.parent.parent

SCRIPT = """
from supervisor import Job, main

def evaluate(n):
    return 1 // n

if __name__ == "__main__":
    main(evaluate, [Job(id=str(n), params={"n": n}) for n in range(3)], name="pilot", workers=1)
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    script = folder / "exp.py"
    script.write_text(SCRIPT)
    for name in ("one", "two"):
        done = subprocess.run(
            [sys.executable, str(script), "--experiment-id", name],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stderr
    return folder / "data" / "outputs"


@pytest.mark.parametrize("below", [".", "pilot"])
def test_list_finds_the_experiments_of_one_name_or_of_all(
    outputs: Path, below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", str(outputs / below)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["experiment", "state", "completed", "failed", "left", "saved"]
    assert [line.split()[:6] for line in lines[1:]] == [
        ["one", "finished", "2", "of", "3", "1"],
        ["two", "finished", "2", "of", "3", "1"],
    ]


def test_status_is_of_the_latest_one_unless_it_is_named(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "latest", str(outputs)]) == 0
    assert capsys.readouterr().out.startswith("pilot two: finished, ")
    assert main(["status", "one", str(outputs)]) == 0
    assert capsys.readouterr().out.startswith("pilot one: finished, ")


def test_a_supervisor_that_is_gone_is_noticed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = outputs / "pilot" / "logs" / "progress_one.json"
    before = path.read_bytes()
    document = msgspec.json.decode(before)
    document["state"] = "running"
    path.write_bytes(msgspec.json.encode(document))
    try:
        assert main(["status", "one", str(outputs)]) == 0
        assert "is gone; resume with" in capsys.readouterr().out
        assert main(["list", str(outputs)]) == 0
        assert "running" not in capsys.readouterr().out
    finally:
        path.write_bytes(before)


def test_an_experiment_that_is_being_run_is_listed_as_running(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = Lock.acquire(outputs / "pilot" / "logs" / "lock_one", "one")
    try:
        assert main(["list", str(outputs)]) == 0
        assert "one         running      2 of 3" in capsys.readouterr().out
    finally:
        lock.release()
    assert main(["list", str(outputs)]) == 0
    assert "one         finished" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_without_a_usable_progress_file_the_checkpoint_tells(
    outputs: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = outputs / "pilot" / "logs" / "progress_two.json"
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    try:
        assert main(["status", "two", str(outputs)]) == 0
    finally:
        path.write_bytes(before)
    assert "two         finished     2 of 3" in capsys.readouterr().out


def test_what_is_not_there_is_one_line_and_exit_code_2(
    tmp_path: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"No checkpoints found to resume from in {tmp_path}"
    assert len(lines) == 2 and "python SCRIPT.py" in lines[1] and "longhaul exec" in lines[1]
    assert main(["list", str(tmp_path / "nowhere")]) == 2
    assert main(["status", "three", str(outputs)]) == 2
    assert main(["status", "../one", str(outputs)]) == 2
    err = capsys.readouterr().err
    assert err.count("error: ") == err.count("\n") == 3


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "status",
        "failures",
        "show 1",
        "output 1",
        "memory",
        "replay 1",
        "results",
        "report",
        "web",
        "verify",
        "rm latest",
        "ctl pause",
        "list -d outputs",
    ],
)
def test_a_directory_that_is_deleted_is_said(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(words.split()) == 2
    told = "error: the directory that this was started in is deleted; start it in another one\n"
    assert capsys.readouterr().err == told


def test_the_module_supervisor_is_the_command() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "supervisor", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.startswith("longhaul ")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("statu", "did you mean status?; there are exec, list"),
        ("zzz", "unknown command 'zzz'; there are exec, list"),
        ("run.py", "unknown command 'run.py'; a script is started by Python: python run.py"),
    ],
)
def test_an_unknown_command_names_the_nearest(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "latest"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: ") and said in printed.err


def test_what_is_missing_is_said_with_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: which command? There are exec, list") and "longhaul --help" in said
    for words, missing in ((["ctl"], "ORDER"), (["rm"], "ID"), (["show"], "JOB")):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        said = capsys.readouterr().err
        assert f"are required: {missing}; longhaul {words[0]} --help explains them" in said


def test_an_experiment_in_the_place_of_the_job_is_told_where_it_belongs(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in ("one", "pilot"):
        assert main(["show", word, "a=1", "-d", str(outputs)]) == 2
        said = capsys.readouterr().err
        assert said == f"error: {word} is an experiment, and the job stands before it: a=1 {word}\n"
    assert main(["show", "neither", "a=1", "-d", str(outputs)]) == 2
    assert "the job stands before" not in capsys.readouterr().err
