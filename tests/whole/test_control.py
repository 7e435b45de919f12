"""`longhaul ctl`: runs that are steered from another terminal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.__main__ import main
from tests.experiment_fixture import ROOT, Experiment, Said, longhaul, wait_for
from tests.failures.observing import stop

# Each job runs until a file of its name is there.
SCRIPT = """
    GATES = Path(os.environ["EXECUTIONS"]).parent / "gates"

    def evaluate(name):
        note("began")
        while not (GATES / name).exists() and not (GATES / "all").exists():
            if current_job().stopping:
                note("stopping")
            time.sleep(0.005)
        if (GATES / f"{name}.fail").exists():
            raise ValueError("no")
        note("ran")
        return name

    if __name__ == "__main__":
        jobs = [Job(id=f"job/{n}", params={"name": str(n)}) for n in range(6)]
        main(evaluate, jobs, name="@NAME@", workers=2, grace=60)
    """


@pytest.fixture
def gated(experiment: Experiment) -> Experiment:
    experiment.write(SCRIPT)
    (experiment.folder / "gates").mkdir()
    return experiment


def open_gate(experiment: Experiment, *names: object) -> None:
    for name in names:
        (experiment.folder / "gates" / str(name)).touch()


def ctl(experiment: Experiment, *words: str) -> Said:
    return longhaul("ctl", *words, "-d", str(experiment.output))


def told(experiment: Experiment, *words: str) -> str:
    done = ctl(experiment, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def looked(capsys: pytest.CaptureFixture[str], command: str, *words: str) -> str:
    capsys.readouterr()
    assert main([command, *(["latest"] if command == "status" else []), *words]) == 0
    return capsys.readouterr().out


def progress(experiment: Experiment) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(experiment.path("progress").read_text())
    return found


def listens(experiment: Experiment) -> str | None:
    """The socket of the run that is going on."""
    paths = list(experiment.output.glob("logs/progress_*.json"))
    found: str | None = json.loads(paths[0].read_text())["control"] if paths else None
    return found


def start(experiment: Experiment, *arguments: str, began: int = 2, **keywords: Any) -> subprocess.Popen[str]:
    process = experiment.start(*arguments, **keywords)
    wait_for(lambda: listens(experiment), "the run listens")
    wait_for(lambda: len(experiment.executions("began")) >= began, "jobs run")
    return process


def finish(experiment: Experiment, process: subprocess.Popen[str], code: int = 0) -> str:
    open_gate(experiment, "all")
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return err


def experiment_ended(experiment: Experiment) -> tuple[str, int]:
    """How the last run has ended, as it is recorded."""
    *_, ended = [record for record in experiment.journal() if record["type"] == "run_ended"]
    return ended["state"], ended["exit_code"]


def orders(experiment: Experiment) -> list[dict[str, Any]]:
    return [r["detail"] for r in experiment.journal() if r["type"] == "noted" and r["what"] == "control"]


def test_a_paused_run_starts_nothing_until_it_is_resumed(gated: Experiment) -> None:
    process = start(gated)
    assert told(gated, "pause") == "paused: 2 running jobs go on, nothing new is handed out"
    open_gate(gated, 0, 1)
    wait_for(lambda: len(gated.completed_in_journal()) == 2)
    wait_for(lambda: progress(gated)["state"] == "paused")
    assert "paused by hand" in progress(gated)["waiting_for"]
    assert len(gated.executions("began")) == 2
    assert "going on after a pause" in told(gated, "resume")
    err = finish(gated, process)
    assert "longhaul ctl pause (uid " in err
    assert "  paused by hand: " in err
    assert "  longhaul ctl: pause, resume\n" in err
    assert "longhaul ctl pause (uid " in (gated.output / gated.experiment_id() / "supervisor.log").read_text()
    assert [(entry["order"], entry["uid"]) for entry in orders(gated)] == [
        ("pause", os.getuid()),
        ("resume", os.getuid()),
    ]
    assert [r["why"] for r in gated.journal() if r["type"] in ("paused", "unpaused")] == ["user", "user"]
    assert listens(gated) is None


@pytest.mark.parametrize("order", ["drain", "stop"])
def test_a_run_that_is_ended_from_outside_exits_with_76_and_can_be_resumed(
    gated: Experiment, capsys: pytest.CaptureFixture[str], order: str
) -> None:
    process = start(gated)
    told(gated, order)
    if order == "drain":
        wait_for(lambda: len(gated.executions("stopping")) >= 2, "the jobs know")
        open_gate(gated, 0, 1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 76, err
    assert experiment_ended(gated) == ("stopped", 76)
    assert "resume later with: " in err
    assert "stopped early" in err
    assert (err.count("stopping now"), err.count(" to finish")) == ((0, 1) if order == "drain" else (1, 0))
    assert "stopped early" in looked(capsys, "status", str(gated.output))
    assert "  stopped early  " in looked(capsys, "list", str(gated.output))
    if order == "stop":
        assert "  stopped early  " in gated.run("--list-checkpoints").stdout
    (row,) = json.loads(looked(capsys, "list", str(gated.output), "--json"))
    assert (row["state"], progress(gated)["state"]) == ("unfinished", "interrupted")
    assert len(gated.completed_in_journal()) == (2 if order == "drain" else 0)
    finish(gated, gated.start("--resume", "latest"))
    assert len(gated.completed_in_journal()) == 6


def test_ctrl_c_after_a_drain_stops_now_and_counts_as_the_signal(gated: Experiment) -> None:
    process = start(gated)
    told(gated, "drain")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT


def test_workers_come_and_go_and_a_resume_takes_the_remembered_number(gated: Experiment) -> None:
    process = start(gated)
    assert "2 before, 4 from now on" in told(gated, "workers", "4")
    wait_for(lambda: len(gated.executions("began")) == 4)
    assert "4 before, 1 from now on; 3 finish a job first" in told(gated, "workers", "1")
    open_gate(gated, 0, 1, 2, 3)
    wait_for(lambda: len(gated.executions("began")) == 5)
    wait_for(lambda: len(progress(gated)["workers"]) == 1)
    assert progress(gated)["workers"][0]["worker"] == 0
    told(gated, "drain")
    open_gate(gated, 4)
    process.communicate(timeout=60)
    assert len(gated.executions("began")) == 5
    finish(gated, start(gated, "--resume", "latest", began=6))
    assert [r["settings"]["workers"] for r in gated.journal() if r["type"] == "run_started"] == [2, 2]


def test_a_start_beside_a_run_that_goes_on_does_not_offer_to_resume_it(gated: Experiment) -> None:
    process = start(gated, "--experiment-id", "first")
    stop(process.pid)
    open_gate(gated, "all")  # it keeps its lock, whatever is left of it
    try:
        done = gated.run("--experiment-id", "second")
    finally:
        process.send_signal(signal.SIGCONT)
    assert "first is also being run" in done.stderr
    assert "--resume first" not in done.stderr
    finish(gated, process)


def test_cancelled_jobs_are_failed_and_a_resume_leaves_them_unless_they_are_named(
    gated: Experiment,
) -> None:
    process = start(gated)
    text = told(gated, "cancel", "job/0", "job/[45]")
    assert "1 running is ended, 2 waiting are not started" in text
    err = finish(gated, process, code=1)
    assert "FAILED" not in err
    assert "3 × cancelled" in err
    assert "--debug" not in err and "--rerun GLOB" in err
    final = gated.final()
    assert {job: entry["error"]["outcome"] for job, entry in final.items() if entry["state"] == "failed"} == {
        "job/0": "cancelled",
        "job/4": "cancelled",
        "job/5": "cancelled",
    }
    assert (final["job/0"]["attempts"], final["job/4"]["attempts"]) == (1, 0)
    assert gated.statistics()["cancelled"] == 3
    assert gated.statistics()["attempts"] == 4
    again = gated.run("--resume", "latest")
    assert again.returncode == 1, again.stderr
    assert "3 cancelled (--rerun JOB tries again)" in again.stderr
    assert "try the failed again" not in again.stderr
    assert len(gated.executions("ran")) == 3
    os.unlink(gated.path("checkpoint"))
    assert gated.run("--resume", "latest").returncode == 1
    assert len(gated.executions("ran")) == 3
    assert gated.run("--resume", "latest", "--rerun", "job/[045]").returncode == 0
    assert len(gated.completed_in_journal()) == 6


def test_a_failed_job_is_tried_again_at_once_and_others_are_refused(gated: Experiment) -> None:
    open_gate(gated, 0, "0.fail")
    process = start(gated, began=3)
    wait_for(lambda: [r for r in gated.journal() if r.get("state") == "failed"])
    os.unlink(gated.folder / "gates" / "0.fail")
    refused = ctl(gated, "retry", "job/1")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "error: job/1 is running: not failed\n"
    assert told(gated, "retry", "job/*").startswith("job/0: back in line")
    finish(gated, process)
    assert gated.final()["job/0"]["attempts"] == 2


def test_what_is_not_running_is_told_plainly(experiment: Experiment) -> None:
    experiment.output.mkdir()
    assert "nothing is running in " in ctl(experiment, "pause").stderr
    experiment.made("night", ["job/0"], name="trial")
    for words in (("pause",), ("night", "pause"), ("latest", "pause")):
        done = ctl(experiment, *words)
        assert done.returncode == 2
        assert "not running" in done.stderr or "nothing is running" in done.stderr
    document = progress(experiment)
    document.update(state="running", control="/nowhere", supervisor={"pid": 1, "host": "node17"})
    experiment.path("progress").write_text(json.dumps(document))
    assert "night runs on node17 (pid 1)" in ctl(experiment, "night", "pause").stderr


@pytest.mark.parametrize(
    "words", [(), ("pasue",), ("workers",), ("workers", "many"), ("retry",), ("x", "workers"), ("pause", "1")]
)
def test_a_wrong_order_names_the_right_one(experiment: Experiment, words: tuple[str, ...]) -> None:
    experiment.output.mkdir()
    done = ctl(experiment, *words)
    assert done.returncode == 2
    assert "expected `" in done.stderr or "unknown order" in done.stderr or "required" in done.stderr


@pytest.mark.parametrize("words", [("workers", "3"), ("drain",)])
def test_an_experiment_that_is_named_last_is_to_be_named_first(
    experiment: Experiment, words: tuple[str, ...]
) -> None:
    experiment.output.mkdir()
    done = ctl(experiment, *words, "night")
    assert done.returncode == 2
    assert f"the ID goes before it: longhaul ctl night {' '.join(words)}\n" in done.stderr
    assert "the ID goes" not in ctl(experiment, "night", *words, "x").stderr


def test_a_killed_supervisor_leaves_a_socket_that_the_next_one_replaces(gated: Experiment) -> None:
    """And a pause that the next one has forgotten."""
    process = start(gated)
    told(gated, "pause")
    path = Path(str(listens(gated)))
    process.kill()
    process.communicate()
    assert path.is_socket()
    assert "it has died" in ctl(gated, gated.experiment_id(), "pause").stderr
    process = start(gated, "--resume", "latest", began=4)
    assert "paused" in told(gated, "pause")
    told(gated, "resume")
    finish(gated, process)
    assert not path.exists()


def test_a_stopped_supervisor_harms_no_one_who_asks_and_answers_later(gated: Experiment) -> None:
    """The first answer carries the stacks."""
    process = start(gated)
    answer = json.loads(ctl(gated, "stacks", "--json").stdout)
    assert len(answer["stacks"]) == 2
    assert all("in evaluate" in text for text in answer["stacks"])
    process.send_signal(signal.SIGSTOP)
    asking = subprocess.Popen(
        [sys.executable, "-m", "supervisor", "ctl", "pause", "-d", str(gated.output)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.send_signal(signal.SIGCONT)
    assert "paused" in asking.communicate(timeout=60)[0]
    told(gated, "resume")
    assert "in evaluate" in finish(gated, process)


def test_clients_that_hang_flood_or_lie_are_dropped_and_the_run_goes_on(gated: Experiment) -> None:
    process = start(gated)
    path = str(listens(gated))

    def connected() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        wait_for(lambda: client.connect_ex(path) == 0)
        return client

    def answer(client: socket.socket) -> bytes:
        try:
            return client.recv(1 << 16)
        except ConnectionResetError:
            return b""

    for line in (b"\0" * 70_000, b"{}\n", b"nonsense\n", b'{"order":"explode"}\n', b"[" * 10_000 + b"\n"):
        with connected() as client:
            client.sendall(line)
            assert b'"done":false' in answer(client) or not answer(client)
    silent = [connected() for _ in range(6)]
    assert any(b"too many" in answer(client) for client in silent[-2:])
    for client in silent:
        client.close()
    for _ in range(100):
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect_ex(path)
    assert "paused" in wait_for(lambda: ctl(gated, "pause").stdout)
    told(gated, "resume")
    finish(gated, process)


def test_without_a_place_for_a_socket_the_run_goes_on_and_says_so(gated: Experiment) -> None:
    long = gated.folder / ("x" * 100)
    long.mkdir()
    environment = {**gated.environment(), "TMPDIR": str(long), "XDG_RUNTIME_DIR": str(gated.script)}
    process = start(gated, env=environment)
    assert str(listens(gated)).startswith("/tmp/longhaul-")
    finish(gated, process)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_can_neither_see_nor_use_the_socket(gated: Experiment) -> None:
    process = start(gated)
    path = str(listens(gated))
    for folder in [gated.output, *gated.output.parents]:
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    code = (
        "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for attempt in (os.stat, os.listdir, socket.socket(socket.AF_UNIX).connect):\n"
        "    try: attempt(os.path.dirname(sys.argv[1]) if attempt is os.listdir else sys.argv[1])\n"
        "    except PermissionError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["refused"] * 3, done.stderr
    # Even where the directory lets somebody through, the supervisor looks at who it is.
    os.chmod(os.path.dirname(path), 0o711)
    os.chmod(path, 0o666)
    try:
        asking = (
            "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1])\n"
            'c.sendall(b\'{"order":"stop"}\\n\'); print(c.recv(9999).decode())\n'
        )
        done = subprocess.run(
            [sys.executable, "-c", asking, path], capture_output=True, text=True, check=False
        )
    finally:
        os.chmod(os.path.dirname(path), 0o700)
    assert "belongs to uid 0" in done.stdout or "BrokenPipe" in done.stderr, done.stderr
    assert process.poll() is None
    assert not orders(gated)
    finish(gated, process)
