"""Programs and a run that stops: the grace time, SIGTERM first, saved states, interruptions, further attempts."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.conftest import some
from tests.exec.conftest import Folder
from tests.experiment_fixture import wait_for

# Counts to the number in its second word, keeps in LONGHAUL_STATE how far it is, and stops at SIGTERM.
COUNTER = """
import json, os, pathlib, signal, sys, time
state = pathlib.Path(os.environ["LONGHAUL_STATE"])
at = int(state.read_text()) if state.exists() else 0
began = at
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
pathlib.Path(f"started-{os.environ['LONGHAUL_ATTEMPT']}").touch()
while at < int(sys.argv[1]) and not (asked or pathlib.Path("die").exists()):
    at += 1
    time.sleep(0.02)
    state.with_suffix(".new").write_text(str(at))
    state.with_suffix(".new").rename(state)
if pathlib.Path("die").exists():
    os.kill(os.getpid(), signal.SIGKILL)
if at >= int(sys.argv[1]) or len(sys.argv) > 2:
    print(json.dumps({"began": began, "at": at}))
"""


@pytest.fixture
def counter(folder: Folder) -> Folder:
    folder.write("counter.py", COUNTER)
    return folder


def started(folder: Folder, attempt: int) -> bool:
    return (folder.path / f"started-{attempt}").exists() and bool(
        list(folder.outputs().glob("*/states/*.state"))
    )


def test_a_drain_lets_a_program_go_on_for_the_grace_time(counter: Folder) -> None:
    process = counter.start("exec", "--param", "n=60", "--", sys.executable, "counter.py", "{n}")
    wait_for(lambda: started(counter, 1))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert counter.results() == {"n=60": {"began": 0, "at": 60}}


def test_with_term_a_program_stops_saves_and_goes_on_where_it_was(counter: Folder) -> None:
    words = ["--on-drain", "term", "--param", "n=100", "--", sys.executable, "counter.py", "{n}"]
    process = counter.start("exec", *words)
    wait_for(lambda: started(counter, 1))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    (first,) = counter.attempts("n=100")
    assert (first["outcome"], first["state"], first["error"]["message"]) == (
        "interrupted", "in_progress", "the program ended after SIGTERM without a result"
    )  # fmt: skip
    again = counter.exec("--resume", "latest")
    assert again.returncode == 0, again.stderr
    (result,) = counter.results().values()
    assert result["at"] == 100 and result["began"] > 0
    assert not list(counter.experiment().glob("states/*.state"))


def test_with_term_a_program_that_has_written_its_result_is_completed(counter: Folder) -> None:
    words = ["--on-drain", "term", "--param", "n=100000", "--", sys.executable, "counter.py", "{n}", "partly"]
    process = counter.start("exec", *words)
    wait_for(lambda: started(counter, 1))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert [one["outcome"] for one in counter.attempts("n=100000")] == ["completed"]


def test_a_crashed_program_finds_its_state_again(counter: Folder) -> None:
    process = counter.start("exec", "--param", "n=60", "--", sys.executable, "counter.py", "{n}")
    wait_for(lambda: started(counter, 1))
    counter.write("die", "")
    wait_for((counter.path / "started-2").exists)
    (counter.path / "die").unlink()
    process.communicate(timeout=60)
    assert counter.attempts("n=60")[0]["outcome"] == "crashed"
    (result,) = counter.results().values()
    assert result["at"] == 60 and result["began"] > 0


def test_a_program_that_somebody_ends_runs_again_and_nothing_is_charged(folder: Folder) -> None:
    script = "test $LONGHAUL_ATTEMPT -gt 1 || kill -TERM $$; echo '{{\"x\": 1}}'"
    run = folder.exec("--param", "x=1", "--", "sh", "-c", script)
    assert run.returncode == 0, run.stderr
    first, second = folder.attempts("x=1")
    assert (first["outcome"], first.get("charged", "")) == ("interrupted", "")
    assert "ended by SIGTERM" in first["error"]["message"]
    assert second["outcome"] == "completed"


@pytest.mark.parametrize(
    ("options", "codes"),
    some(
        [
            (["--retry-codes", "75,111"], {"75": 2, "111": 2, "1": 1}),
            (["--retry-codes", "75", "--retries", "2"], {"75": 3, "111": 1, "1": 1}),
            (["--retries", "1"], {"75": 2, "111": 2, "1": 2}),  # without these codes, as scripts have it
        ],
        2,
    ),
)
def test_only_these_exit_codes_get_another_attempt(
    folder: Folder, options: list[str], codes: dict[str, int]
) -> None:
    words = [
        "--backoff",
        "0.01",
        "--param",
        "code=75,111,1",
        "--id",
        "{code}",
        "--",
        "sh",
        "-c",
        "exit {code}",
    ]
    run = folder.exec(*options, *words)
    assert run.returncode == 1, run.stderr
    assert {code: len(folder.attempts(code)) for code in codes} == codes


def test_a_program_that_hangs_is_killed_with_all_that_it_has_started(folder: Folder) -> None:
    script = "trap '' TERM; setsid sleep 1233.5 & sleep 1233.5; sleep 1233.5"
    run = folder.exec("--timeout", "0.7s", "--param", "x=1", "--", "sh", "-c", script)
    assert run.returncode == 1, run.stderr
    assert [one["outcome"] for one in folder.attempts("x=1")] == ["timed_out"]
    wait_for(lambda: not folder.processes("1233.5"))


def test_what_a_program_does_to_its_group_reaches_no_worker(folder: Folder) -> None:
    script = "trap : ALRM; kill -ALRM 0; echo '{{\"x\": 1}}'"
    run = folder.exec("--param", "x=1..4", "--workers", "1", "--", "sh", "-c", script)
    assert run.returncode == 0, run.stderr
    assert [entry["attempts"] for entry in folder.final().values()] == [1] * 4


def test_signals_and_descriptors_are_as_in_a_shell(folder: Folder) -> None:
    code = (
        "import json, os, signal, sys; s = open('/proc/self/status').read().split('\\n');"
        "pick = {{k: v.strip() for k, _, v in (l.partition(':') for l in s) if k in ('SigBlk', 'SigIgn', 'SigCgt')}};"
        "pick['files'] = sorted(os.listdir('/proc/self/fd'), key=int)[:4];"
        "pick['stdin'] = sys.stdin.read(); pick['leads'] = os.getpgid(0) == os.getpid();"
        "print(json.dumps(pick))"
    )
    run = folder.exec("--param", "x=1", "--", sys.executable, "-S", "-c", code)
    assert run.returncode == 0, run.stderr
    (found,) = folder.results().values()
    of_python = {signal.SIGPIPE, signal.SIGXFSZ}  # which it ignores itself
    of_libc = {32, 33}  # which glibc ignores in whatever it spawns, and nobody can use
    ignored = {number for number in range(1, 65) if int(found["SigIgn"], 16) >> (number - 1) & 1}
    assert int(found["SigBlk"], 16) == 0
    assert ignored - of_libc == of_python
    assert found["files"] == ["0", "1", "2", "3"]  # 3: the folder that is listed
    assert found["stdin"] == "" and found["leads"]


def test_what_only_python_has_set_is_not_in_the_environment(folder: Folder) -> None:
    """Where the locale is C, Python chooses UTF-8 for itself and for what it starts."""
    bare = {name: value for name, value in os.environ.items() if name not in ("LANG", "LC_ALL", "LC_CTYPE")}
    script = 'echo "{{\\"locale\\": \\"${{LC_CTYPE-none}}\\", \\"hash\\": \\"${{PYTHONHASHSEED-none}}\\"}}"'
    run = folder.exec("--param", "x=1", "--", "sh", "-c", script, env=bare)
    assert run.returncode == 0, run.stderr
    assert folder.results() == {"x=1": {"locale": "none", "hash": "none"}}
    run = folder.exec(
        "--name", "own", "--param", "x=1", "--", "sh", "-c", script, env={**bare, "LC_CTYPE": "C.UTF-8"}
    )
    assert folder.results("own") == {"x=1": {"locale": "C.UTF-8", "hash": "none"}}
