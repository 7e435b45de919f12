"""The whole program through its command line, with a log of executions kept outside of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60.0  # seconds until a condition that must come true is given up

PREAMBLE = """
import json, os, sys, time
from pathlib import Path
from supervisor import Job, main
from workers import current_job

LOG = os.environ["EXECUTIONS"]

def note(word, job=None):
    with open(LOG, "a") as file:
        file.write(f"{word} {job or current_job().id} {os.getpid()}\\n")
"""


def wait_for(condition: Callable[[], Any], what: str = "") -> Any:
    """Until it is true; its value. Time in which this process stood still does not count: whatever
    it waits for may have stood still as well."""
    waited, before = 0.0, time.monotonic()
    while waited < PATIENCE:
        if value := condition():
            return value
        time.sleep(0.01)
        now = time.monotonic()
        waited += min(1.0, now - before)
        before = now
    raise AssertionError(f"waited {PATIENCE:.0f} s in vain: {what or condition}")


class Experiment:
    """A script in a folder of its own, started as a user would start it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "exp.py"
        self.executions_file = folder / "executions.txt"
        self.output = folder / "out"
        self.started: list[subprocess.Popen[str]] = []

    def write(self, text: str, *, name: str = "trial") -> None:
        self.script.write_text(PREAMBLE + textwrap.dedent(text).replace("@NAME@", name))

    def environment(self) -> dict[str, str]:
        usual = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
        return {
            **usual,
            "EXECUTIONS": str(self.executions_file),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }

    def start(self, *arguments: str, wrapper: Sequence[str] = (), **keywords: Any) -> subprocess.Popen[str]:
        """`wrapper`: a command that runs the script as its own last words say (strace)."""
        process = subprocess.Popen(
            [*wrapper, sys.executable, str(self.script), "--output", str(self.output), *arguments],
            cwd=self.folder,
            env=keywords.pop("env", self.environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **keywords,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
        """To its end."""
        process = self.start(*arguments, **keywords)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    # -- what is there afterwards

    def executions(self, word: str = "ran") -> list[str]:
        if not self.executions_file.exists():
            return []
        lines = [line.split() for line in self.executions_file.read_text().splitlines()]
        return [line[1] for line in lines if len(line) == 3 and line[0] == word]

    def experiment_id(self) -> str:
        (path,) = self.output.glob("logs/plan_*.jsonl")
        return path.stem.removeprefix("plan_")

    def path(self, kind: str) -> Path:
        suffix = "jsonl" if kind in ("journal", "plan") else "json"
        return self.output / "logs" / f"{kind}_{self.experiment_id()}.{suffix}"

    def journal(self) -> list[dict[str, Any]]:
        """All whole lines."""
        text = self.path("journal").read_bytes()
        return [json.loads(line) for line in text.split(b"\n")[:-1]]

    def completed_in_journal(self) -> list[str]:
        if not list(self.output.glob("logs/journal_*.jsonl")):
            return []
        return [r["job"] for r in self.journal() if r["type"] == "ended" and r["outcome"] == "completed"]

    def checkpoint(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path("checkpoint").read_text())
        return found

    def final(self) -> dict[str, dict[str, Any]]:
        entries = json.loads((self.output / self.experiment_id() / "logs_final.json").read_text())
        return {entry["job"]: entry for entry in entries}

    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.output / self.experiment_id() / "statistics.json").read_text()
        )
        return found

    def processes(self) -> list[int]:
        """Pids that carry this experiment's mark."""
        found = []
        marks = [
            f"LONGHAUL_EXPERIMENT={path.stem.removeprefix('plan_')}:"
            for path in self.output.glob("logs/plan_*")
        ]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                here = any(f"EXECUTIONS={self.executions_file}" == word for word in words)
                if here and state != "Z" and any(word.startswith(mark) for word in words for mark in marks):
                    found.append(int(entry.name))
        return found

    def clean_up(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    created = Experiment(tmp_path)
    yield created
    created.clean_up()
    wait_for(lambda: not created.processes(), "processes of the experiment are left over")
