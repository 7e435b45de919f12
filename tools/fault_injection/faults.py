"""What is done to the tortured program: signals, system calls that fail, disks, damage.

Each fault is chosen and timed by the given source of chance, and counted under its name.
Whether the program has borne it is judged in `tools.torture`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import resource
import signal
import struct
import subprocess
import time
from collections import Counter
from pathlib import Path

from tools.fault_injection.program import NODE_TIMEOUT, Program

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
NO_FLUSH = 2
BALLAST = "ballast"  # what fills a disk
IMAGES = {"ext4": 64, "xfs": 320}  # MB: XFS is not made any smaller


class Faults:
    """`counts`: how often each fault was there, by its name."""

    def __init__(self, rng: random.Random, program: Program, counts: Counter[str]) -> None:
        self.rng = rng
        self.program = program
        self.counts = counts

    def hit(self) -> None:
        """One fault, chosen at random, on what is running now."""
        agents = [self.kill_agent] * 3 + [
            self.terminate_agent,
            self.stop_agent,
            self.stop_agent,
            self.freeze_agent,
        ]
        fault = self.rng.choice(
            [self.kill_worker] * 4
            + (2 * agents if self.program.over_nodes else [])
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
            self.counts[name] += 1

    def _victim(self) -> int | None:
        others = {self.program.zygote(), *self.program.agents()}
        pids = [pid for pid in self.program.marked() if pid not in others]
        return self.rng.choice(pids) if pids else None

    def kill_worker(self) -> None:
        self._send(self._victim(), signal.SIGKILL, "SIGKILL worker or child")

    def crash_worker(self) -> None:
        self._send(self._victim(), signal.SIGSEGV, "SIGSEGV worker or child")

    def stop_worker(self) -> None:
        self._stop_and_continue(self._victim(), "SIGSTOP worker or child")

    def kill_zygote(self) -> None:
        self._send(self.program.zygote(), signal.SIGKILL, "SIGKILL zygote")

    def stop_zygote(self) -> None:
        self._stop_and_continue(self.program.zygote(), "SIGSTOP zygote")

    def stop_supervisor(self) -> None:
        self._stop_and_continue(self.program.supervisor(), "SIGSTOP supervisor")

    def _agent(self) -> int | None:
        agents = self.program.agents()
        return self.rng.choice(agents) if agents else None

    def kill_agent(self) -> None:
        self._send(self._agent(), signal.SIGKILL, "SIGKILL agent")

    def terminate_agent(self) -> None:
        self._send(self._agent(), signal.SIGTERM, "SIGTERM agent")

    def stop_agent(self) -> None:
        self._stop_and_continue(self._agent(), "SIGSTOP agent")

    def freeze_agent(self) -> None:
        """For longer than the timeout, with all that it has started."""
        agent = self._agent()
        if agent is not None:
            for pid in (agent, *self.program.below(agent)):
                self._send(pid, signal.SIGSTOP, "SIGSTOP whole node")
            time.sleep(1.5 * NODE_TIMEOUT)
            for pid in (agent, *self.program.below(agent)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _stop_and_continue(self, pid: int | None, name: str) -> None:
        self._send(pid, signal.SIGSTOP, name)
        long = [2.0 * NODE_TIMEOUT] if self.program.over_nodes else []
        time.sleep(self.rng.choice([0.01, 0.2, 1.5, *long]))
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def interrupt(self) -> None:
        self._send(self.program.supervisor(), signal.SIGINT, "SIGINT supervisor")

    def terminate(self) -> None:
        self._send(self.program.supervisor(), signal.SIGTERM, "SIGTERM supervisor")

    def kill_supervisor(self) -> None:
        self._send(self.program.supervisor(), signal.SIGKILL, "SIGKILL supervisor")

    def kill_all_at_once(self) -> None:
        """Supervisor and zygote together: what is left over is ended by the next resume."""
        zygote = self.program.zygote()
        self._send(self.program.supervisor(), signal.SIGKILL, "SIGKILL supervisor and zygote")
        self._send(zygote, signal.SIGKILL, "SIGKILL supervisor and zygote")

    def starve_of_files(self) -> None:
        """No more descriptors for the supervisor or the zygote, for a moment."""
        zygote = self.program.zygote()
        pid = self.rng.choice([self.program.supervisor(), zygote])
        if zygote is None:  # an interpreter that only starts fails in words of its own
            return
        with contextlib.suppress(OSError, TypeError):
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)  # type: ignore[arg-type]
            few = len(os.listdir(f"/proc/{pid}/fd")) + self.rng.randint(-3, 2)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))  # type: ignore[arg-type]
            self.counts["no more descriptors"] += 1
            time.sleep(self.rng.choice([0.1, 1.0]))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)  # type: ignore[arg-type]

    def fill_disk(self, disk: Path) -> None:
        """To the last byte, for a moment."""
        ballast = disk / BALLAST
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size) == size:
                        pass
        self.counts["full disk"] += 1
        time.sleep(self.rng.choice([0.2, 2.0]))
        with contextlib.suppress(OSError):
            ballast.unlink()

    def damage_files(self) -> None:
        """Between two runs, what costs nothing: any part of the checkpoint, the journal's end."""
        checkpoint, journal = self.program.checkpoint, self.program.journal
        with contextlib.suppress(OSError):  # no room for damage on a small disk
            if self.rng.random() < 0.1 and checkpoint.exists() and checkpoint.stat().st_size:
                text = bytearray(checkpoint.read_bytes())
                text[self.rng.randrange(len(text))] ^= 1 << self.rng.randrange(8)
                checkpoint.write_bytes(text[: self.rng.randint(0, 2 * len(text))])
                self.counts["damaged checkpoint"] += 1
            if self.rng.random() < 0.1 and journal.exists():
                with open(journal, "ab") as file:
                    file.write(self.rng.choice([b"\0" * 700, b'{"n":', b"\xff" * 13]))
                self.counts["torn end of the journal"] += 1

    def strace(self) -> list[str]:
        """Let one system call of the supervisor fail, or kill it there."""
        call = self.rng.choice(["write", "fdatasync", "fsync", "rename", "openat"])
        number = self.rng.randint(1, 400 if call in ("write", "openat") else 20)
        action = self.rng.choice(["error=EIO", "error=ENOSPC", "signal=KILL"])
        if call in ("write", "openat"):
            action = "signal=KILL"  # an EIO for the interpreter's own files proves nothing
        self.counts[f"strace {call} {action}"] += 1
        return [
            "strace",
            "-o",
            "/dev/null",
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:{action}:when={number}",
        ]


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
        # nouuid: after `boot` the file system that this one is a copy of may be alive elsewhere.
        options = "loop,nouuid" if self.kind == "xfs" else "loop"
        self._do("mount", "-o", options, str(self.image), str(self.mount_point))
        # A power cut brings back what was removed just before it.
        (self.mount_point / BALLAST).unlink(missing_ok=True)

    def unmount(self) -> None:
        for _ in range(200):
            done = subprocess.run(
                ["umount", str(self.mount_point)], capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.mount_point} is in use elsewhere: {done.stderr.strip()}")

    def cut(self) -> None:
        """What is not on the medium by now is gone; nobody can write any more."""
        fd = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_FLUSH))
        finally:
            os.close(fd)

    def boot(self) -> None:
        """With nobody left who uses it. Mounts a copy of the medium: a mount namespace made meanwhile by somebody
        else (`unshare`) keeps the old file system alive, and mounting the same image would bring that one back."""
        self.unmount()
        copy = self.image.with_suffix(".booted.img")
        self._do("cp", "--sparse=always", str(self.image), str(copy))
        copy.rename(self.image)
        self.mount()
