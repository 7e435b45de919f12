"""What a memory limit means is the same after a fork, a write to shared pages, another job, a resume.

Scripts that take a few hundred megabytes, most of them for as long as the supervisor needs to see it.
"""

from __future__ import annotations

import sys

import pytest

from tests.experiment_fixture import PATIENCE
from tests.real_scripts.conftest import RealScript

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

# `take` holds so many megabytes until it is stopped; `hold` only until it was surely looked at.
TAKES = """
    import mmap, os, time

    M = 1 << 20

    def pages(megabytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        area = mmap.mmap(-1, megabytes * M, flags=flags)
        write(area)
        return area

    def write(area):
        area[::mmap.PAGESIZE] = b"x" * len(range(0, len(area), mmap.PAGESIZE))

    def read(area):
        return len(area[::mmap.PAGESIZE])

    def take(megabytes):
        kept = pages(megabytes)
        time.sleep(60)

    def hold(megabytes, seconds=1.5):
        kept = pages(megabytes)
        time.sleep(seconds)
        return "held"

    def in_children(function, number):
        pids = []
        for _ in range(number):
            pid = os.fork()
            if pid == 0:
                try:
                    function()
                finally:
                    os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
"""


def outcomes(script: RealScript, body: str, *words: str, code: int = 0) -> list[str]:
    """How the jobs of a script ended, each after one attempt."""
    script.write(TAKES + body)
    done = script.python("--memory-limit", "200M", *words, timeout=2 * PATIENCE)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert [entry["attempts"] for entry in script.final()] == [1] * len(script.final())
    return script.outcomes()


def test_children_that_have_gone_do_not_hide_what_a_job_takes(real_script: RealScript) -> None:
    """Those of a job before it, or its own."""
    body = """
    DATA = pages(150)
    PARAMS = [{"n": n} for n in range(3)]

    def evaluate(n):
        if n == 1:
            in_children(lambda: time.sleep(0.7), 6)
        else:
            in_children(lambda: (read(DATA), time.sleep(1.5)), 6)
        if n:
            take(300)
        return "fine"
    """
    found = outcomes(real_script, body, "--workers", "1", code=1)
    assert found == ["completed", "over_memory", "over_memory"]


def test_a_limit_below_the_data_of_the_top_level_is_for_what_jobs_take(real_script: RealScript) -> None:
    """One worker or many, with children or without: the data is there once, and nobody's."""
    body = """
    DATA = pages(400)
    PARAMS = [{"children": 0}, {"children": 0}, {"children": 6}, {"children": 1}]

    def evaluate(children):
        in_children(lambda: (read(DATA), time.sleep(1.5)), children)
        return hold(100)
    """
    assert outcomes(real_script, body, "--workers", "3") == ["completed"] * 4


def test_what_is_written_to_data_of_the_top_level_counts(real_script: RealScript) -> None:
    """By the worker, or by a child of it; by the job that has written, not by its neighbours."""
    body = """
    DATA = pages(250)
    PARAMS = [{"writes": writes} for writes in ("worker", "child", "nobody")]

    def evaluate(writes):
        read(DATA)
        if writes == "worker":
            write(DATA)
            time.sleep(60)
        elif writes == "child":
            in_children(lambda: (write(DATA), time.sleep(60)), 1)
        else:
            time.sleep(3)
        return "fine"
    """
    found = outcomes(real_script, body, "--workers", "3", code=1)
    assert found == ["over_memory", "over_memory", "completed"]


def test_memory_that_a_job_shares_with_its_children_counts_once(real_script: RealScript) -> None:
    """Also while a child has it until it is another program: subprocess does it so (vfork). Here such a child
    is there all the time."""
    body = """
    import subprocess
    PARAMS = [{"megabytes": 130, "programs": True}, {"megabytes": 100}, {"megabytes": 300}]

    def evaluate(megabytes, programs=False):
        kept = pages(megabytes)
        until = time.monotonic() + 3
        while programs and time.monotonic() < until:
            subprocess.run(["true"])
        if not programs:
            in_children(lambda: (read(kept), time.sleep(1.5)), 3)
            time.sleep(0 if megabytes < 200 else 60)
        return "fine"
    """
    found = outcomes(real_script, body, "--workers", "1", code=1)
    assert found == ["completed", "completed", "over_memory"]


def test_files_do_not_count_and_shared_memory_does(real_script: RealScript) -> None:
    """After htcondor 2575: nor do pages of the cache, and those that are read ahead."""
    body = """
    PARAMS = [{"kind": kind} for kind in ("read", "written", "private", "shared", "cached")]

    def evaluate(kind):
        if kind == "shared":
            kept = pages(300, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
            time.sleep(60)
        with open(kind, "w+b") as file:
            if kind == "cached":
                for _ in range(300):
                    file.write(b"x" * M)
                file.seek(0)
                while file.read(M):
                    pass
            os.ftruncate(file.fileno(), 300 * M)
            if kind == "cached":
                area = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            else:
                access = mmap.ACCESS_COPY if kind == "private" else mmap.ACCESS_WRITE
                area = mmap.mmap(file.fileno(), 0, access=access)
            try:
                if kind in ("read", "cached"):
                    read(area)
                else:
                    write(area)
                time.sleep(60 if kind == "private" else 1.5)
            finally:
                os.unlink(kind)
        return "fine"
    """
    found = outcomes(real_script, body, "--workers", "2", code=1)
    assert found == ["completed", "completed", "over_memory", "over_memory", "completed"]


@pytest.mark.parametrize("words", [(), ("--start-method", "spawn")])
def test_what_is_started_is_counted_however_it_was_started(
    real_script: RealScript, words: tuple[str, ...]
) -> None:
    body = """
    import subprocess, sys
    PARAMS = [{"how": how} for how in ("session", "orphan", "program", "fits")]
    PROGRAM = "import time; kept = b'x' * (300 << 20); time.sleep(60)"

    def evaluate(how):
        if how == "session":
            in_children(lambda: (os.setsid(), take(300)), 1)
        elif how == "orphan":
            in_children(lambda: os.fork() == 0 and (os.setsid(), take(300)), 1)
            time.sleep(60)
        elif how == "program":
            subprocess.run([sys.executable, "-c", PROGRAM])
        return hold(100)
    """
    found = outcomes(real_script, body, "--workers", "2", *words, code=1)
    assert found == ["over_memory"] * 3 + ["completed"]


def test_fewer_workers_do_not_make_a_job_larger(real_script: RealScript) -> None:
    """Forked workers share the data with fewer then; it is nobody's all the same."""
    body = """
    import subprocess, sys
    DATA = pages(250)
    PARAMS = [{"n": n} for n in range(4)]

    def wait_for(*names):
        until = time.monotonic() + 60
        while not all(map(os.path.exists, names)) and time.monotonic() < until:
            time.sleep(0.05)

    def evaluate(n):
        read(DATA)
        open(f"started-{n}", "w").close()
        if n:
            wait_for("fewer")
            return "fine"
        wait_for(*(f"started-{other}" for other in range(4)))
        subprocess.run([sys.executable, "-m", "supervisor", "ctl", "workers", "1", "-d", "out"], check=True)
        open("fewer", "w").close()
        return hold(120, 3)
    """
    assert outcomes(real_script, body, "--workers", "4") == ["completed"] * 4


def test_a_job_that_fails_for_a_reason_of_its_own_keeps_it(real_script: RealScript) -> None:
    """After wr 502: what it had held before is not taken for the reason."""
    body = """
    PARAMS = [{"how": how} for how in ("raises", "crashes")]

    def evaluate(how):
        pages(130)
        pages(130)
        kept = pages(190)
        if how == "raises":
            raise ValueError("no such file")
        os.kill(os.getpid(), 11)
    """
    words = ("--workers", "1", "--crash-limit", "1")
    assert outcomes(real_script, body, *words, code=1) == ["raised", "crashed"]


def test_shared_memory_that_the_script_has_made_is_no_jobs(real_script: RealScript) -> None:
    body = """
    import atexit
    NAME = "/dev/shm/real-" + os.path.abspath(__file__).replace("/", "-")
    PARAMS = [{"n": n} for n in range(2)]

    def attach():
        with open(NAME, "r+b") as file:
            return mmap.mmap(file.fileno(), 0)

    def evaluate(n):
        area = attach()
        read(area)
        return hold(60)

    if __name__ == "__main__":
        with open(NAME, "wb") as file:
            file.truncate(350 * M)
        atexit.register(os.unlink, NAME)
        AREA = attach()
        write(AREA)
    """
    assert outcomes(real_script, body, "--workers", "1") == ["completed"] * 2


def test_what_one_job_leaves_is_not_charged_to_the_next(real_script: RealScript) -> None:
    """Held by the script's own variables, or by a program that goes on."""
    real_script.write(
        TAKES
        + """
    PARAMS = [{"leaves": leaves} for leaves in ("nothing", "variable", "nothing", "program", "nothing")]
    KEPT = []

    def evaluate(leaves):
        if leaves == "variable":
            KEPT.append(pages(150))
        elif leaves == "program":
            if os.fork() == 0:
                os.setsid()
                take(150)
        return hold(100 if leaves == "nothing" else 1)
    """
    )
    done = real_script.python("--memory-limit", "200M", "--workers", "1", timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    assert real_script.outcomes() == ["completed"] * 5
    assert [entry["attempts"] for entry in real_script.final()] == [1, 1, 2, 1, 2]
    assert "runs again in a fresh worker" in done.stderr


def test_many_short_jobs_that_each_leave_a_little_all_come_to_an_end(real_script: RealScript) -> None:
    real_script.write(
        TAKES
        + """
    PARAMS = [{"n": n} for n in range(150)]
    KEPT = []

    def evaluate(n):
        KEPT.append(pages(4))
        time.sleep(0.03)
        return n
    """
    )
    done = real_script.python("--memory-limit", "200M", "--workers", "1", timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    assert [entry["result"] for entry in real_script.final()] == list(range(150))


RESUMED = """
    PARAMS = [{"n": n} for n in range(3)]

    def evaluate(n):
        return hold(300 if n == 0 else 1, 0 if n else 3 if os.path.exists("enough") else 60)
"""


def test_a_resume_changes_nothing_about_a_limit(real_script: RealScript) -> None:
    words = ("--workers", "4")
    assert outcomes(real_script, RESUMED, *words, code=1) == ["over_memory", "completed", "completed"]
    resume = ("--resume", "latest")
    assert real_script.python(*resume).returncode == 1
    assert real_script.outcomes() == ["over_memory", "completed", "completed"]
    (real_script.folder / "enough").touch()
    done = real_script.python(*resume, "--retry-over-memory")
    assert done.returncode == 0, done.stderr
    assert real_script.outcomes() == ["completed"] * 3
