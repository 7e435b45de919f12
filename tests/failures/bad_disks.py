"""What the tests of files do to disks, and how they tell that nothing recorded was lost.

System calls that fail, wait or kill their caller (strace), file systems that are full,
read-only or lose power (loop devices and tmpfs, as root). Each is there or a reason to skip.

Traps: `when=N` counts per thread; `--seccomp-bpf` would switch signals off; `-D` keeps the
program a direct child, so that pids, signals and exit codes are its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.experiment_fixture import Experiment, wait_for

LONG = bool(os.environ.get("LONG_TESTS"))  # every point of every walk, many power cuts
ID = "e1"
GO_ON = ("--experiment-id", ID, "--resume", "auto")  # the same command again and again
SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN
WITHOUT_FLUSH = 2
_OURS = ("journal_", "plan_", "jobs_", "checkpoint_", "index_", "stretches_", "progress_", "lock_")
_RESULTS = ("logs_final.json", "statistics.json", "supervisor.log", "output", "jobs")

TINY = """
    def jobs():
        for number in range(@JOBS@):
            yield Job(id=f"job/{number}", params={"number": number})

    def evaluate(number):
        note("ran")
        return {"square": number * number}

    if __name__ == "__main__":
        main(evaluate, jobs, name="tiny", workers=1, all_tasks=True, checkpoint_every=2)
"""


def tiny(experiment: Experiment, jobs: int) -> None:
    experiment.write(TINY.replace("@JOBS@", str(jobs)))


# ------------------------------------------------------------------------------- strace


@cache
def _can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return tried.returncode == 0


def needs_strace() -> pytest.MarkDecorator:
    return pytest.mark.skipif(not _can_trace(), reason="strace is not there or may not trace")


def strace(
    call: str, *injected: str, log: Path | None = None, threads: bool = True, paths: Sequence[Path] = ()
) -> list[str]:
    """The wrapper that does things to one system call of the supervisor: `error=EIO:when=3`.

    `threads` False: of its main thread only. `paths`: only calls on these files.
    """
    command = ["strace", "-D", "-y", "-o", os.fspath(log or "/dev/null"), "-e", f"trace={call}"]
    command += ["-f"] if threads else []
    for path in paths:
        command += ["-P", os.fspath(path)]
    for text in injected:
        command += ["-e", f"inject={call}:{text}"]
    return command


def calls_on(log: Path, call: str, folder: Path) -> list[int]:
    """In a trace of one thread: which of its calls of one kind, counted from 1, touch a folder."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(f"{call}(")]
    return [number for number, line in enumerate(lines, 1) if f"{folder}/" in line]


def injected(log: Path) -> str:
    """The lines of a trace whose calls were tampered with."""
    return "\n".join(line for line in log.read_text(errors="replace").splitlines() if "(INJECTED)" in line)


# -------------------------------------------------------------------------- what is kept


class Witness:
    """Looks at an experiment between its runs: what was recorded stays and never runs again."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.recorded: set[str] = set()
        self._seen = 0

    def look(self) -> None:
        wait_for(lambda: not self.experiment.processes(), "processes outlived their supervisor")
        ran = self.experiment.executions()
        again = self.recorded & set(ran[self._seen :])
        assert not again, f"recorded as completed and run again: {again}"
        self._seen = len(ran)
        now = recorded(self.experiment)
        assert self.recorded <= now, f"recorded as completed and lost: {self.recorded - now}"
        self.recorded = now

    def end(self, jobs: int) -> None:
        """The experiment is over: every job is there once, the files agree, nothing lies about."""
        self.look()
        wanted = [f"job/{number}" for number in range(jobs)]
        assert sorted(self.experiment.completed_in_journal()) == sorted(wanted)
        assert set(self.experiment.checkpoint()["completed"]) == set(wanted)
        final = self.experiment.final()
        assert list(final) == wanted
        for number, entry in enumerate(final.values()):
            assert (entry["state"], entry["result"]) == ("completed", {"square": number * number})
        assert self.experiment.statistics()["counts"]["completed"] == jobs
        assert not (found := left_over(self.experiment)), found


def recorded(experiment: Experiment) -> set[str]:
    """Jobs that the journal or the checkpoint calls completed."""
    found = set()
    for path in experiment.output.glob("logs/journal_*.jsonl"):
        if ".backup" not in path.name:
            for line in path.read_bytes().split(b"\n")[:-1]:
                record = json.loads(line)
                if record["type"] == "ended" and record["outcome"] == "completed":
                    found.add(record["job"])
    for path in experiment.output.glob("logs/checkpoint_*.json"):
        if ".backup" not in path.name:
            found.update(json.loads(path.read_bytes())["completed"])
    return found


def left_over(experiment: Experiment) -> list[str]:
    """Files that nobody promised: temporary ones of a run that was killed."""
    logs = [path.name for path in (experiment.output / "logs").iterdir() if not path.name.startswith(_OURS)]
    results = [
        path.name
        for folder in experiment.output.iterdir()
        if folder.name != "logs"
        for path in folder.iterdir()
        if path.name not in _RESULTS
    ]
    scratch = [path.name for path in experiment.output.glob("*/output/.*")]
    return logs + results + scratch


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    """What a run said on the terminal; no traceback may be among it."""
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


# ----------------------------------------------------------------------- file systems


def needs_root(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    reason = f"{', '.join(missing)} not there" if missing else "only root may mount file systems"
    return pytest.mark.skipif(bool(missing) or os.geteuid() != 0, reason=reason)


def do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def mounted(experiment: Experiment, *options: str) -> Iterator[Path]:
    """A file system for an experiment's output inside of the block; skips where it cannot be had."""
    point = experiment.folder / "disk"
    point.mkdir()
    _mount_or_skip(*options, str(point))
    experiment.output = point / "out"
    try:
        yield point
    finally:
        experiment.clean_up()
        unmount(point)


def _mount_or_skip(*words: str) -> None:
    try:
        do("mount", *words)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"cannot be mounted here: {error.stderr.decode(errors='replace').strip()}")


def unmount(point: Path) -> None:
    """As soon as nobody uses it any more; if somebody never ends, nothing is left mounted either."""

    def gone() -> bool:
        return subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode == 0

    try:
        wait_for(gone, f"{point} stays busy")
    except BaseException:
        do("umount", "--lazy", str(point))
        raise


class Machine:
    """A disk of its own in a file, whose power can be cut. Mounted while it is in use."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.point = folder / "disk"
        self.point.mkdir()
        self._image = folder / "disk.img"
        self._on = False
        with open(self._image, "wb") as file:
            file.truncate((320 if kind == "xfs" else 16) << 20)
        quiet = ("-q", "-F") if kind == "ext4" else ("-q", "-f")
        do(f"mkfs.{kind}", *quiet, str(self._image))
        self._options = "loop" if kind == "ext4" else "loop,nouuid"
        _mount_or_skip("-o", self._options, str(self._image), str(self.point))
        self._on = True

    def cut(self) -> None:
        """Whatever has not reached the medium by now is gone."""
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(fd)

    def boot(self) -> None:
        """Mounts a copy of the medium. A mount namespace that somebody else made meanwhile (`unshare`)
        keeps the old file system alive, and mounting the same image would bring that one back, dead.
        """
        self.shut_down()
        copy = self._image.with_suffix(".booted.img")
        do("cp", "--sparse=always", str(self._image), str(copy))
        copy.rename(self._image)
        do("mount", "-o", self._options, str(self._image), str(self.point))
        self._on = True

    def shut_down(self) -> None:
        """Waits until nobody uses the disk."""
        if self._on:
            unmount(self.point)
        self._on = False


def progress(experiment: Experiment) -> dict[str, Any]:
    """The progress file; empty before there is one."""
    for path in experiment.output.glob("logs/progress_*.json"):
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    return {}
