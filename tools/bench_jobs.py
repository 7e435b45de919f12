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


def _starts(path: str, number: int) -> int:
    with open(path) as file:
        return sum(line.split()[0] == str(number) for line in file)
