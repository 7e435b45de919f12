"""What the script opens while it is imported and workers must not share: each has its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real_scripts.conftest import RealScript

PROGRAM = """
    import subprocess, sys
    TWICE = "import sys\\nfor line in sys.stdin: print(2 * int(line), flush=True)"
    ENGINE = subprocess.Popen([sys.executable, "-uc", TWICE],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    PARAMS = [{"n": n} for n in range(40)]

    def ask(n):
        ENGINE.stdin.write(f"{n}\\n")
        return int(ENGINE.stdout.readline())

    def evaluate(n):
        return [[ask(100 * n + k) for k in range(50)], ENGINE.poll()]
"""
EVENT_LOOP = """
    import asyncio, time
    LOOP = asyncio.new_event_loop()
    PARAMS = [{"n": n} for n in range(20)]

    def slowly(n):
        time.sleep(0.01)
        return n

    async def work(n):
        return await asyncio.gather(*(LOOP.run_in_executor(None, slowly, n + k) for k in range(3)))

    LOOP.run_until_complete(work(0))

    def evaluate(n):
        return LOOP.run_until_complete(work(n))
"""
QUEUES = """
    import multiprocessing as mp, socket
    QUEUE, (ONE, OTHER) = mp.SimpleQueue(), socket.socketpair()
    PARAMS = [{"n": n} for n in range(100)]

    def evaluate(n):
        found = []
        for k in range(20):
            QUEUE.put([n, k])
            ONE.send(b"%d" % n)
            found.append([QUEUE.get(), int(OTHER.recv(10))])
        return found
"""
MANAGER = """
    import multiprocessing as mp
    MANAGER = mp.Manager()
    KNOWN = MANAGER.dict(a=1)
    PARAMS = [{"n": n} for n in range(40)]

    def evaluate(n):
        for k in range(10):
            KNOWN[k] = [n, k]
        return [KNOWN[k] for k in range(10)]
"""
VALUE = """
    import mmap, multiprocessing as mp
    HITS, PLAIN, MAPPED = mp.Value("i", 0), mp.RawValue("i", 0), mmap.mmap(-1, 10)
    PARAMS = [{"n": n} for n in range(30)]

    def hit():
        with HITS.get_lock():
            HITS.value += 1

    def evaluate(n):
        HITS.value, PLAIN.value, MAPPED[0] = 0, n, n
        children = [mp.get_context("fork").Process(target=hit) for _ in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        return [HITS.value, PLAIN.value, MAPPED[0]]
"""
CHILD = """
    import atexit, subprocess
    SERVER = subprocess.Popen(["sleep", "1000"])
    atexit.register(SERVER.kill)
    PARAMS = [{"n": n} for n in range(4)]

    def evaluate(n):
        return SERVER.poll()
"""


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        (PROGRAM, [[[2 * (100 * n + k) for k in range(50)], None] for n in range(40)]),
        (EVENT_LOOP, [[n, n + 1, n + 2] for n in range(20)]),
        (QUEUES, [[[[n, k], n] for k in range(20)] for n in range(100)]),
        (MANAGER, [[[n, k] for k in range(10)] for n in range(40)]),
        (VALUE, [[3, n, n] for n in range(30)]),
        (CHILD, [None] * 4),
    ],
    ids=["a program", "an event loop", "queues", "a manager", "values", "a child"],
)
def test_no_worker_gets_what_is_for_another(real_script: RealScript, text: str, bare: list[Any]) -> None:
    """`bare`: what the script's own calls return."""
    real_script.write(text)
    assert real_script.run("--workers", "2") == bare


def test_a_job_that_is_killed_holds_no_lock_of_the_others(real_script: RealScript) -> None:
    real_script.write("""
        import multiprocessing as mp, time
        LOCK = mp.Lock()
        PARAMS = [{"n": n} for n in range(4)]
        def evaluate(n):
            with LOCK:
                if n == 0:
                    time.sleep(1000)
            return n
    """)
    real_script.run("--workers", "2", "--timeout", "3", code=1)
    assert real_script.outcomes() == ["timed_out", "completed", "completed", "completed"]


def test_workers_are_forked_where_nothing_of_the_kind_is_open(real_script: RealScript) -> None:
    """Locks of progress bars, logs to a socket, files, segments with a name."""
    (real_script.folder / "tqdm").mkdir()
    (real_script.folder / "tqdm" / "__init__.py").touch()
    (real_script.folder / "tqdm" / "std.py").write_text(
        "import multiprocessing\nclass TqdmDefaultWriteLock: mp_lock = multiprocessing.RLock()\n"
    )
    real_script.write("""
        import multiprocessing as mp, os, socket, subprocess
        import tqdm.std
        from multiprocessing.shared_memory import SharedMemory
        with open("imports", "a") as file:
            file.write("x")
        LOG = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        WRITTEN, READ, NULL = open(f"log-{os.getpid()}", "w"), open(__file__), open(os.devnull, "r+")
        SEGMENT = SharedMemory(create=True, size=1000)
        subprocess.run(["true"])
        mp.Lock()
        PARAMS = [{"n": n} for n in range(8)]
        def evaluate(n):
            return n
        import atexit
        atexit.register(lambda: (SEGMENT.close(), SEGMENT.unlink()))
    """)
    assert real_script.run("--workers", "2") == list(range(8))
    assert (real_script.folder / "imports").read_text() == "xx"  # by the script and for the workers


def test_a_lock_of_a_library_that_refuses_a_fork_is_made_in_each_worker(real_script: RealScript) -> None:
    """As newer versions of filelock do."""
    (real_script.folder / "filelock.py").write_text(
        "import os\n"
        "class BaseFileLock:\n"
        "    def __init__(self): self._creator_pid = os.getpid()\n"
        "    def __enter__(self): assert self._creator_pid == os.getpid(), 'inherited across fork'\n"
        "    def __exit__(self, *error): pass\n"
    )
    real_script.write("""
        import filelock
        LOCK = filelock.BaseFileLock()
        PARAMS = [{"n": n} for n in range(4)]
        def evaluate(n):
            with LOCK:
                return n
    """)
    assert real_script.run() == real_script.bare() == [0, 1, 2, 3]
