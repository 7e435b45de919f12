"""The process that runs a batch, whatever it is that runs it, and what is left of it when it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tools.benchmark.child_processes import LAST_WORDS, Failed, Hangs
from tools.damage.damage_jobs import Batch, write_script
from tools.damage.damage_programs import ATTEMPTS, CONTENDERS, WORKERS, Answer, answer

PROGRAM = Path(__file__).resolve().parent / "damage_programs.py"
TAG = "LONGHAUL_BENCH_BATCH"  # the name of a variable: whatever has this value in its environment belongs to a batch
BEGIN_OF_ANSWER = '{"done": '
# Number, host, start, seconds, bytes sent and received, exit code, signal, command.
WHOLE_LINE = re.compile(r"(\d+)\t[^\t]+\t *[\d.]+\t *[\d.]+\t\d+\t\d+\t(-?\d+)\t(\d+)\t")
POLL = 0.01
NOT_OF_JOBS = 255  # GNU parallel's exit code for an error of its own; others count failed jobs


class BatchProcess:
    """Starts a batch, and knows all processes that came of it; at the end of a `with` statement they are gone."""

    def __init__(self, contender: str, batch: Batch) -> None:
        self.contender, self.batch = contender, batch
        self._tag = uuid.uuid4().hex
        self._process: subprocess.Popen[str] | None = None
        self._log = Path(batch.folder, "stdout")
        self._errors = Path(batch.folder, "stderr")
        self._seen: set[psutil.Process] = set()

    def __enter__(self) -> BatchProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()

    def end_all(self) -> None:
        """SIGKILL for all processes of it, by their ids, until none is left."""
        self.kill()
        deadline = time.monotonic() + 30
        while (left := self.left()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(POLL)

    def start(self) -> None:
        """For the first time, or once more."""
        command = self._command()
        environ = {
            **os.environ,
            TAG: self._tag,
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH", "")])
            ),
        }
        with self._log.open("w") as output, self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=self.batch.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def _command(self) -> list[str]:
        if CONTENDERS[self.contender].run is not None:
            return [sys.executable, str(PROGRAM), self.contender, json.dumps(self.batch._asdict())]
        folder = Path(self.batch.folder)
        values, script = folder / "tasks", write_script(folder / "job.sh")
        values.write_text("".join(f"{task}\n" for task in self.batch.tasks()))
        resume = "--resume-failed" if self.contender.endswith("-failed") else "--resume"
        options = (
            f"--will-cite -j {WORKERS} --retries {ATTEMPTS} --joblog {folder}/joblog {resume} -a {values}"
        )
        return [shutil.which("parallel") or "parallel", *options.split(), str(script), "{}"]

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait(self, patience: float) -> tuple[int, Answer]:
        """Its end: the exit code, negative for a signal, and its answer; without one `lost` has its last line.
        Raises Hangs."""
        assert self._process is not None
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Hangs(f"no end within {patience:g} s") from None
        if CONTENDERS[self.contender].run is None:
            lost = self._last_line() if code == NOT_OF_JOBS else ""
            return code, of_joblog(Path(self.batch.folder, "joblog"), lost)
        said = self._log.read_text(errors="replace").strip()
        _, begin, rest = said.rpartition(BEGIN_OF_ANSWER)
        if begin:
            found: dict[str, Any] = json.loads(begin + rest.splitlines()[0])
            return code, found
        return code, answer([], lost=self._last_line() or _end_in_words(code))

    def _last_line(self) -> str:
        """Of what it has said about errors; without the name of the folder, which is another one each time."""
        text = self._errors.read_text(errors="replace")[-LAST_WORDS:].replace(self.batch.folder, "DIR")
        return (text.strip().splitlines() or [""])[-1]

    def kill(self) -> None:
        """SIGKILL for the process that was started, and for no other one."""
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen |= {*psutil.Process(self._process.pid).children(recursive=True)}
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def wait_for_nobody(self, seconds: float) -> None:
        """Until nothing is left, but no longer than that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.left():
            time.sleep(0.1)

    def left(self) -> list[psutil.Process]:
        """What there is of it beside the process that was started: by its environment, or as a child of before."""
        mine = self._process.pid if self._process is not None and self._process.returncode is None else 0
        found = {*self._seen}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(TAG) == self._tag:
                    found.add(process)
        return [process for process in found if process.pid != mine and _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end_in_words(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def of_joblog(joblog: Path, lost: str) -> Answer:
    """Job logs hold one line for each job that has ended; what is no such line says nothing."""
    done, blamed = [], {}
    lines = joblog.read_text().splitlines()[1:] if joblog.exists() else []
    for number, code, death in (found.groups() for found in map(WHOLE_LINE.match, lines) if found):
        if (code, death) == ("0", "0"):
            done.append(int(number))
        else:
            # A shell that stays between parallel and the job makes an exit code of the signal.
            number_of_signal = int(death) or int(code) - 128
            died = number_of_signal in signal.Signals.__members__.values()
            blamed[int(number)] = _end_in_words(-number_of_signal if died else int(code))
    return answer(done, blamed, lost)


class Note(NamedTuple):
    """`word`: "begun" or "done"; `pid`: of the process in which the job is."""

    word: str
    job: int
    pid: int


class Notes:
    """What the jobs have noted so far, in order; read on from where it was read last."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._rest = path, 0, ""
        self.lines: list[Note] = []

    def read(self) -> list[Note]:
        """The new ones."""
        if not self._path.exists():
            return []
        with self._path.open() as file:
            file.seek(self._read)
            text = file.read()
            self._read = file.tell()
        *whole, self._rest = (self._rest + text).split("\n")
        new = [Note(word, int(number), int(pid)) for word, number, pid in (line.split() for line in whole)]
        self.lines += new
        return new

    def done(self) -> set[int]:
        return {note.job for note in self.lines if note.word == "done"}

    def wait_for(
        self, condition: Callable[[list[Note]], bool], process: BatchProcess, patience: float
    ) -> float:
        """Seconds until new lines fulfil the condition. Raises Failed if the process ends before, or Hangs."""
        began = time.monotonic()
        while True:
            alive = process.running()
            if condition(self.read()):
                return time.monotonic() - began
            if not alive:
                raise Failed(f"it ended before: {process.wait(1)[1]['lost']}")
            if time.monotonic() - began > patience:
                raise Hangs(f"not within {patience:g} s")
            time.sleep(POLL)
