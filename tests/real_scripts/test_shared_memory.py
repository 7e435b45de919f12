"""Shared memory, semaphores and folders of jobs go with them, however they end."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.experiment_fixture import wait_for
from tests.real_scripts.conftest import RealScript

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /dev/shm")

_HEAD = """
    import multiprocessing, os, signal, subprocess, sys, time
    from multiprocessing.shared_memory import SharedMemory
    from pathlib import Path

    FOLDER = Path(__file__).parent
    NAME = "@NAME@"

    def segments(prefix=NAME):
        return sorted(name for name in os.listdir("/dev/shm") if name.startswith(prefix))

    def wait_for(condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return True

    def sleep_long():
        time.sleep(1000)
"""


@pytest.fixture
def name() -> str:
    return f"test_{uuid.uuid4().hex[:12]}_"


_WAYS = """
    from multiprocessing import resource_tracker

    def crash():
        os.kill(os.getpid(), signal.SIGSEGV)

    def take_much():
        keep = b"x" * 1_000_000_000
        sleep_long()

    def have_children():
        multiprocessing.get_context("fork").Process(target=sleep_long).start()
        multiprocessing.get_context("spawn").Process(target=sleep_long).start()
        sleep_long()

    def start_a_program():
        code = f"import time; from multiprocessing.shared_memory import SharedMemory as S;"
        code += f"segment = S(create=True, size=100, name='{NAME}inner'); time.sleep(1000)"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        sleep_long()

    WAYS = [crash, take_much, have_children, start_a_program, sleep_long]
    PARAMS = [{"what": "watch"}, *({"what": way.__name__} for way in WAYS)]
    OWN = {1 + n: {"timeout": 6} for n, way in enumerate(WAYS) if way not in (crash, take_much)}

    def tracker_is_up():  # it needs its interpreter, and has a second from the end of its worker
        status = Path(f"/proc/{resource_tracker._resource_tracker._pid}/status").read_text()
        return int(status.partition("SigIgn:")[2].split()[0], 16) & 1 << signal.SIGINT - 1

    def evaluate(what):
        segment = SharedMemory(create=True, size=1000, name=NAME + what)
        if what == "watch":
            unseen = {way.__name__ for way in WAYS}

            def all_seen():
                for way in [way for way in unseen if NAME + way in segments()]:
                    (FOLDER / way).touch()
                    unseen.remove(way)
                return not unseen

            wait_for(all_seen)
            wait_for(lambda: segments() == [NAME + "watch"])
            segment.close()
            segment.unlink()
            return True
        lock = multiprocessing.get_context("spawn").Lock()  # has a name, as long as it lives
        wait_for((FOLDER / what).exists)
        wait_for(tracker_is_up)
        globals()[what]()
"""


@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_a_segment_of_a_job_that_is_killed_is_gone_soon(
    real_script: RealScript, name: str, method: str
) -> None:
    """However it ends, while the run goes on; and a segment of a neighbour stays."""
    real_script.write((_HEAD + _WAYS).replace("@NAME@", name))
    words = ["--crash-limit", "1", "--memory-limit", "500M", "--workers", "4"]
    found = real_script.run("--start-method", method, *words, code=1)
    assert found[0] is True, real_script.final()[0]
    ends = ["completed", "crashed", "over_memory", *["timed_out"] * 3]
    assert real_script.outcomes() == ends
    assert real_script.segments(name) == []


def test_a_folder_of_joblib_is_gone_soon(real_script: RealScript, name: str) -> None:
    pytest.importorskip("joblib")
    pytest.importorskip("numpy")
    real_script.write(
        (
            _HEAD
            + """
    from pathlib import Path

    import joblib, numpy

    PARAMS = [{"what": "die"}, {"what": "watch"}]
    OWN = {0: {"timeout": 6}}

    def folders():
        prefix = f"joblib_memmapping_folder_{(FOLDER / 'pid').read_text()}_"
        return segments(prefix) + segments(f"sem.loky-{(FOLDER / 'pid').read_text()}-")

    def evaluate(what):
        if what == "die":
            (FOLDER / "new").write_text(str(os.getpid()))
            (FOLDER / "new").rename(FOLDER / "pid")
            large = numpy.ones(1_000_000)
            joblib.Parallel(n_jobs=2)(joblib.delayed(time.sleep)(large[0] * 1000) for _ in range(2))
        wait_for((FOLDER / "pid").exists)
        wait_for(folders)
        return wait_for(lambda: not folders())
    """
        ).replace("@NAME@", name)
    )
    found = real_script.run("--workers", "2", code=1)
    assert found[1] is True
    assert real_script.outcomes() == ["timed_out", "completed"]


@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_a_segment_of_the_script_survives_its_jobs_and_not_the_run(
    real_script: RealScript, name: str, method: str
) -> None:
    real_script.write(
        (
            _HEAD
            + """
    segment = SharedMemory(create=True, size=100, name=f"{NAME}{os.getpid()}")
    segment.buf[0] = 7
    PARAMS = [{"n": n} for n in range(6)]

    def evaluate(n):
        if n == 2:
            os.kill(os.getpid(), 9)
        time.sleep(0.2)  # longer than a tracker takes to start
        again = SharedMemory(name=segment.name)
        value = again.buf[0]
        again.close()
        return value
    """
        ).replace("@NAME@", name)
    )
    words = ["--workers", "1", "--max-jobs-per-worker", "2", "--crash-limit", "1", "--start-method", method]
    found = real_script.run(*words, code=1)
    assert found == [7, 7, None, 7, 7, 7]
    wait_for(lambda: not real_script.segments(name), "a segment outlives the run")


def test_a_tracker_that_the_import_has_started_outlives_the_workers(
    real_script: RealScript, name: str
) -> None:
    real_script.write(
        (
            _HEAD
            + """
    if "LONGHAUL_EXPERIMENT" in os.environ:
        segment = SharedMemory(create=True, size=100, name=f"{NAME}{os.getpid()}")
    PARAMS = [{"n": n} for n in range(6)]

    def evaluate(n):
        if n == 2:
            os.kill(os.getpid(), 9)
        time.sleep(0.1)
        again = SharedMemory(name=segment.name)
        again.close()
        return n
    """
        ).replace("@NAME@", name)
    )
    words = ["--workers", "1", "--max-jobs-per-worker", "2", "--crash-limit", "1"]
    assert real_script.run(*words, code=1) == [0, 1, None, 3, 4, 5]
    assert real_script.segments(name) == []


def test_a_tracker_that_stands_still_holds_up_nobody(real_script: RealScript, name: str) -> None:
    real_script.write(
        (
            _HEAD
            + """
    from multiprocessing import resource_tracker

    PARAMS = [{"what": "die"}, {"what": "watch"}]

    def state(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""

    def evaluate(what):
        if what == "die":
            segment = SharedMemory(create=True, size=1000, name=NAME)
            tracker = resource_tracker._resource_tracker._pid
            wait_for(lambda: b"resource_tracker" in Path(f"/proc/{tracker}/cmdline").read_bytes())
            os.kill(tracker, signal.SIGSTOP)
            wait_for(lambda: state(tracker) == "T")
            (FOLDER / "tracker").write_text(str(tracker))
            os.kill(os.getpid(), 9)
        tracker = int((FOLDER / "tracker").read_text())
        began = state(tracker)
        wait_for(lambda: state(tracker) in ("", "Z"))
        os.unlink("/dev/shm/" + NAME)  # nobody else does
        return began
    """
        ).replace("@NAME@", name)
    )
    assert real_script.run("--workers", "1", "--crash-limit", "1", code=1) == [None, "T"]


_GUARDED = """
    PARAMS = [{"n": n, "name": NAME} for n in range(6)]

    def evaluate(n, name):
        if n == 2:
            os.kill(os.getpid(), 9)
        time.sleep(0.2)  # longer than a tracker takes to start
        again = SharedMemory(name=name)
        value = again.buf[0]
        again.close()
        return value

    if __name__ == "__main__":
        segment = SharedMemory(create=True, size=100, name=NAME)
        segment.buf[0] = 7
"""


@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_a_segment_made_behind_the_guard_survives_the_workers_that_open_it(
    real_script: RealScript, name: str, method: str
) -> None:
    """Up to Python 3.12 whoever opens a segment registers it with a tracker, and the tracker
    removes it when those end."""
    real_script.write((_HEAD + _GUARDED).replace("@NAME@", name))
    words = ["--workers", "1", "--max-jobs-per-worker", "2", "--crash-limit", "1", "--start-method", method]
    found = real_script.run(*words, code=1)
    assert found == [7, 7, None, 7, 7, 7]
    wait_for(lambda: not real_script.segments(name), "a segment outlives the run")


def test_kill_9_of_the_supervisor_leaves_no_shared_memory(real_script: RealScript, name: str) -> None:
    real_script.write(
        (
            _HEAD
            + """
    PARAMS = [{"n": n} for n in range(2)]

    def evaluate(n):
        segment = SharedMemory(create=True, size=100, name=f"{NAME}{n}")
        lock = multiprocessing.Lock()
        multiprocessing.get_context("fork").Process(target=sleep_long).start()
        if not (FOLDER / "again").exists():
            (FOLDER / f"ready{n}").touch()
            time.sleep(1000)
        segment.close()
        segment.unlink()
        return n
    """
        ).replace("@NAME@", name)
    )
    with subprocess.Popen(
        [sys.executable, str(real_script.script), "--workers", "2"],
        cwd=real_script.folder,
        env=real_script.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=real_script.before,  # noqa: PLW1509
    ) as supervisor:
        wait_for(lambda: all((real_script.folder / f"ready{n}").exists() for n in range(2)))
        supervisor.kill()
    wait_for(lambda: not real_script.segments(name), "a segment outlives the supervisor")
    wait_for(lambda: not real_script.processes(), "a process outlives the supervisor")
    Path(real_script.folder / "again").touch()
    done = real_script.python("--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert real_script.segments(name) == []


def test_what_others_have_in_shared_memory_is_not_looked_at(real_script: RealScript) -> None:
    """Tests of one machine may run side by side: where they can, scripts have a /dev/shm of their own."""
    if real_script.before is None:
        pytest.skip("only root may mount")
    other = Path("/dev/shm") / f"test_{uuid.uuid4().hex}"
    other.touch()
    try:
        real_script.write("""
            import os
            PARAMS = [{}]
            def evaluate():
                open("/dev/shm/of_the_script", "w").close()
                return os.listdir("/dev/shm")
        """)
        assert real_script.run() == [["of_the_script"]]
        assert real_script.segments() == ["of_the_script"]
        (real_script.shm / "of_the_script").unlink()
    finally:
        other.unlink()
