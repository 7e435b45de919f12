"""Programs that jobs leave in the background: who reaps them, and whose they stay."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import some
from tests.real_scripts.conftest import RealScript

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# What a daemon does: it leaves session, group and parent; `program` also exchanges itself.
_DAEMON = """
    import os, subprocess, sys, time
    from pathlib import Path

    def daemonize(program=None, environment=None):
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.close(reader)
            os.write(writer, str(os.getpid()).encode())
            os.close(writer)
            if program:
                os.execvpe(program[0], program, environment or os.environ)
            program_of_its_own()
            os._exit(0)
        os.close(writer)
        pid = int(os.read(reader, 20))
        os.close(reader)
        assert os.waitpid(middle, 0) == (middle, 0)
        return pid

    def program_of_its_own():
        time.sleep(1000)

    def lives(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def wait_for(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return True
"""


def test_background_programs_leave_no_zombies(real_script: RealScript) -> None:
    real_script.write(
        _DAEMON
        + """
    PARAMS = [{"n": n} for n in range(200)]

    def zombies():
        found = 0
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                except OSError:
                    continue
                found += state == "Z" and int(group) == os.getpgid(0)
        return found

    def evaluate(n):
        assert os.system("(sleep 0.02 &); exit 0") == 0
        if n == 199:  # those of the last moment may still be dying
            return wait_for(lambda: zombies() == 0)
        return zombies() if n % 30 == 0 else 0
    """,
    )
    found = real_script.run("--workers", "1")
    assert found.pop() is True
    assert max(found) < 120  # at the end there would be 180; a busy machine reaps in gulps


@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_a_job_waits_for_its_own_children_alone(real_script: RealScript, method: str) -> None:
    """Also where a job before it, or it itself, has left a daemon in the same worker."""
    real_script.write(
        _DAEMON
        + """
    PARAMS = [{"n": n} for n in range(4)]

    def evaluate(n):
        daemonize()
        daemonize(["sleep", "1000"])
        subprocess.Popen(["sh", "-c", "sleep 1000 & exec true"]).wait()
        child = os.fork()
        if child == 0:
            os._exit(n)
        pid, status = os.wait()
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return [pid == child, os.waitstatus_to_exitcode(status)]
    """,
    )
    assert real_script.run("--workers", "1", "--start-method", method) == [[True, n] for n in range(4)]


# First each end and each method once.
ENDS = {"crash": "os.kill(os.getpid(), 9)", "timeout": "time.sleep(1000)"}
BOTH = [("timeout", "zygote"), ("crash", "spawn"), ("crash", "zygote"), ("timeout", "spawn")]


@pytest.mark.parametrize(("end", "method"), some(BOTH, 2))
def test_a_daemon_ends_with_its_worker_and_with_no_other(
    real_script: RealScript, end: str, method: str
) -> None:
    real_script.write(
        _DAEMON
        + """
    FOLDER = Path(__file__).parent
    PARAMS = [{"what": "die"}, {"what": "watch"}]
    OWN = {0: {"timeout": 3}}

    def evaluate(what):
        mine = [daemonize(), daemonize(["sleep", "1000"])]
        if what == "die":
            wait_for((FOLDER / "ready").exists)
            (FOLDER / "new").write_text(" ".join(map(str, mine)))
            (FOLDER / "new").rename(FOLDER / "theirs")
            @END@
        (FOLDER / "ready").touch()
        wait_for((FOLDER / "theirs").exists)
        theirs = [int(pid) for pid in (FOLDER / "theirs").read_text().split()]
        wait_for(lambda: not any(map(lives, theirs)))
        return list(map(lives, mine))
    """.replace("@END@", ENDS[end]),
    )
    words = ["--workers", "2", "--crash-limit", "1", "--start-method", method]
    assert real_script.run(*words, code=1)[1] == [True, True]
    assert real_script.outcomes() == ["timed_out" if end == "timeout" else "crashed", "completed"]


def test_what_nobody_owns_ends_with_the_run(real_script: RealScript) -> None:
    """It has left the session, the group and the environment. The job does not, so bare it would
    live on; the fixture looks by the mark, hence the pids."""
    real_script.write(
        _DAEMON
        + """
    PARAMS = [{"n": n} for n in range(2)]

    def evaluate(n):
        return daemonize(["sleep", "1000"], {"PATH": os.environ["PATH"]})
    """,
    )
    pids = real_script.run("--workers", "2")
    assert not [pid for pid in pids if _lives(pid)]


def test_what_the_import_has_started_outlives_the_workers(real_script: RealScript) -> None:
    real_script.write(
        _DAEMON
        + """
    in_a_worker = "LONGHAUL_EXPERIMENT" in os.environ
    HELPER = daemonize(["sleep", "1000"]) if in_a_worker else 0
    PARAMS = [{"n": n} for n in range(6)]

    def evaluate(n):
        return [HELPER, lives(HELPER)]
    """,
    )
    found = real_script.run("--workers", "1", "--max-jobs-per-worker", "1")
    assert [alive for _, alive in found] == [True] * 6
    assert not _lives(found[0][0])


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
