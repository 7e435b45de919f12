"""The jobs of the benchmark: the same functions for longhaul and for its peers.

They stand in a module of their own because every library can import it in its workers: what
stands in `__main__` some would have to send by value with each job.
"""

from __future__ import annotations

import os
import signal
import time

KILLED = 5  # the number of the job that kills its worker
FRAGILE_JOBS = 20


def noop(number: int) -> int:
    """A job that does nothing: all its cost is the library's."""
    return number


def noop_but_one(number: int, bad: int) -> int:
    if number == bad:
        raise ValueError("this one fails")
    return number


def spin(seconds: float) -> list[float]:
    """Use so much CPU time; start, end (time.monotonic) and the CPU time that it was."""
    started = time.monotonic()
    before = time.thread_time()
    while (used := time.thread_time() - before) < seconds:
        pass
    return [started, time.monotonic(), used]


def note(path: str, *words: object) -> None:
    """One line in a file that several processes write."""
    line = " ".join(map(str, words)) + "\n"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)


def fragile(task: str) -> int:
    """A job of 20 ms; one of them kills its worker, the first time. `task`: "NUMBER:FILE".

    The file gets a line for each start: number of the job, time; and one for the kill.
    """
    number, _, path = task.partition(":")
    note(path, number, time.monotonic())
    if int(number) == KILLED and _starts(path, KILLED) == 1:
        note(path, "kill", time.monotonic())
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return int(number)


def fragile_tasks(path: str) -> list[str]:
    return [f"{number}:{path}" for number in range(FRAGILE_JOBS)]


def doomed(path: str, kills: int) -> None:
    """A busy job that kills its worker `kills` times, and lines in the file about it."""
    note(path, "start", time.monotonic())
    if _starts(path, "start") <= kills:
        spin(0.05)
        note(path, "kill", time.monotonic())
        os.kill(os.getpid(), signal.SIGKILL)


def busy(path: str, kills: int) -> None:
    """Keep a worker busy until the job beside this one is through with it."""
    while not os.path.exists(path) or _starts(path, "start") <= kills:
        spin(0.05)


def doomed_or_busy(which: str, path: str, kills: int) -> None:
    (doomed if which == "doomed" else busy)(path, kills)


STARTS = "LONGHAUL_BENCH_STARTS"  # the name of a variable that names a file
_announced: list[float] = []  # when; in each process its own


def announced(number: int) -> int:
    """A no-op job; the first one in each process leaves the time in a file."""
    if not _announced:
        _announced.append(time.monotonic())
        note(os.environ[STARTS], _announced[0])
    return number


def sleeper(path: str) -> None:
    """A job that takes as long as somebody lets it."""
    note(path, time.monotonic())
    time.sleep(3600)


def held(path: str) -> None:
    """The same, and the line has the pid of the worker."""
    note(path, time.monotonic(), os.getpid())
    time.sleep(3600)


def blob(number: int, size: int) -> str:
    """A result of `size` bytes."""
    return "0123456789" * (size // 10)


def _starts(path: str, word: object) -> int:
    with open(path) as file:
        return sum(line.split()[0] == str(word) for line in file)
