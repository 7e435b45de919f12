"""Workers that cannot start or never get ready, and Ctrl+C at any moment of it (P14, P15, P17)."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import some
from tests.experiment_fixture import PATIENCE, Experiment
from tests.failures.observing import cgroup, others_completed, records, write

PLAIN = """
    @BEFORE@

    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(12)]

    def evaluate(number):
        note("ran")
        time.sleep(@SECONDS@)
        return number

    if __name__ == "__main__":
        main(evaluate, jobs, name="plain", workers=4)
"""


def plain(experiment: Experiment, before: str = "", seconds: float = 0.02) -> None:
    write(experiment, PLAIN.replace("@BEFORE@", before).replace("@SECONDS@", str(seconds)))


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ('raise ImportError("no model here")', "no model here"),
        ('print("on the way", flush=True); os._exit(9)', "on the way"),
    ],
    ids=["raises", "exits"],
)
def test_workers_that_never_get_ready_are_tried_three_times_and_billed_to_no_job(
    experiment: Experiment, trouble: str, words: str
) -> None:
    """P14: with a growing wait in between; then the run stops with the worker's own words."""
    plain(experiment, f'if __name__ == "__mp_main__": {trouble}')
    done = experiment.run("--workers", "1")
    assert done.returncode == 75, done.stderr
    assert words in done.stderr
    if "print" in trouble:
        (log,) = experiment.output.glob("*/output/%worker0.log")
        assert f"all that it has printed is in {log}" in " ".join(done.stderr.split()), done.stderr
        assert log.read_text().count(words) == 3
    assert "Traceback (most recent call last):\n  File" not in done.stderr.partition("error:")[0]
    assert len(records(experiment, "worker_started")) == 3
    assert [record["why"] for record in records(experiment, "worker_ended")] == ["never_ready"] * 3
    assert records(experiment, "leased") == records(experiment, "ended") == []
    (ended,) = records(experiment, "run_ended")
    assert ended["wall_seconds"] > 1.0, "there was no wait between the tries"
    if "print" in trouble:
        plain(experiment)
        again = experiment.run("--resume", "latest")
        assert again.returncode == 0, again.stderr
        others_completed(experiment)


def test_what_an_interpreter_says_before_it_can_begin_is_in_a_file_that_is_named(
    experiment: Experiment, tmp_path: Path
) -> None:
    """With the spawn method: not on the terminal; once it begins, with what else belongs to no job."""
    plain(experiment)
    site = tmp_path / "site"
    site.mkdir()
    ahead = f"{site}{os.pathsep}{experiment.environment()['PYTHONPATH']}"
    environment = {**experiment.environment(), "PYTHONPATH": ahead}
    spawned = 'import os, sys\nif "workers.worker:run_spawned_worker" in sys.orig_argv:\n    '
    (site / "sitecustomize.py").write_text(spawned + 'print("no licence", file=sys.stderr); os._exit(3)\n')
    done = experiment.run("--start-method", "spawn", "--workers", "1", env=environment)
    assert done.returncode == 75, done.stderr
    (log,) = experiment.output.glob("*/output/%worker0.log")
    assert f"no licence; all that it has printed is in {log}" in " ".join(done.stderr.split()), done.stderr
    assert done.stderr.count("no licence") == 1
    (site / "sitecustomize.py").write_text(spawned + 'print("two licences", file=sys.stderr)\n')
    again = experiment.run("--resume", "latest", "--start-method", "spawn", "--workers", "1", env=environment)
    assert again.returncode == 0 and "licences" not in again.stderr, again.stderr
    assert log.read_text().count("two licences") == 1
    assert not list(log.parent.glob(".worker*"))


def run(command: list[str], **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, **keywords)


# ------------------------------------------------------------------- P15: no room to start


@pytest.mark.parametrize("room", [1, 4, 5])
def test_where_no_more_processes_may_be_started_the_run_goes_on_with_those_there_are(
    experiment: Experiment, room: int
) -> None:
    """P15: pids.max as a container sets it. The supervisor's three threads and the zygote take
    four; with none left for a worker the run stops, and can be resumed."""
    plain(experiment, seconds=0.05)
    with cgroup("pids") as group:
        (group / "pids.max").write_text(str(room))
        done = experiment.run(
            preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),
        )
    enough = room == 5
    assert done.returncode == (0 if enough else 75), done.stderr
    assert "Traceback" not in done.stderr
    assert enough or "temporarily unavailable" in done.stderr or "new thread" in done.stderr
    if not enough:
        again = experiment.run("--resume", "latest")
        assert again.returncode == 0, again.stderr
    others_completed(experiment)


@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_however_few_files_may_be_open_the_run_ends_in_words_or_completes(
    experiment: Experiment, method: str, tmp_path: Path
) -> None:
    """P15: from too few to write anything down to enough for some of the workers."""
    codes = []
    for limit in (10, 22, 32) if method == "zygote" else (14, 32):
        folder = tmp_path / str(limit)
        folder.mkdir()
        short = Experiment(folder)
        plain(short)
        done = short.run(
            "--start-method",
            method,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
        )
        codes.append(done.returncode)
        assert done.returncode in (0, 73, 74, 75), (limit, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or "Too many open files" in done.stderr
        assert not short.processes()
    assert codes[0] != 0 == codes[-1], "10 or 14 are too few, 32 are enough"
    others_completed(short)


@pytest.mark.parametrize("method", some(["zygote", "spawn"], 1))
def test_a_deleted_working_directory_and_a_long_temporary_one_stop_nothing(
    experiment: Experiment, tmp_path: Path, method: str
) -> None:
    """P15: of the supervisor when it starts, so of the workers as well. Sockets in the temporary one would
    have paths that AF_UNIX does not take."""
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    plain(experiment)

    def go_nowhere() -> None:
        nowhere = tmp_path / "nowhere"
        nowhere.mkdir()
        os.chdir(nowhere)
        nowhere.rmdir()

    environment = {**experiment.environment(), "TMPDIR": str(deep)}
    done = experiment.run("--start-method", method, preexec_fn=go_nowhere, env=environment)
    assert done.returncode == 0, done.stderr
    others_completed(experiment)
    assert list(deep.iterdir()) == []


def test_without_a_place_for_the_results_a_deleted_directory_is_named(
    experiment: Experiment, tmp_path: Path
) -> None:
    """P15: data/outputs would be below a directory that is not there any more."""
    plain(experiment)
    script = f"cd {tmp_path}; mkdir gone; cd gone; rmdir ../gone; exec {sys.executable} {experiment.script}"
    done = run(["sh", "-c", script], env=experiment.environment())
    assert done.returncode == 73, done.stderr
    assert "--output" in done.stderr and "Traceback" not in done.stderr


# --------------------------------------------------------------- P17: Ctrl+C on the way up

# The first thing that main() does.
SAYS_THAT_IT_BEGINS = (
    'import supervisor.api; supervisor.api._check_platform = lambda: print("up", flush=True)'
)
# However late it is pressed.
UNTIL_STOPPED = """while not current_job().stopping:
            time.sleep(0.01)"""


@pytest.mark.parametrize(
    ("method", "presses"),
    [("zygote", 1), ("spawn", 1), ("zygote", 500)],
    ids=["zygote", "spawn", "held down"],
)
def test_ctrl_c_at_any_moment_of_the_start_ends_it_quietly(tmp_path: Path, method: str, presses: int) -> None:
    """P17: to the whole foreground group. No worker dies of it, no traceback, nothing is left."""
    for milliseconds in range(5, 300, 70 if presses == 1 else 140):
        folder = tmp_path / str(milliseconds)
        folder.mkdir()
        experiment = Experiment(folder)
        plain(experiment, SAYS_THAT_IT_BEGINS)
        script = experiment.script.read_text()
        experiment.script.write_text(script.replace("time.sleep(0.02)", UNTIL_STOPPED))
        process = experiment.start("--start-method", method)
        try:
            assert process.stdout is not None and process.stdout.readline() == "up\n"
            time.sleep(milliseconds / 1000)  # not to wait for anything: to hit different moments
            press(process, presses)
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            experiment.clean_up()
        assert process.returncode == -signal.SIGINT, (milliseconds, err)
        assert "Traceback" not in err and "KeyboardInterrupt" not in err, (milliseconds, err)
        deaths = {record.get("signal") for record in records(experiment, "worker_ended")}
        assert deaths <= {None, signal.SIGKILL}, (milliseconds, deaths)
        bad = [r for r in records(experiment, "ended") if r["outcome"] not in ("completed", "interrupted")]
        assert not bad, milliseconds
        for log in experiment.output.rglob("*.log"):  # of the zygote, of the workers
            assert "KeyboardInterrupt" not in log.read_text(), (milliseconds, log)
        assert not experiment.processes()


def press(process: subprocess.Popen[str], times: int) -> None:
    """Ctrl+C, as a terminal sends it; more than once: as long as the program is there."""
    for _ in range(times):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        if times > 1:
            time.sleep(0.003)
        if process.poll() is not None:
            return


def test_a_ctrl_c_on_top_of_a_ctrl_c_is_no_traceback(experiment: Experiment) -> None:
    """P17: the second one comes while the first is told."""
    plain(
        experiment,
        "import supervisor.api; supervisor.api._check_platform = supervisor.api._print_to_stderr = stop",
    )
    text = experiment.script.read_text()
    experiment.script.write_text(f"import os, signal\n\ndef stop(*_):\n    os.kill(os.getpid(), 2)\n\n{text}")
    done = experiment.run()
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_ctrl_c_before_the_first_one_is_dealt_with_is_no_traceback(experiment: Experiment) -> None:
    """P17: the second one comes in the very call that makes further ones harmless."""
    plain(
        experiment, "import supervisor.api; supervisor.api._check_platform = lambda: os.kill(os.getpid(), 2)"
    )
    text = experiment.script.read_text()
    late = (
        "import os, signal\n\ndef late(*words, now=signal.signal, hit=[]):\n    if not hit:\n        hit.append(1)\n"
        "        os.kill(os.getpid(), 2)\n    return now(*words)\n\nsignal.signal = late\n\n"
    )
    experiment.script.write_text(late + text)
    done = experiment.run()
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "interrupted\n")


def test_a_ctrl_c_that_a_worker_got_before_it_had_a_group_of_its_own_is_dropped() -> None:
    """P17: it was blocked and is pending; it must not make the worker give its jobs back."""
    source = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
os.kill(os.getpid(), signal.SIGINT)
from workers.job.current_job import CURRENT
from workers.worker import setup_process
reader, writer = os.pipe()
setup_process(reader)
print(CURRENT.stopping, signal.sigpending())
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("as in any script")
"""
    done = run([sys.executable, "-c", source])
    assert done.stdout.splitlines() == ["False set()", "as in any script"], done.stderr
