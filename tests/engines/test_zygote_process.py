"""The zygote that is started before its experiment is open: as good as one that is started late."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.core.terms import events as facts
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.system.interpreter import ROOM_FOR_TAG
from tests.experiment_fixture import Experiment, wait_for
from tests.failures.observing import is_gone
from workers.process.experiment_tag import EXPERIMENT_TAG

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the zygote is Linux only")
Drive = Callable[..., Any]  # conftest.Driver
Ahead = Callable[[], PrestartedZygote]


@pytest.fixture
def ahead() -> Iterator[Callable[[], PrestartedZygote]]:
    """Starts one; in the test itself, since pytest changes the environment before."""
    started: list[PrestartedZygote] = []

    def start() -> PrestartedZygote:
        prestarted = PrestartedZygote.start()
        assert prestarted is not None
        started.append(prestarted)
        return prestarted

    yield start
    for prestarted in started:
        prestarted.discard()


def pid_of(prestarted: PrestartedZygote) -> int:
    assert prestarted._process is not None
    return prestarted._process.pid


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_it_forks_workers_that_carry_the_mark_as_others_see_it(drive: Drive, ahead: Ahead) -> None:
    prestarted = ahead()
    zygote = pid_of(prestarted)
    d = drive(prestarted=prestarted)
    d.start(1)
    assert psutil.Process(d.pid(1)).ppid() == zygote
    for pid in (zygote, d.pid(1)):
        assert psutil.Process(pid).environ()[EXPERIMENT_TAG] == d.tag
    assert d.result(d.lease(1, {"what": "surroundings"}))  # and works
    d.engine.close()
    assert zygote not in children()


def test_it_prints_where_a_zygote_prints(drive: Drive, ahead: Ahead) -> None:
    prestarted = ahead()
    d = drive(setup="setup", prestarted=prestarted)
    d.start(1)
    for descriptor in (1, 2):
        path = os.readlink(f"/proc/{psutil.Process(d.pid(1)).ppid()}/fd/{descriptor}")
        assert path == str(d.output / ".worker-zygote-1.part")


def test_one_that_is_dead_is_not_missed(drive: Drive, ahead: Ahead) -> None:
    prestarted = ahead()
    os.kill(pid_of(prestarted), signal.SIGKILL)
    os.waitid(os.P_PID, pid_of(prestarted), os.WEXITED | os.WNOWAIT)
    d = drive(prestarted=prestarted)
    d.start(1)
    assert psutil.Process(d.pid(1)).environ()[EXPERIMENT_TAG] == d.tag


def test_one_that_dies_when_it_gets_its_orders_is_replaced(
    drive: Drive, ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    prestarted = ahead()
    process = prestarted._process
    assert process is not None
    take = prestarted.take

    def take_and_kill() -> Any:
        taken = take()
        process.kill()
        process.wait()
        return taken

    monkeypatch.setattr(prestarted, "take", take_and_kill)
    d = drive(prestarted=prestarted)
    d.start(1)
    assert psutil.Process(d.pid(1)).ppid() != process.pid


@pytest.mark.parametrize("what", ["limit", "mask"])
def test_one_that_would_inherit_something_else_by_now_is_not_taken(
    drive: Drive, ahead: Ahead, what: str
) -> None:
    prestarted = ahead()
    early = pid_of(prestarted)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    umask = os.umask(0o022)
    os.umask(umask)
    try:
        if what == "limit":
            resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0] - 1, limits[1]))
        else:
            os.umask(0o077 if umask != 0o077 else 0o022)
        d = drive(prestarted=prestarted)
        d.start(1)
    finally:
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    zygote = psutil.Process(psutil.Process(d.pid(1)).ppid())
    assert zygote.pid != early
    assert early not in children()


def test_a_mark_that_does_not_fit_has_a_zygote_of_its_own(drive: Drive, ahead: Ahead) -> None:
    prestarted = ahead()
    early = pid_of(prestarted)

    class Long:
        tag = "test:" + "x" * ROOM_FOR_TAG

    d = drive(method="spawn")  # only for its folder
    d.tag = Long.tag
    from supervisor.engines.local_engine import LocalEngine

    d.engine.close()
    d.engine = LocalEngine(d.spec, start_method="zygote", prestarted=prestarted)
    d.engine.start()
    d.start(1)
    assert psutil.Process(d.pid(1)).environ()[EXPERIMENT_TAG] == Long.tag
    assert psutil.Process(d.pid(1)).ppid() != early


def test_with_another_start_method_it_is_ended_at_once(drive: Drive, ahead: Ahead) -> None:
    prestarted = ahead()
    early = pid_of(prestarted)
    drive(method="spawn", prestarted=prestarted)
    assert early not in children()


# ------------------------------------------------------------------- in the whole program

SCRIPT = """
    def jobs():
        note("jobs", "-")
        @JOBS@
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(3)]

    def evaluate(number):
        note("ran")
        return number

    if __name__ == "__mp_main__":
        note("imported", "-")
    if __name__ == "__main__":
        main(evaluate, jobs, name="ahead", workers=2)
"""


def script(experiment: Experiment, inside_jobs: str = "pass") -> None:
    experiment.write(SCRIPT.replace("@JOBS@", inside_jobs))


def started_by(experiment: Experiment) -> list[psutil.Process]:
    """Processes with the environment of this experiment, marked or not."""
    wanted = str(experiment.executions_file)
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EXECUTIONS") == wanted and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_refused_run_leaves_no_process_and_imports_nothing_of_the_users(experiment: Experiment) -> None:
    script(experiment, "raise SystemExit(9)")
    assert experiment.run().returncode == 9
    assert started_by(experiment) == []
    assert experiment.run("--resume", "none").returncode == 2
    assert experiment.run("--no-such-option").returncode == 2
    assert started_by(experiment) == []
    assert experiment.executions("imported") == []
    assert not list(experiment.output.glob("logs/*.jsonl"))


def test_a_supervisor_that_is_killed_before_it_has_decided_leaves_no_process(experiment: Experiment) -> None:
    script(experiment, "time.sleep(1000)")
    process = experiment.start()
    wait_for(lambda: experiment.executions("jobs"))
    others = [found for found in started_by(experiment) if found.pid != process.pid]
    assert len(others) == 1, others
    process.kill()
    process.wait()
    wait_for(lambda: is_gone(others[0].pid))
    assert experiment.executions("imported") == []


def test_the_children_of_the_script_do_not_keep_it_alive(experiment: Experiment, tmp_path: Path) -> None:
    """A process that jobs() has forked has all that was open, but not the channel."""
    note = tmp_path / "child.txt"
    script(
        experiment,
        f"child = os.fork(); child or time.sleep(1000); Path({str(note)!r}).write_text(str(child)); "
        "time.sleep(1000)",
    )
    process = experiment.start()
    wait_for(lambda: note.exists() and note.read_text())
    child = int(note.read_text())
    (zygote,) = (found for found in started_by(experiment) if found.pid not in (process.pid, child))
    process.kill()
    process.wait()
    try:
        wait_for(lambda: is_gone(zygote.pid))
    finally:
        os.kill(child, signal.SIGKILL)


def test_help_starts_nothing(experiment: Experiment) -> None:
    script(experiment)
    traced = subprocess.run(
        [sys.executable, "-c", TRACED, str(experiment.script)],
        env=experiment.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert traced.returncode == 0, traced.stderr
    assert "usage:" in traced.stdout


TRACED = """
import runpy, sys
def hook(event, arguments):
    assert event not in ("subprocess.Popen", "os.fork", "os.posix_spawn"), event
sys.addaudithook(hook)
sys.argv = [sys.argv[1], "--help"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


LATER = ("loguru", "psutil", "asyncio", "rich", "multiprocessing", "supervisor.core.scheduling.scheduler")
LISTING = f"""
    def jobs():
        return [Job(id="job", params={{}})]

    def evaluate():
        return 1

    if __name__ == "__main__":
        from supervisor.engines.local_engine import LocalEngine
        start = LocalEngine.start

        def listing(engine):
            Path(LOG).write_text(" ".join(name for name in {LATER!r} if name in sys.modules))
            start(engine)

        LocalEngine.start = listing
        main(evaluate, jobs, name="light")
"""


def test_the_zygote_gets_its_orders_before_what_is_needed_later_is_imported(experiment: Experiment) -> None:
    experiment.write(LISTING)
    done = experiment.run()
    assert done.returncode == 0, done.stderr
    # What measures coverage is there from the start, with what it imports.
    code = f"import sys; print(*(name for name in {LATER!r} if name in sys.modules))"
    bare = subprocess.check_output([sys.executable, "-c", code], env=experiment.environment())
    assert experiment.executions_file.read_text() == bare.decode().strip()


def test_when_no_interpreter_gets_going_it_is_said_where_its_words_are(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [sys.executable, "-c", "raise RuntimeError('this one is broken')"]
    monkeypatch.setattr("supervisor.engines.zygote_process.interpreter", lambda *words: broken)
    d = drive()
    d.engine.start_worker(0, 1)
    failed = d.until(lambda: d.first(facts.WorkerStartFailed, 1))
    d.engine.close()
    log = d.output / "%zygote.log"
    assert str(log) in failed.error
    assert "this one is broken" in log.read_text()
