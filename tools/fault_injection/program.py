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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import os, signal, subprocess, sys, time
from supervisor import Job, main

def jobs():
    with open(os.environ["TORTURE_JOBS"]) as file:
        for line in file:
            number, kind, seconds = line.split()
            yield Job(id=f"{kind}/{number}", domain=kind,
                      params={"number": int(number), "kind": kind, "seconds": float(seconds)})

def evaluate(number, kind, seconds):
    log = os.open(os.environ["TORTURE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{kind}/{number} {time.time()}\\n".encode())
    os.close(log)
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


class Program:
    """One experiment of good and bad jobs, in a folder of its own. `jobs`: their kinds, by id."""

    def __init__(self, rng: random.Random, folder: Path, output: Path) -> None:
        self.rng = rng
        self.folder = folder
        self.output = output
        self.journal = output / "logs" / "journal_torture.jsonl"
        self.checkpoint = output / "logs" / "checkpoint_torture.json"
        self.jobs: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.traced = False
        self._write_script()

    def _write_script(self) -> None:
        lines = []
        for number in range(self.rng.choice([20, 60, 200, 600])):
            kind = self.rng.choice(KINDS)
            seconds = self.rng.choice([0.0, 0.0, 0.002, 0.02, 0.1])
            self.jobs[f"{kind}/{number}"] = kind
            lines.append(f"{number} {kind} {seconds}\n")
        (self.folder / "jobs.txt").write_text("".join(lines))
        (self.folder / "exp.py").write_text(SCRIPT)

    def start(self, wrapper: list[str]) -> None:
        environment = {
            **os.environ,
            "TORTURE_JOBS": str(self.folder / "jobs.txt"),
            "TORTURE_LOG": str(self.folder / "executions.txt"),
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
            str(self.rng.randint(1, 4)),
        ]
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
        supervisor = self.supervisor()
        return next((pid for pid in self.marked() if _parent(pid) == supervisor), None)

    def executions(self) -> list[str]:
        path = self.folder / "executions.txt"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def recorded(self) -> set[str]:
        """Jobs that whole lines of the journal call completed."""
        if not self.journal.exists():
            return set()
        found = set()
        for line in self.journal.read_bytes().split(b"\n")[:-1]:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("type") == "ended" and record.get("outcome") == "completed":
                    found.add(record["job"])
        return found

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
