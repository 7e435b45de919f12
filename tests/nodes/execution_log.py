"""What really ran, and when: each execution of a job writes to a file of its own accord, and this reads it.

A job says when it begins, every 20 ms that it is still there, and that it has come to its end, by a clock that all
hosts on one machine share and that nobody sets (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import time
from typing import NamedTuple

from tests.experiment_fixture import Experiment

# For scripts: `with watched():` around all that a job does.
WATCHED = """
import contextlib, socket, threading

@contextlib.contextmanager
def watched():
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    me = f"{current_job().id} {socket.gethostname()} {os.getpid()}.{os.urandom(4).hex()}"
    over = threading.Event()
    def say(word):
        os.write(log, f"{word} {me} {time.clock_gettime(time.CLOCK_BOOTTIME):.6f}\\n".encode())
    def beat():
        while not over.wait(0.02):
            say("beat")
    say("begin")
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()
    say("end")
    os.close(log)
"""


class Execution(NamedTuple):
    """begin, last: when it was seen first and last. ended: whether it came to its end."""

    job: str
    host: str
    begin: float
    last: float
    ended: bool


def now() -> float:
    """On the clock of the log."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def executions(experiment: Experiment) -> list[Execution]:
    """In the order in which they began."""
    if not experiment.executions_file.exists():
        return []
    found: dict[tuple[str, str, str], Execution] = {}
    for line in experiment.executions_file.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            continue
        word, job, host, process, at = line.split()
        key = (job, host, process)
        seen = found.get(key)
        begin = float(at) if seen is None else seen.begin
        found[key] = Execution(job, host, begin, float(at), word == "end")
    return sorted(found.values(), key=lambda each: each.begin)


def in_two_places(ran: list[Execution], allowed: float = 0.0) -> list[tuple[Execution, Execution]]:
    """Pairs of executions of one job of which the second began more than `allowed` seconds before the first was
    last seen."""
    found = []
    before: dict[str, list[Execution]] = {}
    for each in ran:
        earlier = before.setdefault(each.job, [])
        found += [(other, each) for other in earlier if other.last > each.begin + allowed]
        earlier.append(each)
    return found
