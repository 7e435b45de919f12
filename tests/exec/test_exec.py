"""Programs as jobs through the command line: values, results, ends, resume."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.exec.conftest import Folder
from tests.experiment_fixture import wait_for


def test_a_program_runs_once_for_each_combination_and_its_last_line_is_the_result(folder: Folder) -> None:
    folder.write("train.sh", 'echo "trying $1"\necho "{\\"sum\\": $(($1 + $2))}"\necho oops >&2\n')
    run = folder.exec("--param", "lr=1,2", "--param", "seed=1..3", "--", "sh", "train.sh", "{lr}", "{seed}")
    assert run.returncode == 0, run.stderr
    assert folder.results() == {
        f"lr={lr},seed={seed}": {"sum": lr + seed} for lr in (1, 2) for seed in (1, 2, 3)
    }
    assert folder.log("lr=1,seed=2").splitlines() == ["trying 1", '{"sum": 3}', "oops"]


def test_values_stay_the_text_that_they_were(folder: Folder) -> None:
    folder.write("grid.csv", 'lr,case\n1e-3,007\n"a, ""b""","new\nline"\n')
    run = folder.exec(
        "--jobs", "grid.csv", "--id", "{#}", "--", sys.executable, "-c", SHOW, "{lr}", "-{case}-"
    )
    assert run.returncode == 0, run.stderr
    assert folder.results() == {
        "1": {"words": ["1e-3", "-007-"], "lr": "1e-3"},
        "2": {"words": ['a, "b"', "-new\nline-"], "lr": 'a, "b"'},
    }
    assert folder.final()["1"]["params"] == {"lr": "1e-3", "case": "007", "#": "1"}


SHOW = "import json, os, sys; print(json.dumps({{'words': sys.argv[1:], 'lr': os.environ['LONGHAUL_PARAM_lr']}}))"


def test_lines_of_standard_input_are_jobs_whatever_they_hold(folder: Folder) -> None:
    names = ["a b", "q'x", 'q"x', "-dash", "ünï", "*", "{}", "$HOME", "new\nline", "../up/c.tar.gz"]
    words = ["{line}", "{name}", "{stem}", "{parent}", "{{{line}}}"]
    code = (
        "import json, os, sys; print(json.dumps({{'words': [os.fsencode(w).hex() for w in sys.argv[1:]]}}))"
    )
    run = folder.exec(
        "--jobs", "-", "--", sys.executable, "-c", code, *words, stdin="\0".join(names).encode() + b"\0\xff\0"
    )
    assert run.returncode == 0, run.stderr
    words_of = {
        job: [bytes.fromhex(word) for word in result["words"]] for job, result in folder.results().items()
    }
    assert list(words_of) == [*names, "\\udcff"]
    path = b"../up/c.tar.gz"
    assert words_of[path.decode()] == [path, b"c.tar.gz", b"c.tar", b"../up", b"{" + path + b"}"]
    assert all(words_of[name][0] == name.encode() for name in names)
    assert words_of["\\udcff"][0] == b"\xff"


# By its script: the outcome, the message, the exit code or signal.
ENDS: dict[str, tuple[str, str, dict[str, int]]] = {
    "echo first; echo last words >&2; exit 3": ("raised", "exit code 3: last words", {"exit_code": 3}),
    "kill -SEGV $$": ("crashed", "SIGSEGV: the program was killed by SIGSEGV", {"signal": 11}),
    "kill -KILL $$": ("crashed", "SIGKILL: the program was killed by SIGKILL, perhaps", {"signal": 9}),
    "kill -USR1 $$": (
        "raised",
        "SIGUSR1: the program was killed by SIGUSR1",
        {"signal": int(signal.SIGUSR1)},
    ),
    "echo '{' > $LONGHAUL_RESULT": ("unencodable", "the file LONGHAUL_RESULT is not JSON", {}),
    "no-such-program-here": ("raised", "exit code 127: ", {"exit_code": 127}),
}


def test_how_a_program_ends_is_the_outcome_of_its_job(folder: Folder) -> None:
    words = ("--crash-limit", "1", "--jobs", "-", "--", "sh", "-c", "{line}")
    run = folder.exec(*words, stdin="".join(f"{script}\n" for script in ENDS))
    assert run.returncode == 1, run.stderr
    for script, entry in zip(ENDS, folder.final().values(), strict=True):
        outcome, message, how = ENDS[script]
        error = entry["error"]
        assert error["outcome"] == outcome, script
        assert {key: error[key] for key in ("exit_code", "signal") if key in error} == how, script
        assert message in f"{error['type']}{': ' if error['type'] else ''}{error['message']}", script
    assert "Traceback" not in run.stderr


def test_a_resume_repeats_nothing_and_needs_nothing_said_again(folder: Folder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = 'echo "$1" >> ran.txt; test -e fixed -o "$1" != b || exit 1'
    first = folder.exec(
        "--name", "letters", "--jobs", "-", "--", "sh", "-c", code, "sh", "{line}", stdin="a\nb\nc\n"
    )
    assert first.returncode == 1, first.stderr
    assert "exec --resume experiment_" in first.stderr
    folder.write("fixed", "")
    environment = {**os.environ, "LONGHAUL_OUTPUT": str(folder.outputs("letters"))}
    again = folder.exec("--resume", "latest", cwd=elsewhere, env=environment)
    assert again.returncode == 0, again.stderr
    assert sorted((folder.path / "ran.txt").read_text().split()) == ["a", "b", "b", "c"]


def test_a_changed_command_and_changed_files_of_it_are_told_as_changed_code(folder: Folder) -> None:
    folder.write("solve.sh", "echo one\n")
    command = ["--jobs", "-", "--", "sh", "solve.sh"]
    assert folder.exec(*command, "{line}", stdin="a\n").returncode == 0
    folder.write("solve.sh", "echo two\n")
    again = folder.exec("--resume", "latest")
    assert "solve.sh changed after 1 result; they are kept" in again.stderr.replace(
        "it is kept", "they are kept"
    )
    other = folder.exec("--resume", "latest", "--", "sh", "solve.sh", "-v", "{line}")
    assert "the command" in other.stderr
    codes = {entry["code"] for entry in folder.final().values()}
    assert len(codes) == 1 and None not in codes


def test_auto_with_an_id_makes_this_experiment_once_and_then_goes_on_with_it(folder: Folder) -> None:
    """As cron and Slurm do: the same line again and again, with another experiment that is unfinished beside it."""
    folder.exec("--param", "x=9", "--max-failures", "1", "--", "false")
    line = ("--resume", "auto", "--experiment-id", "night", "--param", "x=1,2", "--", "test", "{x}", "=", "1")
    first = folder.exec(*line)
    assert first.returncode == 1 and "2 jobs, " in first.stderr, first.stderr
    again = folder.exec(*line)
    assert again.returncode == 1 and "night" in again.stderr, again.stderr
    plans = {path.stem for path in (folder.outputs() / "logs").glob("plan_*")}
    assert len(plans) == 2 and "plan_night" in plans
    ended = (folder.outputs() / "logs" / "journal_night.jsonl").read_text().count('"job":"x=2"')
    more = folder.exec("--resume", "auto", "--experiment-id", "night", "--param", "x=1,2,3")
    assert "1 to run" in more.stderr, more.stderr
    assert (folder.outputs() / "logs" / "journal_night.jsonl").read_text().count('"job":"x=2"') == ended


def test_latest_is_an_experiment_of_exec_and_of_no_script(folder: Folder) -> None:
    folder.exec("--param", "x=1", "--", "false")
    folder.write(
        "script.py",
        "from supervisor import main\ndef f(x): return x\n"
        "if __name__ == '__main__': main(f, [dict(x=1)], name='script')\n",
    )
    import subprocess

    subprocess.run([sys.executable, "script.py"], cwd=folder.path, check=True, capture_output=True)
    again = folder.exec("--longhaul-resume=latest")
    assert again.returncode == 1, again.stderr
    assert len(folder.attempts("x=1")) == 2


def test_nothing_that_a_program_has_started_outlives_it(folder: Folder) -> None:
    script = "sleep 1230.5 & setsid sleep 1230.5 & (trap '' TERM HUP; sleep 1230.5) & echo '{{\"x\": 1}}'"
    run = folder.exec("--param", "x=1..3", "--", "sh", "-c", script)
    assert run.returncode == 0, run.stderr
    assert folder.results() == {f"x={x}": {"x": 1} for x in (1, 2, 3)}
    assert folder.processes("1230.5") == []
    assert "killed what the program has left behind: " in folder.log("x=1")


def test_a_program_is_killed_with_its_tree_when_the_supervisor_is_killed(folder: Folder) -> None:
    process = folder.start("exec", "--param", "x=1", "--", "sh", "-c", "setsid sleep 1231.5 & sleep 1231.5")
    wait_for(lambda: len(folder.processes("1231.5")) >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not folder.processes("1231.5"))


def test_a_list_of_standard_input_is_run_in_the_background(folder: Folder) -> None:
    start = folder.exec("--detach", "--jobs", "-", "--", "echo", "{line}", stdin="a\nb\n")
    assert start.returncode == 0 and "runs in the background" in start.stderr, start.stderr
    wait_for(lambda: list(folder.outputs().glob("*/logs_final.json")))
    assert set(folder.final()) == {"a", "b"}


def test_a_command_without_a_name_in_braces_is_told(folder: Folder) -> None:
    run = folder.exec("--jobs", "-", "--", "sh", "-c", "echo $LONGHAUL_PARAM_line", stdin="a\n")
    assert "no {name} stands in the command" in run.stderr and folder.log("a") == "a\n"
    assert "no {name}" not in folder.exec("--resume", "latest").stderr


def test_after_kill_9_and_a_torn_record_nothing_that_is_on_record_runs_again(folder: Folder) -> None:
    script = "echo start $1 >> ran; sleep 0.05; echo end $1 >> ran"
    lines = "".join(f"{number}\n" for number in range(40))
    words = ["exec", "--workers", "2", "--jobs", "list", "--", "sh", "-c", script, "sh", "{line}"]
    folder.write("list", lines)
    process = folder.start(*words)
    ran = folder.path / "ran"
    wait_for(lambda: ran.exists() and ran.read_text().count("end") >= 10)
    process.kill()
    process.wait()
    wait_for(lambda: not folder.processes(script))
    (journal,) = folder.outputs().glob("logs/journal_*.jsonl")
    os.truncate(journal, journal.stat().st_size - 8)
    recorded = [record["job"] for record in folder.journal() if record["type"] == "ended"]
    again = folder.exec("--resume", "latest")
    assert again.returncode == 0 and "was cut short" in again.stderr, again.stderr
    words_of = [line.split() for line in ran.read_text().splitlines()]
    starts, ends = ([job for word, job in words_of if word == wanted] for wanted in ("start", "end"))
    assert set(ends) == set(map(str, range(40)))
    assert recorded and all(starts.count(job) == 1 for job in recorded)


def test_dry_run_prints_command_lines_for_a_shell_and_leaves_nothing(folder: Folder) -> None:
    run = folder.exec(
        "--dry-run", "--param", "x=a b,c", "--param", "n=9..11", "--", "echo", "{x}", "it's {n}"
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0] == "echo 'a b' 'it'\"'\"'s 9'"
    assert list(folder.path.iterdir()) == []
