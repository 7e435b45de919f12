"""Torture: the real program under random kills, stops, failing system calls and power cuts.

    python tools/torture.py --minutes 60 --seed 1

Round after round it makes an experiment of good and bad jobs in a temporary directory, and
runs it, interrupted and resumed, until it is finished. Every execution of a job is logged
outside of the runner, by the job itself. After each interruption and at the end the
promises are checked: what was recorded as completed did not run again and is still there,
every job ended as it should, nothing is left alive, no temporary file is left over.

Prints a table of the faults injected and exits 1 on a violation. strace (failing calls),
root with loop devices (power cuts and full disks, on ext4 and XFS) are used where they are
there; what is missing is said at the start.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

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
SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
NO_FLUSH = 2
PATIENCE = 120.0  # seconds without anything new in the journal until a run hangs
IMAGES = {"ext4": 64, "xfs": 320}  # MB: XFS is not made any smaller


class Violation(Exception):
    """A promise did not hold."""


class Torture:
    """One round: one experiment until it is finished."""

    def __init__(self, rng: random.Random, folder: Path, output: Path, faults: Counter[str]) -> None:
        self.rng = rng
        self.folder = folder
        self.output = output
        self.faults = faults
        self.jobs: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.resumes = 0
        self.traced = False
        self.murdered: Counter[str] = Counter()  # jobs that we may have hit, by id
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

    # ------------------------------------------------------------------------ running

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

    # ------------------------------------------------------------------------- faults

    def hit(self) -> None:
        """One fault, chosen at random, on what is running now."""
        fault = self.rng.choice(
            [self.kill_worker] * 4
            + [self.crash_worker, self.stop_worker, self.stop_zygote, self.kill_zygote]
            + [
                self.stop_supervisor,
                self.interrupt,
                self.terminate,
                self.kill_supervisor,
                self.kill_all_at_once,
                self.starve_of_files,
                self.starve_of_files,
            ]
        )
        fault()

    def _send(self, pid: int | None, signum: int, name: str) -> None:
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
            self.faults[name] += 1

    def _victim(self) -> int | None:
        pids = [pid for pid in self.marked() if pid != self.zygote()]
        return self.rng.choice(pids) if pids else None

    def kill_worker(self) -> None:
        self._send(self._victim(), signal.SIGKILL, "SIGKILL worker or child")

    def crash_worker(self) -> None:
        self._send(self._victim(), signal.SIGSEGV, "SIGSEGV worker or child")

    def stop_worker(self) -> None:
        self._stop_and_continue(self._victim(), "SIGSTOP worker or child")

    def kill_zygote(self) -> None:
        self._send(self.zygote(), signal.SIGKILL, "SIGKILL zygote")

    def stop_zygote(self) -> None:
        self._stop_and_continue(self.zygote(), "SIGSTOP zygote")

    def stop_supervisor(self) -> None:
        self._stop_and_continue(self.supervisor(), "SIGSTOP supervisor")

    def _stop_and_continue(self, pid: int | None, name: str) -> None:
        self._send(pid, signal.SIGSTOP, name)
        time.sleep(self.rng.choice([0.01, 0.2, 1.5]))
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def interrupt(self) -> None:
        self._send(self.supervisor(), signal.SIGINT, "SIGINT supervisor")

    def terminate(self) -> None:
        self._send(self.supervisor(), signal.SIGTERM, "SIGTERM supervisor")

    def kill_supervisor(self) -> None:
        self._send(self.supervisor(), signal.SIGKILL, "SIGKILL supervisor")

    def kill_all_at_once(self) -> None:
        """Supervisor and zygote together: what is left over is ended by the next resume."""
        zygote = self.zygote()
        self._send(self.supervisor(), signal.SIGKILL, "SIGKILL supervisor and zygote")
        self._send(zygote, signal.SIGKILL, "SIGKILL supervisor and zygote")

    def starve_of_files(self) -> None:
        """No more descriptors for the supervisor or the zygote, for a moment."""
        zygote = self.zygote()
        pid = self.rng.choice([self.supervisor(), zygote])
        if zygote is None:  # an interpreter that only starts fails in words of its own
            return
        with contextlib.suppress(OSError, TypeError):
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)  # type: ignore[arg-type]
            few = len(os.listdir(f"/proc/{pid}/fd")) + self.rng.randint(-3, 2)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))  # type: ignore[arg-type]
            self.faults["no more descriptors"] += 1
            time.sleep(self.rng.choice([0.1, 1.0]))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)  # type: ignore[arg-type]

    def fill_disk(self, disk: Path) -> None:
        """To the last byte, for a moment."""
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size) == size:
                        pass
        self.faults["full disk"] += 1
        time.sleep(self.rng.choice([0.2, 2.0]))
        with contextlib.suppress(OSError):
            ballast.unlink()

    def damage_files(self) -> None:
        """Between two runs, what costs nothing: any part of the checkpoint, the journal's end."""
        checkpoint = self.output / "logs" / "checkpoint_torture.json"
        journal = self.output / "logs" / "journal_torture.jsonl"
        with contextlib.suppress(OSError):  # no room for damage on a small disk
            if self.rng.random() < 0.1 and checkpoint.exists() and checkpoint.stat().st_size:
                text = bytearray(checkpoint.read_bytes())
                text[self.rng.randrange(len(text))] ^= 1 << self.rng.randrange(8)
                checkpoint.write_bytes(text[: self.rng.randint(0, 2 * len(text))])
                self.faults["damaged checkpoint"] += 1
            if self.rng.random() < 0.1 and journal.exists():
                with open(journal, "ab") as file:
                    file.write(self.rng.choice([b"\0" * 700, b'{"n":', b"\xff" * 13]))
                self.faults["torn end of the journal"] += 1

    # ------------------------------------------------------------------------- checks

    def executions(self) -> list[str]:
        path = self.folder / "executions.txt"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def recorded(self) -> set[str]:
        """Jobs that whole lines of the journal call completed."""
        path = self.output / "logs" / "journal_torture.jsonl"
        if not path.exists():
            return set()
        found = set()
        for line in path.read_bytes().split(b"\n")[:-1]:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("type") == "ended" and record.get("outcome") == "completed":
                    found.add(record["job"])
        return found

    def wait_until_nothing_is_left(self) -> None:
        end = time.monotonic() + 10.0
        while left := self.marked():
            if time.monotonic() > end:
                raise Violation(f"processes are left over: {[_describe(pid) for pid in left]}")
            time.sleep(0.02)

    def check_no_temporary_files(self) -> None:
        known = ("journal_", "plan_", "checkpoint_", "progress_", "lock_")
        strange = [path.name for path in (self.output / "logs").iterdir() if not path.name.startswith(known)]
        if strange:
            raise Violation(f"left over in logs: {strange}")

    def finished(self) -> bool:
        """Whether the run said so: an interpreter that Ctrl+C meets while it starts exits
        with 1 as well."""
        try:
            found = json.loads((self.output / "torture" / "statistics.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(found["state"] == "finished")

    def check_no_traceback(self) -> None:
        """None of ours; a Ctrl+C before the script has reached main() is Python's own, and a
        SIGKILL may cut it short."""
        text = (self.folder / "stderr.txt").read_text(errors="replace")
        for trace in re.findall(r"^Traceback .*?^(?=\S)(.*?)$", text, re.MULTILINE | re.DOTALL):
            if re.match(r"[\w.]+(Error|Exception)\b", trace):
                raise Violation(f"a traceback reached the user: {trace}")

    def check_final(self) -> None:
        entries = json.loads((self.output / "torture" / "logs_final.json").read_text())
        final = {entry["job"]: entry for entry in entries}
        if set(final) != set(self.jobs):
            raise Violation("logs_final.json does not hold every job once")
        ran = Counter(self.executions())
        for job, kind in self.jobs.items():
            entry = final[job]
            good = kind not in ("raises", "crashes")
            if good and entry["state"] == "completed":
                if entry["result"]["number"] != int(job.rpartition("/")[2]):
                    raise Violation(f"{job} has the result of another job")
            elif good and entry["error"]["outcome"] not in ("crashed", "raised"):
                raise Violation(f"{job} ended as {entry}")
            elif good and ran[job] < 3 and entry["error"]["outcome"] == "crashed":
                raise Violation(f"{job} was quarantined after {ran[job]} executions: {entry['error']}")
            elif not good and entry["state"] != "failed":
                raise Violation(f"{job} ended as {entry['state']}")

    # -------------------------------------------------------------------------- round

    def play(self, wrappers: Callable[[], list[str]], image: LoopImage | None) -> None:
        recorded: set[str] = set()
        while True:
            self.resumes += 1
            seen = len(self.executions())
            self.damage_files()
            self.start(wrappers())
            self._run_under_fire(image)
            self.wait_until_nothing_is_left()
            again = recorded & set(self.executions()[seen:])
            if again:
                raise Violation(f"recorded as completed and run again: {sorted(again)[:5]}")
            recorded = self.recorded()
            assert self.process is not None
            self.check_no_traceback()
            if self.process.returncode in (0, 1) and self.finished():
                break
            if self.process.returncode == 65:
                raise Violation("the files were called unusable")
        self.check_final()
        self.check_no_temporary_files()

    def _run_under_fire(self, image: LoopImage | None) -> None:
        written, end = 0, 0.0
        calm = self.resumes > 25  # let it come to an end
        while not self.over():
            time.sleep(self.rng.choice([0.02, 0.1, 0.4, 0.8]))
            if written != (written := self._written()):
                end = time.monotonic() + PATIENCE
            if time.monotonic() > end:
                raise Violation(f"a run hangs; its last words are in {self.folder / 'stderr.txt'}")
            if calm:
                continue
            if image is not None and self.rng.random() < 0.2:
                self._cut_power(image)
                return
            if image is not None and self.rng.random() < 0.1:
                self.fill_disk(image.mount_point)
            else:
                self.hit()

    def _written(self) -> int:
        """Size of the journal, -1 before there is one: a run that goes on writes it."""
        with contextlib.suppress(OSError):
            return (self.output / "logs" / "journal_torture.jsonl").stat().st_size
        return -1

    def _cut_power(self, image: LoopImage) -> None:
        """What a checkpoint held before the cut must be there after it."""
        kept: set[str] = set()
        with contextlib.suppress(OSError, ValueError):
            text = (self.output / "logs" / "checkpoint_torture.json").read_text()
            kept = set(json.loads(text)["completed"])
        image.cut(self)
        self.faults[f"power cut on {image.kind}"] += 1
        missing = kept - self.recorded()
        if missing:
            raise Violation(f"the power cut lost {sorted(missing)[:5]} of the checkpoint")


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _describe(pid: int) -> str:
    """What a process is, for the report of a violation."""
    words = []
    for name in ("stat", "cmdline", "wchan", "cgroup"):
        with contextlib.suppress(OSError):
            words.append(
                Path(f"/proc/{pid}/{name}").read_text(errors="replace")[:120].replace("\0", " ").strip()
            )
    return f"{pid}: {' | '.join(words)}"


class LoopImage:
    """A small file system in a file, whose power can be cut. Needs root."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.image = folder / "disk.img"
        self.mount_point = folder / "disk"
        self.mount_point.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(IMAGES[kind] << 20)
        self._do(f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", str(self.image))
        self.mount()

    def _do(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    def mount(self) -> None:
        self._do("mount", "-o", "loop", str(self.image), str(self.mount_point))

    def unmount(self) -> None:
        for _ in range(200):
            if (
                subprocess.run(["umount", str(self.mount_point)], capture_output=True, check=False).returncode
                == 0
            ):
                return
            time.sleep(0.05)

    def cut(self, torture: Torture) -> None:
        fd = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_FLUSH))
        finally:
            os.close(fd)
        torture.kill_supervisor()
        if torture.process is not None:
            torture.process.wait()
        torture.wait_until_nothing_is_left()
        self.unmount()
        self.mount()


def _strace(rng: random.Random, faults: Counter[str]) -> list[str]:
    """Let one system call of the supervisor fail, or kill it there."""
    call = rng.choice(["write", "fdatasync", "fsync", "rename", "openat"])
    number = rng.randint(1, 400 if call in ("write", "openat") else 20)
    action = rng.choice(["error=EIO", "error=ENOSPC", "signal=KILL"])
    if call in ("write", "openat"):
        action = "signal=KILL"  # an EIO for the interpreter's own files proves nothing
    faults[f"strace {call} {action}"] += 1
    return ["strace", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{action}:when={number}"]


def _round(rng: random.Random, faults: Counter[str], *, disk: str, with_strace: bool) -> Torture:
    """`disk`: the file system that a power cut may hit, "" for the one that is there."""
    folder = Path(tempfile.mkdtemp(prefix="longhaul-torture-"))
    image = LoopImage(folder, disk) if disk else None
    output = image.mount_point / "out" if image is not None else folder / "out"
    torture = Torture(rng, folder, output, faults)

    def wrapper() -> list[str]:
        return _strace(rng, faults) if with_strace and rng.random() < 0.3 else []

    try:
        torture.play(wrapper, image)
    except BaseException:
        print(f"the files are kept in {folder}", file=sys.stderr)
        if torture.process is not None and torture.process.poll() is None:
            torture.process.kill()
        raise
    if image is not None:
        image.unmount()
    shutil.rmtree(folder)
    return torture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--no-power-cuts", action="store_true")
    parser.add_argument("--no-strace", action="store_true")
    arguments = parser.parse_args()
    can_cut = os.geteuid() == 0 and not arguments.no_power_cuts
    disks = [kind for kind in IMAGES if can_cut and shutil.which(f"mkfs.{kind}") is not None]
    can_trace = shutil.which("strace") is not None and not arguments.no_strace
    totals: dict[str, Any] = {"rounds": 0, "jobs": 0, "runs": 0}
    faults: Counter[str] = Counter()
    rng = random.Random(arguments.seed)
    end = time.monotonic() + 60.0 * arguments.minutes
    violation = ""
    print(
        f"seed {arguments.seed}, power cuts on {' and '.join(disks) or 'nothing'} (they need root and "
        f"{', '.join(f'mkfs.{kind}' for kind in IMAGES)}), strace {'on' if can_trace else 'off or not there'}",
        flush=True,
    )
    while time.monotonic() < end and not violation:
        try:
            disk = rng.choice(disks) if disks and rng.random() < 0.4 else ""
            torture = _round(rng, faults, disk=disk, with_strace=can_trace and not disk)
        except Violation as found:
            violation = str(found)
            break
        totals["rounds"] += 1
        totals["jobs"] += len(torture.jobs)
        totals["runs"] += torture.resumes
    for name, number in sorted(faults.items()):
        print(f"{number:8,}  {name}")
    print(", ".join(f"{number:,} {name}" for name, number in totals.items()))
    print(f"violation: {violation}" if violation else "no violation")
    return 1 if violation else 0


if __name__ == "__main__":
    raise SystemExit(main())
