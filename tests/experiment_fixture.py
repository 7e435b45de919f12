"""The whole program through its command line, with a log of executions kept outside of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from supervisor import Job, run
from supervisor.__main__ import main as longhaul_main

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

# Starts scripts one after the other, each in a fork that need not import what this process has imported.
ONE_AFTER_THE_OTHER = """
import json, os, runpy, sys

import supervisor.api, supervisor.engines.zygote_process, supervisor.options.request, supervisor.session.execution

answers = []
for script, words, output in json.load(sys.stdin):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.close(reader)
        os.close(writer)
        sys.argv = [script, "--output", output, *words]
        sys.path[0] = os.path.dirname(script)
        runpy.run_path(script, run_name="__main__")
        os._exit(0)
    os.close(writer)
    with open(reader, errors="replace") as file:
        said = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answers.append([code, said, os.path.lexists(output)])
json.dump(answers, sys.stdout)
"""


class Said(NamedTuple):
    """How a command of longhaul ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Refused(NamedTuple):
    """How a start ended that was refused; whether its output directory is there."""

    returncode: int
    stderr: str
    made: bool


def longhaul(*words: str) -> Said:
    """A command of longhaul, in this process: that is quicker."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = longhaul_main(list(words))
        except SystemExit as end:  # of argparse
            code = int(str(end.code))
    return Said(code, out.getvalue(), err.getvalue())


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


def slowness() -> float:
    """How many times slower this machine computes now than one that adds ten million numbers in 0.55 s; 1 if it
    is not slower. For the few tests that compare CPU time with a number.
    """
    began, total = time.thread_time(), 0
    for number in range(300_000):
        total += number
    return max(1.0, (time.thread_time() - began) / (0.55 * 0.03))


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

    def refused(
        self, starts: Iterable[Sequence[str]], scripts: Iterable[str] = (), **environment: str
    ) -> list[Refused]:
        """Many starts that end before they have begun anything, at the price of one: one after the other.

        starts: the arguments of each. scripts: the text of each, as for `write`, if it is not the same for all.
        """
        texts, asked = list(scripts), []
        for number, words in enumerate(starts):
            script = self.script
            if texts:
                self.write(texts[number])
                script = self.script.rename(self.folder / f"exp{number}.py")
            asked.append([str(script), list(words), str(self.output)])
        done = subprocess.run(
            [sys.executable, "-c", ONE_AFTER_THE_OTHER],
            cwd=self.folder,
            env={**self.environment(), **environment},
            input=json.dumps(asked),
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE + len(asked),
            check=True,
        )
        return [Refused(*each) for each in json.loads(done.stdout)]

    def made(self, experiment_id: str, ids: Iterable[str], *, name: str, only: str | None = None) -> None:
        """Run jobs of these ids from this process, for tests that need but the experiment: without a script."""
        jobs = [Job(id=job_id, params={"number": number}) for number, job_id in enumerate(ids)]
        run(
            dict,
            jobs,
            name=name,
            output=self.output,
            experiment_id=experiment_id,
            only=only,
            workers=1,
            progress=False,
        )

    # -- what is there afterwards

    def executions(self, word: str = "ran") -> list[str]:
        if not self.executions_file.exists():
            return []
        lines = [line.split() for line in self.executions_file.read_text().splitlines()]
        return [line[1] for line in lines if len(line) == 3 and line[0] == word]

    def all_ran(self, jobs: Iterable[str], word: str = "ran") -> None:
        """These jobs have executed and no others, each once for each time that it was handed out, at most.

        That is once, unless a worker died, or a lease was taken back from a worker that was slow: it goes to
        another one, and may have begun at the first all the same. On a busy machine short jobs show this.
        """
        executed = Counter(self.executions(word))
        assert set(executed) == set(jobs)
        handed_out = Counter(
            job for record in self.journal() if record["type"] == "leased" for job in record["jobs"]
        )
        assert executed <= handed_out, executed - handed_out

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
        ours = f"EXECUTIONS={self.executions_file}"
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes()
                    if ours.encode() not in environment:  # most of them, and there are many
                        continue
                    words = environment.decode(errors="replace").split("\0")
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                here = ours in words
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
