"""What jobs do to their process, terminals that go away, memory that runs out (P19 to P21, P24)."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.failures.observing import (
    cgroup,
    open_gate,
    others_completed,
    outcomes,
    records,
    said,
    write,
)

SPOILS = """
    import resource, signal, tempfile

    SPOILING = {
        "directory": lambda: os.chdir("/"),
        "deleted_directory": lambda: (os.chdir(tempfile.mkdtemp()), os.rmdir(os.getcwd())),
        "umask": lambda: os.umask(0o777),
        "handlers": lambda: [signal.signal(n, signal.SIG_IGN) for n in (2, 10, 15, 17)],
        "handler_of_its_own": lambda: signal.signal(signal.SIGTERM, lambda *_: None),
        "mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)),
        "alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 0.05),
        "soft_limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (9, HARD)),
        "hard_limit": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    }
    HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)

    def jobs():
        for name in SPOILING:
            yield Job(id=f"probe/before_{name}", params={"what": None})
            yield Job(id=name, params={"what": name})
        yield Job(id="probe/after_all", params={"what": None})

    def evaluate(what):
        if what is not None:
            SPOILING[what]()
            return None
        time.sleep(0.1)  # longer than the alarm
        mask = os.umask(0)
        os.umask(mask)
        return [
            os.getcwd(),
            mask,
            [repr(signal.getsignal(n)).split(" at ")[0] for n in (2, 10, 14, 15, 17)],
            sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
            [resource.getrlimit(limit)[0] for limit in LIMITS],
        ]

    if __name__ == "__main__":
        main(evaluate, jobs, name="spoils", workers=1)
"""


@pytest.mark.exhaustive  # most of it: tests/real_scripts/test_between_jobs.py
def test_no_job_sees_what_the_one_before_it_has_changed(experiment: Experiment) -> None:
    """P19: directory, umask, signal handlers and mask, alarm, limits; one worker, one job after the
    other, and each time the next one looks."""
    write(experiment, SPOILS)
    done = experiment.run()
    assert done.returncode == 0, done.stderr
    seen = {job: e["result"] for job, e in experiment.final().items() if job.startswith("probe/")}
    first = seen["probe/before_directory"]
    assert first[0] == str(experiment.folder) and first[3] == []
    assert {job: found for job, found in seen.items() if found != first} == {}
    assert records(experiment, "ended", outcome="crashed") == [], "the alarm went off in another job"


def test_a_megabyte_printed_from_anywhere_blocks_nobody(experiment: Experiment) -> None:
    """P20: from Python, from C and from a child program, to both descriptors; a pipe holds 64 KB."""
    write(
        experiment,
        """
        import ctypes, subprocess

        def evaluate():
            libc = ctypes.CDLL(None)
            for _ in range(10_000):
                print("p" * 99)
                libc.puts(b"c" * 99)
            subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write(('s' * 99 + chr(10)) * 10_000)"])
            return "through"

        if __name__ == "__main__":
            main(evaluate, [Job(id="loud")], name="loud", workers=1)
        """,
    )
    done = experiment.run()
    assert done.returncode == 0, done.stderr
    text = (experiment.output / experiment.experiment_id() / "output" / "loud.log").read_text()
    assert {letter: text.count(letter * 99 + "\n") for letter in "pcs"} == dict.fromkeys("pcs", 10_000)


# ----------------------------------------------------------------- P21: terminals that go away

READS = """
    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(8)]

    def evaluate(number):
        read = sys.stdin.read()
        note("ran")
        gate("finish" if number < 2 else "rest")
        print("printed")
        return read

    if __name__ == "__main__":
        main(evaluate, jobs, name="reads", workers=2)
"""


class OnTerminal:
    """A script that leads the session of a terminal, as under a login shell that is gone."""

    def __init__(self, experiment: Experiment, first: str = "") -> None:
        self.ours, theirs = pty.openpty()
        command = [sys.executable, str(experiment.script), "--output", str(experiment.output)]
        take_it = f"fcntl.ioctl(0, termios.TIOCSCTTY, 0); {first}os.execv({command[0]!r}, {command!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import fcntl, os, signal, termios; {take_it}"],
            cwd=experiment.folder,
            env={**experiment.environment(), "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            text=True,
            start_new_session=True,
        )
        os.close(theirs)
        experiment.started.append(self.process)

    def hang_up(self) -> None:
        os.close(self.ours)


def test_when_the_terminal_hangs_up_the_run_drains_and_everything_is_recorded(
    experiment: Experiment,
) -> None:
    """P21: SIGHUP, and from then on every write to the terminal is an EIO. Workers have no
    terminal to read from."""
    write(experiment, READS)
    terminal = OnTerminal(experiment)
    wait_for(lambda: len(said(experiment, "ran")) == 2)
    terminal.hang_up()
    wait_for(lambda: records(experiment, "noted", what="drain"))
    open_gate(experiment, "finish")
    assert terminal.process.wait(timeout=PATIENCE) == -signal.SIGHUP
    assert sorted(experiment.completed_in_journal()) == ["job/0", "job/1"]
    assert sorted(experiment.checkpoint()["completed"]) == ["job/0", "job/1"]
    assert not experiment.processes()
    open_gate(experiment, "rest")
    done = experiment.run("--resume", "latest")
    assert done.returncode == 0, done.stderr
    others_completed(experiment)
    assert {entry["result"] for entry in experiment.final().values()} == {""}


def test_a_dead_terminal_does_not_end_a_run_that_ignores_the_hang_up(experiment: Experiment) -> None:
    """P21: as under nohup, with the terminal as its output."""
    write(experiment, READS)
    terminal = OnTerminal(experiment, first="signal.signal(signal.SIGHUP, signal.SIG_IGN); ")
    wait_for(lambda: len(said(experiment, "ran")) == 2)
    terminal.hang_up()
    open_gate(experiment, "finish")
    open_gate(experiment, "rest")
    assert terminal.process.wait(timeout=PATIENCE) == 0
    others_completed(experiment)


# --------------------------------------------------------------------- P24: the OOM killer


def test_the_oom_killer_is_shown_the_workers_first(experiment: Experiment) -> None:
    """P24: and the programs that jobs start."""
    write(
        experiment,
        """
        import subprocess

        def evaluate():
            gate("finish")
            child = subprocess.run(["cat", "/proc/self/oom_score_adj"], capture_output=True, text=True)
            return [int(Path("/proc/self/oom_score_adj").read_text()), int(child.stdout)]

        if __name__ == "__main__":
            main(evaluate, [Job(id="looks")], name="looks", workers=1)
        """,
    )
    supervisor = experiment.start()
    wait_for(lambda: records(experiment, "leased"))
    ours = int(Path(f"/proc/{supervisor.pid}/oom_score_adj").read_text())
    open_gate(experiment, "finish")
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    assert min(experiment.final()["looks"]["result"]) >= min(1000, ours + 500)


def test_a_job_that_eats_all_memory_is_killed_and_the_supervisor_is_not(experiment: Experiment) -> None:
    """P24: a memory cgroup of 300 MB, half of which the supervisor itself uses."""
    write(
        experiment,
        """
        def evaluate():
            eaten = []
            while current_job().id == "eats":
                eaten.append(b"x" * 1_000_000)
            return "fine"

        if __name__ == "__main__":
            ballast = b"x" * 170_000_000
            jobs = [Job(id="eats"), *(Job(id=f"good/{number}") for number in range(10))]
            main(evaluate, jobs, name="eats", workers=2, crash_limit=2)
        """,
    )
    with cgroup("memory") as group:
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            if (group / name).exists():
                (group / name).write_text("300M")
        done = experiment.run(preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
    assert done.returncode == 1, done.stderr
    assert outcomes(experiment, "eats") == ["crashed", "crashed"]
    assert experiment.final()["eats"]["error"]["signal"] == signal.SIGKILL
    assert {r["signal"] for r in records(experiment, "worker_ended", why="crashed")} == {signal.SIGKILL}
    others_completed(experiment, "eats")
