"""`longhaul exec` in a folder of its own, started as a user would start it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0


class Folder:
    """A folder with files, command lines run in it, and what came of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str, *, executable: bool = False) -> Path:
        path = self.path / name
        path.write_text(text)
        if executable:
            path.chmod(0o755)
        return path

    def start(self, *words: str, cwd: Path | None = None, **keywords: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", *words],
            cwd=cwd or self.path,
            stdin=keywords.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **keywords,
        )
        self.started.append(process)
        return process

    def exec(
        self, *words: str, stdin: str | bytes | None = None, **keywords: Any
    ) -> subprocess.CompletedProcess[str]:
        return self.longhaul("exec", *words, stdin=stdin, **keywords)

    def longhaul(
        self, *words: str, stdin: str | bytes | None = None, **keywords: Any
    ) -> subprocess.CompletedProcess[str]:
        """To its end. `stdin`: what it reads there."""
        if stdin is not None:
            reader, writer = os.pipe()
            process = self.start(*words, stdin=reader, **keywords)
            os.close(reader)
            with open(writer, "wb") as file:
                file.write(stdin if isinstance(stdin, bytes) else stdin.encode())
        else:
            process = self.start(*words, **keywords)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    # -- what is there afterwards

    def outputs(self, name: str = "exec") -> Path:
        return self.path / "data" / "outputs" / name

    def experiment(self, name: str = "exec") -> Path:
        """The folder of the only experiment of this name."""
        (plan,) = (self.outputs(name) / "logs").glob("plan_*.jsonl")
        return self.outputs(name) / plan.stem.removeprefix("plan_")

    def final(self, name: str = "exec") -> dict[str, dict[str, Any]]:
        entries = json.loads((self.experiment(name) / "logs_final.json").read_text())
        return {entry["job"]: entry for entry in entries}

    def results(self, name: str = "exec") -> dict[str, Any]:
        return {job: entry["result"] for job, entry in self.final(name).items()}

    def log(self, job: str, name: str = "exec") -> str:
        return (self.experiment(name) / "output" / f"{job}.log").read_text()

    def journal(self, name: str = "exec") -> list[dict[str, Any]]:
        (path,) = (self.outputs(name) / "logs").glob("journal_*.jsonl")
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]

    def attempts(self, job: str, name: str = "exec") -> list[dict[str, Any]]:
        return [one for one in self.journal(name) if one.get("job") == job and one["type"] == "ended"]

    def processes(self, mark: str) -> list[int]:
        """Pids of processes whose command line has this word."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and entry.name != str(os.getpid()):
                try:
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                except OSError:
                    continue
                if mark in words:
                    found.append(int(entry.name))
        return found


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
