"""What users of other runners of commands have reported: each was tried here, and what is of its kind is mended."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.exec.conftest import Folder


def test_values_that_are_too_long_for_the_environment_keep_no_program_from_starting(folder: Folder) -> None:
    """argo-workflows#12190, toil#3955: "Argument list too long", though the command is short."""
    folder.write(
        "big.jsonl", json.dumps({f"x{number}": "y" * 90_000 for number in range(40)} | {"n": "7"}) + "\n"
    )
    run = folder.exec("--jobs", "big.jsonl", "--id", "{n}", "--", "echo", '{{"n": {n}}}')
    assert run.returncode == 0, run.stderr
    assert folder.results() == {"7": {"n": 7}}
    words = [f"{{x{number}}}" for number in range(40)]
    run = folder.exec("--name", "long", "--jobs", "big.jsonl", "--id", "{n}", "--", "echo", *words)
    assert folder.final("long")["7"]["error"]["message"].startswith("echo: Argument list too long (in /")


def test_a_list_by_process_substitution_is_kept_for_a_resume(folder: Folder) -> None:
    """tabtools#14, thc-hydra#35: /dev/fd/63 is there once."""
    command = f"{sys.executable} -m supervisor exec --jobs <(printf 'a\\nb\\n') -- test {{line}} = a"
    first = subprocess.run(
        ["bash", "-c", command], cwd=folder.path, capture_output=True, text=True, check=False
    )
    assert first.returncode == 1, first.stderr
    again = folder.exec("--resume", "latest")
    assert again.returncode == 1, again.stderr
    assert [len(folder.attempts(job)) for job in "ab"] == [1, 2]


def test_a_program_that_removes_its_folder_or_spoils_its_result_is_judged_by_its_end(folder: Folder) -> None:
    """cctools#2738 and others: what a task leaves where its runner looks is not the next one's business."""
    run = folder.exec(
        "--param", "x=1,2", "--", "sh", "-c", 'rm -rf "$LONGHAUL_DIRECTORY"; echo "{{\\"x\\": {x}}}"'
    )
    assert run.returncode == 0, run.stderr
    assert folder.results() == {"x=1": {"x": 1}, "x=2": {"x": 2}}
    script = 'test $LONGHAUL_ATTEMPT = 2 || mkdir -p "$LONGHAUL_RESULT/deep"; test -d "$LONGHAUL_RESULT" || echo "{{}}"'
    folder.exec("--name", "spoilt", "--param", "x=1", "--", "sh", "-c", script)
    assert folder.final("spoilt")["x=1"]["error"]["message"] == "LONGHAUL_RESULT is not a file"
    again = folder.exec("--name", "spoilt", "--resume", "latest")
    assert again.returncode == 0 and folder.results("spoilt") == {"x=1": {}}, again.stderr


def test_a_replay_ends_with_the_program_whoever_still_holds_its_output(folder: Folder) -> None:
    """opencode#48414, rayforce#579: a child in a session of its own keeps the pipe open."""
    run = folder.exec("--param", "x=1", "--", "sh", "-c", "setsid sleep 1237.5 & echo '{{\"x\": 1}}'")
    assert run.returncode == 0, run.stderr
    began = time.monotonic()
    again = folder.longhaul("replay", "x=1", str(folder.experiment()))
    assert again.returncode == 0 and "the same result as in the record" in again.stderr
    assert time.monotonic() - began < 30
    assert folder.processes("1237.5") == []


def test_a_program_in_a_replay_is_not_stopped_by_the_terminal(folder: Folder) -> None:
    """ninja#909: in a group of its own, but in the session of the terminal, it is stopped when it opens that."""
    run = folder.exec("--param", "x=1", "--", "sh", "-c", "stty sane < /dev/tty; echo '{{\"x\": 1}}'")
    assert run.returncode == 0, run.stderr
    words = [sys.executable, "-m", "supervisor", "replay", "x=1", str(folder.experiment())]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, words, {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    seen = b""
    while b"result" not in seen.partition(b"completed in")[2]:
        seen += os.read(terminal, 4096)
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"the same result as in the record" in seen


def test_words_are_the_same_bytes_in_a_locale_that_is_not_utf8(folder: Folder, tmp_path: Path) -> None:
    """sabnzbd#543: a name of a file in UTF-8, and LANG is something else."""
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["--jobs", "-", "--param", "é=à", "--id", "ü{#}", "--", "printf", "%s|", "ö", "{line}", "{é}"]
    run = folder.exec(*words, stdin="ünï\n".encode() + b"\xff\n", env=plain)
    assert run.returncode == 0, run.stderr
    logs = [path.read_bytes() for path in sorted((folder.experiment() / "output").glob("*.log"))]
    assert logs == ["ö|ünï|à|".encode(), "ö|".encode() + b"\xff" + "|à|".encode()]
    assert list(folder.final()) == ["ü1", "ü2"]
    dry = subprocess.run(
        [sys.executable, "-m", "supervisor", "exec", "--dry-run", "--resume", "latest"],
        cwd=folder.path,
        env=plain,
        capture_output=True,
        check=False,
    )
    assert dry.stdout.splitlines()[0] == "printf '%s|' 'ö' 'ünï' 'à'".encode()


def test_what_failed_is_told_in_the_words_of_a_program(folder: Folder) -> None:
    """No traceback, no debugger of Python; the command that it was, to be tried by hand."""
    script = "echo step $1; test $1 != 2 || exit 3; test $1 != 3 || kill -SEGV $$"
    run = folder.exec("--param", "n=1..3", "--", "sh", "-c", script, "s h", "{n}")
    assert run.returncode == 1, run.stderr
    shown = folder.longhaul("show", "n=2", str(folder.experiment())).stdout
    assert f"\ncommand  sh -c '{script}' 's h' 2\n" in shown
    told = folder.longhaul("failures", str(folder.experiment())).stdout
    assert "longhaul replay n=" in told and "--pdb" not in told
    groups = json.loads(folder.longhaul("failures", "--json", str(folder.experiment())).stdout)
    assert {one["kind"]: (one["traceback"], one["output_tail"]) for one in groups} == {
        "exit code 3": ("", ["step 2"]),
        "SIGSEGV": ("", ["step 3"]),
    }
    assert folder.longhaul("report", str(folder.experiment()), "-o", "r.html").returncode == 0
    page = (folder.path / "r.html").read_text()
    assert "traceback of" not in page and "last output of n=2" in page
    assert "<dt>program</dt>" in page and "{n}" in page.partition("<dt>program</dt>")[2].partition("</dd>")[0]
    (progress,) = (folder.outputs() / "logs").glob("progress_*.json")
    document = json.loads(progress.read_text())
    progress.write_text(json.dumps({**document, "state": "running"}))
    told = folder.longhaul("status", str(folder.experiment())).stdout
    assert re.search(
        rf"is gone; resume with: .*supervisor exec --resume {document['experiment_id']}\n", told
    ), told


def test_a_traceback_of_a_program_in_python_is_called_so(folder: Folder) -> None:
    run = folder.exec("--param", "n=1", "--", sys.executable, "-c", "[][{n}]")
    assert run.returncode == 1, run.stderr
    (only,) = json.loads(folder.longhaul("failures", "--json", str(folder.experiment())).stdout)
    assert only["traceback"].startswith("Traceback (most recent") and "IndexError" in only["traceback"]
