"""Stand-ins for Slurm and systemd: they run the text of the recipes and send what the real ones send.

What Slurm sends was looked at with Slurm itself (22.05, one node): B:SIGNAL reaches the process of the
batch script alone; `scancel`, a requeue and the time limit send SIGCONT and SIGTERM to every process of
the job, also to those in sessions of their own, and SIGKILL after KillWait.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.experiment_fixture import PATIENCE, ROOT, wait_for

KILL_WAIT = 30.0  # seconds, Slurm's default
CLEAN_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)


class Home:
    """A home directory with `walk`, in it the script and what is called like its virtual environment."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        self.walk = folder / "walk"
        python = self.walk / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        for name in ("walk.py", "own.py"):
            (self.walk / name).write_text(script)

    def environment(self, **more: str) -> dict[str, str]:
        """As cron and systemd have it: next to nothing."""
        return {"HOME": str(self.folder), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **more}


class SlurmJob:
    """One job of a cluster with one node."""

    def __init__(self, home: Home, text: str, number: int, **environment: str) -> None:
        directives = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE)
        self.options = dict(directives)
        spool = home.folder / "spool" / f"job{number}"
        spool.mkdir(parents=True, exist_ok=True)
        script = spool / "slurm_script"  # Slurm runs a copy
        script.write_text(text)
        self._marks = {f"SLURM_JOB_ID={number}", f"HOME={home.folder}"}  # nobody else's job of that number
        self.output = home.folder / f"slurm-{number}.out"
        with self.output.open("a" if self.options.get("open-mode") == "append" else "w") as file:
            self.process = subprocess.Popen(
                ["/bin/bash", str(script)],
                cwd=home.folder,  # where `sbatch` was called
                env=home.environment(
                    SLURM_JOB_ID=str(number),
                    SLURM_SUBMIT_DIR=str(home.folder),
                    SLURM_CPUS_PER_TASK=self.options["cpus-per-task"],
                    **environment,
                ),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text()

    def processes(self) -> list[int]:
        """All that it has started, whatever session they are in."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                    if state != "Z" and self._marks.issubset(words):
                        found.append(int(entry.name))
        return found

    def warn(self) -> None:
        """`--signal`: what it says, to the process that it names."""
        who, name, _ = re.split("[:@]", self.options["signal"])
        assert who == "B"
        self.process.send_signal(signal.Signals[f"SIG{name}"])

    def cancel(self) -> int:
        """`scancel`, and what a requeue and the time limit do. How it ended; -9 after KillWait."""
        before = time.monotonic()
        for signum in (signal.SIGCONT, signal.SIGTERM):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, before + KILL_WAIT - time.monotonic()))
        self.kill()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.processes())


class Unit:
    """A service of systemd, started by hand: `Restart=on-failure` and the codes that it looks at."""

    def __init__(self, home: Home, text: str) -> None:
        pairs = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
        self.settings = dict(pairs)
        self.home = home
        self.starts = 0
        self.process = self.start()

    def expanded(self, name: str) -> str:
        """With the home directory of the user; `/home/ada` in the unit of the system."""
        return self.settings[name].replace("%h", "/home/ada").replace("/home/ada", str(self.home.folder))

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with (self.home.folder / "journal.txt").open("a") as file:
            self.process = subprocess.Popen(
                shlex.split(self.expanded("ExecStart")),
                cwd=self.expanded("WorkingDirectory"),
                env=self.home.environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    def stop(self) -> bool:
        """`systemctl stop`: whether it ended in time and cleanly."""
        assert self.settings["KillMode"] == "mixed"
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(float(self.settings["TimeoutStopSec"]))
        return self.is_clean(code)

    def is_clean(self, code: int) -> bool:
        return code == 0 or -code in CLEAN_SIGNALS or self._is_listed(code, "SuccessExitStatus")

    def restarts(self, code: int) -> bool:
        """Whether systemd starts it again after this end."""
        assert self.settings["Restart"] == "on-failure"
        return not self.is_clean(code) and not self._is_listed(code, "RestartPreventExitStatus")

    def after(self, code: int) -> bool:
        """What systemd does about an end: whether it was started again."""
        if self.restarts(code):
            self.start()
            return True
        return False

    def _is_listed(self, code: int, setting: str) -> bool:
        words = self.settings.get(setting, "").split()
        return str(code) in words or (code < 0 and signal.Signals(-code).name in words)
