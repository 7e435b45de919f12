"""What `save`, `load`, `report` and the live view cost, measured here and now.

    python tools/progress_cost.py [--seconds 30] [--directory DIR]

`--directory`: on which disk to save (default: the current one). The live view is measured on a
terminal of its own (a pty): six workers, 72 domains, each job reporting a hundred times a
second; the CPU time is that of the whole supervisor, journal and checkpoints included.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import signal
import struct
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, os.fspath(ROOT))

from workers.job.current_job import CurrentJob  # noqa: E402
from workers.job.job_reports import Reporter  # noqa: E402
from workers.job.saved_state import StateFiles  # noqa: E402
from workers.transport.supervisor_queues import OutboxReader  # noqa: E402
from workers.transport.worker_queues import WorkerQueues  # noqa: E402

SCRIPT = """
import time
from supervisor import Job, main
from workers import current_job

def jobs():
    for domain in range(72):
        for number in range(100):
            yield Job(id=f"domain{domain:02}/job/{number}", domain=f"domain{domain:02}", params={})

def work():
    job = current_job()
    end = time.monotonic() + 5
    while (left := end - time.monotonic()) > 0:
        job.report(1 - left / 5, loss=left)
        time.sleep(0.01)

if __name__ == "__main__":
    main(work, jobs, name="cost", workers=6, all_tasks=True, grace=0)
"""


def median_ms(action: Callable[[], object], times: int) -> float:
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        spent.append(time.perf_counter() - began)
    return 1000 * sorted(spent)[times // 2]


def measure_states(directory: str) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        probe = Path(folder, "probe")

        def one_sync() -> None:
            with probe.open("wb") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())

        print(f"one fsync of a new byte        {median_ms(one_sync, 50):9.2f} ms")
        for words, size in (("1 KB", 100), ("1 MB", 100_000), ("60 MB", 6_000_000)):
            state = {"weights": [0.12345678] * size}
            files = StateFiles(os.path.join(folder, "states"))
            times = 50 if size < 1_000_000 else 3
            save = median_ms(lambda files=files, state=state: files.save("job", 1, state), times)  # type: ignore[misc]
            load = median_ms(lambda files=files: files.load("job"), times)  # type: ignore[misc]
            print(f"save({words:>5})                   {save:9.2f} ms     load {load:8.2f} ms")


def measure_report() -> None:
    inbox, outbox = os.pipe(), os.pipe()
    reader = OutboxReader(outbox[0])
    job = CurrentJob()
    job.report_to(Reporter(WorkerQueues(inbox[0], outbox[1])))
    job.start_job("domain/job", None, 1)
    calls = 1_000_000
    began = time.perf_counter()
    for _ in range(calls):
        job.report(0.5, loss=0.25)
    print(f"report(), one of a million     {1e9 * (time.perf_counter() - began) / calls:9.0f} ns")
    reader.read()

    def sent() -> None:
        job._next_report = 0.0
        job.report(0.5, loss=0.25)

    print(f"report() that is sent          {1000 * median_ms(sent, 300):9.1f} µs")


def measure_view(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "cost.py")
        script.write_text(SCRIPT)
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(folder)
            os.environ.update(PYTHONPATH=os.fspath(ROOT), TERM="xterm-256color")
            os.execv(sys.executable, [sys.executable, "cost.py", "--output", folder])
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        threading.Thread(target=swallow, args=(terminal,), daemon=True).start()
        time.sleep(15.0)
        before = cpu_seconds(pid)
        time.sleep(seconds)
        used = (cpu_seconds(pid) - before) / seconds
        print(f"supervisor with live view      {100 * used:9.2f} % of a core")
        os.kill(pid, signal.SIGINT)
        os.waitpid(pid, 0)


def swallow(terminal: int) -> None:
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:  # the other side is closed
        return


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of looking at the live view (30)")
    parser.add_argument("--directory", default=".", help="on which disk to save (the current directory)")
    arguments = parser.parse_args()
    measure_states(arguments.directory)
    measure_report()
    if arguments.seconds > 0:
        measure_view(arguments.seconds)


if __name__ == "__main__":
    main()
