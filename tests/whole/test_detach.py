"""`--detach`: runs in the background; and the word of warning over SSH."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.__main__ import main
from supervisor.session.detach import ssh_warning
from tests.experiment_fixture import Experiment, wait_for

SCRIPT = """
    assert "LONGHAUL_DETACHED" not in os.environ or __name__ == "__main__"

    def evaluate(n):
        note("ran")
        assert "LONGHAUL_DETACHED" not in os.environ
        while not Path("go").exists() and not current_job().stopping:
            time.sleep(0.01)
        return n

    if __name__ == "__main__":
        main(evaluate, [Job(id=f"job/{n}", params={"n": n}) for n in range(3)], name="@NAME@", workers=1)
    """


@pytest.fixture
def script(experiment: Experiment) -> Iterator[Experiment]:
    experiment.write(SCRIPT)
    yield experiment
    (experiment.folder / "go").touch()  # nothing in the background outlives its test


def console(experiment: Experiment) -> str:
    return (experiment.output / "logs" / f"console_{experiment.experiment_id()}.log").read_text()


def supervisor_pid(experiment: Experiment) -> int:
    started = [record for record in experiment.journal() if record["type"] == "run_started"]
    return int(started[-1]["pid"])


def test_the_command_comes_back_when_the_run_has_begun_and_the_run_goes_on(script: Experiment) -> None:
    done = script.run("--detach", "--experiment-id", "night")
    assert done.returncode == 0, done.stderr
    assert "night runs in the background (pid " in done.stderr
    assert f" status --watch night -d {script.output}\n" in done.stderr
    wait_for(script.executions)
    pid = supervisor_pid(script)
    assert f"(pid {pid})" in done.stderr
    assert os.getsid(pid) == pid
    (script.folder / "go").touch()
    wait_for(lambda: "finished after" in console(script))
    assert len(script.completed_in_journal()) == 3
    assert main(["rm", "--yes", "night", "-d", str(script.output)]) == 0
    assert not list(script.output.glob("logs/console_*"))


def test_it_is_ended_as_the_lines_say(script: Experiment) -> None:
    assert script.run("--detach", "--experiment-id", "night").returncode == 0
    wait_for(script.executions)
    path = script.path("progress")
    wait_for(lambda: path.exists() and json.loads(path.read_text())["control"])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["ctl", "night", "drain", "-d", str(script.output)]) == 0
    assert "draining" in out.getvalue()
    wait_for(lambda: "stopped early" in console(script))
    assert "resume later with: " in console(script)
    assert "--detach" not in console(script)


def test_what_is_refused_is_seen_where_it_was_asked_for(script: Experiment) -> None:
    """By the process in the background, and by the one that starts it."""
    done = script.run("--detach", "--resume", "nobody")
    assert done.returncode == 2
    assert "nobody" in done.stderr and "background" not in done.stderr
    wrong = [
        (("--timeout", "soon"), "--timeout soon"),
        (("--no-resume",), "--detach and --no-resume do not go together"),
        (("--debug", "*"), "do not go together"),
    ]
    answers = script.refused(("--detach", *words) for words, _ in wrong)
    for (words, said), done in zip(wrong, answers, strict=True):
        assert (done.returncode, done.made) == (2, False), words
        assert said in done.stderr and "background" not in done.stderr


def test_a_lock_that_is_held_is_seen_too(script: Experiment) -> None:
    process = script.start("--experiment-id", "night")
    wait_for(script.executions)
    done = script.run("--detach", "--resume", "night")
    assert done.returncode == 69
    assert f"is being run by pid {process.pid}" in done.stderr
    (script.folder / "go").touch()
    process.communicate(timeout=60)


def test_a_script_that_dies_before_it_has_begun_gives_its_code(script: Experiment) -> None:
    text = script.script.read_text()
    script.script.write_text(
        text.replace(
            "main(evaluate", "'LONGHAUL_DETACHED' in os.environ and os.kill(os.getpid(), 9); main(evaluate"
        )
    )
    assert script.run("--detach").returncode == 128 + signal.SIGKILL


def test_without_a_script_file_it_is_refused(script: Experiment) -> None:
    done = subprocess.run(
        [sys.executable, "-", "--detach"],
        input=script.script.read_text(),
        cwd=script.folder,
        env=script.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no script file" in done.stderr


# --------------------------------------------------------------------------------- over SSH


def on_a_terminal(experiment: Experiment, **environment: str) -> str:
    """What a run says on a terminal."""
    (experiment.folder / "go").touch()
    ours, theirs = pty.openpty()
    kept = {key: value for key, value in experiment.environment().items() if key not in ("TMUX", "STY")}
    process = subprocess.Popen(
        [sys.executable, str(experiment.script), "--output", str(experiment.output)],
        cwd=experiment.folder,
        env={**kept, "TERM": "dumb", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    experiment.started.append(process)  # type: ignore[arg-type]
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the terminal is closed
        while piece := os.read(ours, 65536):
            said += piece
    os.close(ours)
    assert process.wait(60) == 0
    return said.decode()


SSH = {"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}


@pytest.mark.parametrize(("environment", "warned"), [(SSH, True), ({**SSH, "STY": "12.pts"}, False)])
def test_a_terminal_over_ssh_is_warned_of_in_one_line(
    script: Experiment, environment: dict[str, str], warned: bool
) -> None:
    said = on_a_terminal(script, **environment)
    assert ("--detach starts it in the background" in said) is warned


@pytest.mark.parametrize(
    ("environment", "warned"),
    [
        (SSH, True),
        ({"SSH_TTY": "/dev/pts/3"}, True),
        ({"SSH_TTY": "/dev/pts/3", "TMUX": "/tmp/tmux-0/default,1,0"}, False),
        ({"SSH_TTY": "/dev/pts/3", "STY": "12.pts"}, False),
        ({}, False),
    ],
)
def test_which_terminals_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], warned: bool
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    assert bool(ssh_warning(environment)) is warned


def test_without_a_terminal_there_is_nothing_to_lose(script: Experiment) -> None:
    (script.folder / "go").touch()
    environment = {**script.environment(), "SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}
    assert "--detach" not in script.run(env=environment).stderr


def test_the_mark_of_a_strange_parent_is_no_pipe(script: Experiment, tmp_path: Path) -> None:
    (script.folder / "go").touch()
    done = script.run("--detach", env={**script.environment(), "LONGHAUL_DETACHED": "1000"})
    assert done.returncode == 0
    wait_for(lambda: "finished after" in console(script))
