"""The program that is tortured: its script, how it is started, and what can be seen of it.

Everything is seen from outside: processes by /proc, executions by a file that the jobs
write themselves, records by the journal's lines. Nothing here does any harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import fcntl, os, signal, subprocess, sys, time
from supervisor import Job, main

def jobs():
    with open(os.environ["TORTURE_JOBS"]) as file:
        for line in file:
            number, kind, seconds = line.split()
            yield Job(id=f"{kind}/{number}", domain=kind,
                      params={"number": int(number), "kind": kind, "seconds": float(seconds)})

def evaluate(number, kind, seconds):
    lock = os.open(os.path.join(os.environ["TORTURE_LOCKS"], str(number)), os.O_RDWR | os.O_CREAT)
    try:  # for as long as this process is there
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        word = "alone"
    except BlockingIOError:
        word = "beside"
    log = os.open(os.environ["TORTURE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{kind}/{number} {word} {os.getpid()} {time.clock_gettime(time.CLOCK_BOOTTIME)}\\n".encode())
    os.close(log)
    try:
        return work(number, kind, seconds)
    finally:
        os.close(lock)

def work(number, kind, seconds):
    if kind == "child":
        subprocess.run(["sleep", str(seconds)])
    elif seconds > 0:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
    if kind == "raises":
        raise ValueError(number)
    if kind == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "large":
        return {"number": number, "pad": "x" * 300_000}
    return {"number": number}

if __name__ == "__main__":
    main(evaluate, jobs, name="torture", all_tasks=True, crash_limit=3, grace=2)
"""

KINDS = ["good"] * 40 + ["child"] * 3 + ["large"] * 2 + ["raises"] * 2 + ["crashes"]


NODE_TIMEOUT = 2.0  # seconds
SIZES = (20, 60, 200, 600)


class Program:
    """One experiment of good and bad jobs, in a folder of its own. `jobs`: their kinds, by id.

    nodes: 0, or how many places every second run has, each with an agent (`--engine pipes`).
    """

    def __init__(
        self,
        rng: random.Random,
        folder: Path,
        output: Path,
        *,
        nodes: int = 0,
        sizes: Sequence[int] = SIZES,
    ) -> None:
        self.rng = rng
        self.folder = folder
        self.output = output
        self.journal = output / "logs" / "journal_torture.jsonl"
        self.checkpoint = output / "logs" / "checkpoint_torture.json"
        self.nodes, self._sizes = nodes, sizes
        self.over_nodes = False  # the present run
        self.jobs: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.traced = False
        self._write_script()

    def _write_script(self) -> None:
        lines = []
        for number in range(self.rng.choice(self._sizes)):
            kind = self.rng.choice(KINDS)
            seconds = self.rng.choice([0.0, 0.0, 0.002, 0.02, 0.1])
            self.jobs[f"{kind}/{number}"] = kind
            lines.append(f"{number} {kind} {seconds}\n")
        (self.folder / "jobs.txt").write_text("".join(lines))
        (self.folder / "exp.py").write_text(SCRIPT)
        (self.folder / "locks").mkdir()

    def start(self, wrapper: list[str]) -> None:
        environment = {
            **os.environ,
            "TORTURE_JOBS": str(self.folder / "jobs.txt"),
            "TORTURE_LOG": str(self.folder / "executions.txt"),
            "TORTURE_LOCKS": str(self.folder / "locks"),
            "PYTHONPATH": str(ROOT),
        }
        self.traced = bool(wrapper)
        command = [sys.executable, str(self.folder / "exp.py"), "--output", str(self.output)]
        command += [
            "--experiment-id",
            "torture",
            "--resume",
            "auto",
            "--workers",
            str(self.rng.randint(1, 4) if not self.nodes else self.nodes + self.rng.randint(0, 2)),
        ]
        if self.nodes:
            self.over_nodes = not self.over_nodes
            command += ["--engine", "pipes" if self.over_nodes else "local"]
        if self.over_nodes:
            command += ["--nodes", str(self.nodes), "--node-timeout", f"{NODE_TIMEOUT}s"]
        with open(self.folder / "stderr.txt", "ab") as stderr:
            self.process = subprocess.Popen(
                [*wrapper, *command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )

    def over(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def supervisor(self) -> int | None:
        """Pid of the supervisor itself: under strace, of the process that strace has started."""
        if self.over() or self.process is None:
            return None
        if not self.traced:
            return self.process.pid
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _parent(int(entry.name)) == self.process.pid:
                return int(entry.name)
        return None

    def marked(self) -> list[int]:
        """Processes that carry the experiment's mark: zygote, workers, their children."""
        found = []
        log = f"TORTURE_LOG={self.folder / 'executions.txt'}"
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                marked = any(word.startswith("LONGHAUL_EXPERIMENT=torture:") for word in words)
                if state != "Z" and log in words and marked:
                    found.append(int(entry.name))
        return found

    def zygote(self) -> int | None:
        """One of them, if each node has its own."""
        agents = self.agents()
        parents = agents if self.over_nodes else [self.supervisor()]
        found = [pid for pid in self.marked() if _parent(pid) in parents]
        return self.rng.choice(found) if found else None

    def agents(self) -> list[int]:
        """Pids of the agents of nodes."""
        supervisor = self.supervisor()
        if not self.over_nodes or supervisor is None:
            return []
        return [pid for pid in self.marked() if _parent(pid) == supervisor]

    def executions(self) -> list[str]:
        path = self.folder / "executions.txt"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def below(self, pid: int) -> list[int]:
        """What a process has started, and what that has, as far as it is marked."""
        found: list[int] = [pid]
        marked = self.marked()
        for parent in found:
            found += [each for each in marked if _parent(each) == parent and each not in found]
        return found[1:]

    def in_two_places(self) -> list[str]:
        """Jobs of which an execution began while another one was there."""
        path = self.folder / "executions.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split()[1] == "beside"]

    def recorded(self) -> set[str]:
        """Jobs that whole lines of the journal call completed."""
        return {
            record["job"]
            for record in self._records()
            if record.get("type") == "ended" and record.get("outcome") == "completed"
        }

    def superseded(self) -> set[str]:
        """Jobs of which a lease ended after another one had been made."""
        return {record["detail"]["job"] for record in self._records() if record.get("what") == "superseded"}

    def _records(self) -> Iterator[dict[str, Any]]:
        if self.journal.exists():
            for line in self.journal.read_bytes().split(b"\n")[:-1]:
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def finished(self) -> bool:
        """Whether the run said so: an interpreter that Ctrl+C meets while it starts exits
        with 1 as well."""
        try:
            found = json.loads((self.output / "torture" / "statistics.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(found["state"] == "finished")

    def written(self) -> int:
        """Size of the journal, -1 before there is one: a run that goes on writes it."""
        with contextlib.suppress(OSError):
            return self.journal.stat().st_size
        return -1


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def describe(pid: int) -> str:
    """What a process is, for the report of a violation."""
    words = []
    for name in ("stat", "cmdline", "wchan", "cgroup"):
        with contextlib.suppress(OSError):
            words.append(
                Path(f"/proc/{pid}/{name}").read_text(errors="replace")[:120].replace("\0", " ").strip()
            )
    return f"{pid}: {' | '.join(words)}"
