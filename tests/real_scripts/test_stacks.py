"""Where a job was when it was stopped for its time, or crashed; and how much memory it had taken."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.experiment_fixture import PATIENCE, wait_for
from tests.real_scripts.conftest import RealScript

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

STANDS_STILL = """
    import os, signal, subprocess, threading, time

    def spin():
        while True:
            pass

    def sleep():
        time.sleep(1000)

    def compute():
        sum(range(10**14))  # one call of C that never gives the interpreter away

    def wait_for_child():
        subprocess.run(["sleep", "1000"])

    def join():
        thread = threading.Thread(target=time.sleep, args=(1000,), daemon=True)
        thread.start()
        thread.join()

    def recurse(depth=150):
        time.sleep(1000) if not depth else recurse(depth - 1)

    def handler_of_its_own():
        def handler(number, frame):
            raise ValueError("asked")
        signal.signal(signal.SIGQUIT, handler)
        time.sleep(1000)

    def evaluate(kind):
        print("before", kind)
        globals()[kind]()

    KINDS = "spin sleep compute wait_for_child join recurse handler_of_its_own".split()
    PARAMS = [{"kind": kind} for kind in KINDS]
"""
KINDS = ["spin", "sleep", "compute", "wait_for_child", "join", "recurse", "handler_of_its_own"]


def has_printed(script: RealScript) -> bool:
    """Whether a job that runs has printed. A worker writes some dots to that file first, to see how long it takes."""
    return any(b"\n" in path.read_bytes() for path in script.output.glob("*/output/.w*.part"))


def group_names(script: RealScript) -> dict[str, dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(script.longhaul("failures", "out", "--json").stdout)
    return {group["kind"]: group for group in found}


def line_of(script: RealScript, text: str, *, after: str = "") -> int:
    lines = script.script.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if after in line)
    return next(i for i, line in enumerate(lines, 1) if i > start and text in line)


def start(script: RealScript, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script.script), *words],
        cwd=script.folder,
        env=script.environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@LINUX
def test_a_job_that_is_stopped_for_its_time_tells_where_it_was(real_script: RealScript) -> None:
    real_script.write(STANDS_STILL)
    real_script.run("--timeout", "1.5s", "--workers", "4", code=1)
    for number, (kind, entry) in enumerate(zip(KINDS, real_script.final(), strict=True)):
        error = entry["error"]
        assert error["outcome"] == "timed_out", (kind, error)
        assert error["where"].startswith("script.py:"), (kind, error)
        assert f"in {kind} ({error['where']})" in error["message"]
        assert f'script.py", line {error["where"].split(":")[1]}, in {kind}\n' in error["traceback"]
        log = real_script.log(f"job{number}")
        assert log.startswith(f"before {kind}\n")
        assert error["traceback"] in log
        assert error["output_tail"] == f"before {kind}"
        for ours in ("runner.py", "zygote.py", "workers/worker.py", "bootstrap.py"):
            assert ours not in log + error["traceback"]
    groups = group_names(real_script)
    assert f"timed out script.py:{line_of(real_script, 'sleep(1000)', after='def sleep')}" in groups
    assert f"timed out script.py:{line_of(real_script, 'sum(range')}" in groups
    assert all(group["jobs"] for group in groups.values())
    assert len(groups) == len(KINDS)


@LINUX
def test_a_job_that_cannot_tell_is_stopped_all_the_same(real_script: RealScript) -> None:
    real_script.write("""
        import os, signal, time

        AWAY = {
            "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
            "blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
            "default": lambda: [signal.signal(n, signal.SIG_DFL) for n in signal.valid_signals() - {9, 19}],
            "closed": lambda: os.closerange(3, 4096),
        }

        def evaluate(away):
            AWAY[away]()
            time.sleep(1000)

        PARAMS = [{"away": away} for away in AWAY]
    """)
    real_script.run("--timeout", "1s", "--workers", "4", code=1)
    for entry in real_script.final():
        assert entry["error"]["outcome"] == "timed_out", entry
        assert "where" not in entry["error"], entry
        assert "longer than its timeout" in entry["error"]["message"], entry


@LINUX
def test_a_stack_is_no_matter_of_the_jobs_own_files(real_script: RealScript) -> None:
    real_script.write("""
        import os, sys, time

        def replace():
            os.dup2(MINE, 2)

        def close():
            os.closerange(0, 3)

        def forget():
            sys.stderr = None

        def evaluate(away):
            global MINE
            MINE = os.open("mine.txt", os.O_CREAT | os.O_WRONLY)
            globals()[away]()
            time.sleep(1000)

        PARAMS = [{"away": away} for away in ("replace", "close", "forget")]
    """)
    real_script.run("--timeout", "1s", "--workers", "3", code=1)
    for entry in real_script.final():
        assert entry["error"]["where"] == f"script.py:{line_of(real_script, 'sleep(1000)')}", entry
    assert (real_script.folder / "mine.txt").read_text() == ""
    assert not list(real_script.output.glob("*/output/.*"))


@LINUX
def test_a_job_that_closes_everything_leaves_the_next_one_its_stack(real_script: RealScript) -> None:
    real_script.write("""
        import os, time

        def evaluate(close):
            time.sleep(0.002 if close else 1000)
            os.closerange(3, 4096)

        PARAMS = [{"close": True}, {"close": False}]
    """)
    real_script.run("--timeout", "0.5s", "--workers", "1", code=1)
    first, second = real_script.final()
    assert first["state"] == "completed"
    assert second["error"]["where"] == f"script.py:{line_of(real_script, '1000)')}"


@LINUX
def test_what_is_asked_for_while_a_job_runs_is_not_in_its_output(real_script: RealScript) -> None:
    real_script.write("""
        import os, time

        def evaluate():
            print("begun", flush=True)
            while not os.path.exists("go"):
                time.sleep(0.01)

        PARAMS = [{}]
    """)
    process = start(real_script)
    begun = wait_for(lambda: has_printed(real_script))
    assert begun
    try:
        told = real_script.longhaul("ctl", "out", "stacks").stdout
    finally:
        (real_script.folder / "go").touch()
        process.communicate(timeout=PATIENCE)
    assert f'script.py", line {line_of(real_script, "time.sleep")} in evaluate' in told
    assert "runner.py" not in told and "zygote.py" not in told
    assert process.returncode == 0
    assert real_script.log("job0") == "begun\n"


@LINUX
def test_what_a_drain_has_to_stop_tells_where_it_was(real_script: RealScript) -> None:
    real_script.write("""
        import time

        def evaluate():
            print("here", flush=True)
            time.sleep(1000)

        PARAMS = [{}]
    """)
    process = start(real_script, "--grace", "0.2s")
    wait_for(lambda: has_printed(real_script))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    (attempt,) = json.loads(real_script.longhaul("show", "job0", "out", "--json").stdout)["attempts"]
    assert attempt["outcome"] == "interrupted"
    assert attempt["error"]["where"] == f"script.py:{line_of(real_script, 'sleep(1000)')}"
    assert "in evaluate\n    time.sleep(1000)\n" in real_script.log("job0")


CRASHES = """
    import ctypes, os, threading
    %s

    def fall():
        ctypes.string_at(0)

    def abort():
        os.abort()

    def in_a_thread():
        thread = threading.Thread(target=fall)
        thread.start()
        thread.join()

    def evaluate(kind):
        print("before")
        globals()[kind]()

    PARAMS = [{"kind": kind} for kind in ("fall", "abort", "in_a_thread", "abort")]
"""


@LINUX
def test_crashes_are_told_by_their_place_and_without_our_frames(real_script: RealScript) -> None:
    real_script.write(CRASHES % "import msgspec, array, mmap, decimal")
    real_script.run("--crash-limit", "1", code=1)
    fall, abort = line_of(real_script, "string_at"), line_of(real_script, "os.abort")
    groups = group_names(real_script)
    assert {name: len(group["jobs"]) for name, group in groups.items()} == {
        f"SIGSEGV script.py:{fall}": 2,
        f"SIGABRT script.py:{abort}": 2,
    }
    for number, entry in enumerate(real_script.final()):
        for text in (entry["error"]["output_tail"], real_script.log(f"job{number}")):
            assert text.startswith("before\nFatal Python error: ")
            assert "Extension modules" not in text
            assert "runner.py" not in text and "zygote.py" not in text
            assert "script.py" in text


TAKES = """
    import os, subprocess, sys

    def take(megabytes):
        return len(bytearray(b"x" * (megabytes << 20)))

    def take_in_a_child(megabytes):
        subprocess.run([sys.executable, "-c", f"b'x' * ({megabytes} << 20)"], check=True)

    def take_and_abort(megabytes):
        kept = b"x" * (megabytes << 20)
        os.abort()

    def evaluate(kind, megabytes):
        globals()[kind](megabytes)

    PARAMS = [{"kind": kind, "megabytes": size} for kind, size in %r]
"""
M = 1 << 20


@LINUX
def test_the_peak_of_a_job_is_its_own(real_script: RealScript) -> None:
    real_script.write(TAKES % [("take", 300), ("take_and_abort", 1), ("take", 300), ("take_and_abort", 100)])
    real_script.run("--workers", "1", "--crash-limit", "1", code=1)
    _, small, _, large = (entry.get("error", {}) for entry in real_script.final())
    assert 1 * M < small["peak_rss"] < 60 * M
    assert 100 * M < large["peak_rss"] < 160 * M
    assert "worker_peak_rss" not in small
    assert re.search(r"job1: .*SIGABRT.*, peak \d\dM\)", real_script.stderr)
    use = json.loads(real_script.longhaul("memory", "out", "--json").stdout)
    assert {one["job"]: one["peak_rss"] for one in use["attempts"]}["job1"] == small["peak_rss"]
    # Nothing of the large ones is lost, whether they were sampled or not.
    large_ones = {one["job"]: one["peak_rss"] for one in use["attempts"] if one["outcome"] == "completed"}
    large_ones |= {worker["job"]: worker["peak_rss"] for worker in use["workers"]}
    assert large_ones.keys() == {"job0", "job2"}
    assert all(worker["peak_rss"] > 300 * M for worker in use["workers"])


HEAVY = """
    import os
    import time

    def evaluate(megabytes, then):
        kept = b"x" * (megabytes << 20)
        if then == "hang":
            time.sleep(60)
        if then == "abort":
            os.abort()

    PARAMS = %r

    if __name__ == "__main__":
        BALLAST = b"x" * (400 << 20)
"""


@LINUX
def test_what_the_script_holds_is_no_memory_of_a_spawned_worker(real_script: RealScript) -> None:
    """The kernel's word of a process includes what its parent held when it was made by vfork."""
    kinds = [(1, "abort"), (500, "abort"), (150, "end"), (1, "abort"), (150, "hang")]
    real_script.write(HEAVY % [{"megabytes": size, "then": then} for size, then in kinds])
    real_script.run(
        *("--start-method", "spawn", "--workers", "1", "--crash-limit", "1", "--timeout", "3"), code=1
    )
    small, large, _, after, hangs = (entry.get("error", {}) for entry in real_script.final())
    assert 1 * M < small["peak_rss"] < 60 * M
    assert 500 * M < large["peak_rss"] < 600 * M
    assert 1 * M < after["peak_rss"] < 60 * M
    assert 150 * M < hangs["peak_rss"] < 250 * M
    use = json.loads(real_script.longhaul("memory", "out", "--json").stdout)
    (by_worker,) = (worker for worker in use["workers"] if worker["job"])
    assert by_worker["job"] == "job2" and 150 * M < by_worker["peak_rss"] < 250 * M


@LINUX
def test_the_peak_of_earlier_children_is_called_the_workers(real_script: RealScript) -> None:
    real_script.write(TAKES % [("take_in_a_child", 200), ("take_and_abort", 1), ("take_and_abort", 1)])
    real_script.run("--workers", "1", "--crash-limit", "1", code=1)
    _, after, alone = (entry.get("error", {}) for entry in real_script.final())
    assert "peak_rss" not in after
    assert after["worker_peak_rss"] > 200 * M
    assert alone["peak_rss"] < 60 * M
    assert "its worker's peak 2" in real_script.stderr
    assert "its worker's 2" in real_script.longhaul("show", "job1", "out").stdout
    assert "job1" not in [
        one["job"] for one in json.loads(real_script.longhaul("memory", "out", "--json").stdout)["attempts"]
    ]


@LINUX
def test_replay_opens_the_debugger_where_failures_says_it_happened(real_script: RealScript) -> None:
    real_script.write("""
        import json

        def read(text):
            local = "the one"
            return json.loads(text)

        def evaluate():
            read("{")

        PARAMS = [{}]
    """)
    real_script.run(code=1)
    (entry,) = real_script.final()
    assert entry["error"]["where"] == f"script.py:{line_of(real_script, 'json.loads')}"
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "replay", "--pdb", "job0", "out"],
        cwd=real_script.folder,
        env=real_script.environment(),
        input="p local\ndown\nw\nq\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert f"{Path(real_script.script)}({line_of(real_script, 'json.loads')})read()" in done.stdout
    assert "'the one'" in done.stdout
    assert "raw_decode" in done.stdout  # the whole stack is there
