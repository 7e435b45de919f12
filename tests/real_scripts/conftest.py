"""Scripts as people write them: run under longhaul, and bare beside it.

A script defines `evaluate` and PARAMS (a list of dicts of its parameters). The same file is run
twice: by `main`, and with `--bare`, where it calls the function itself, one call after the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.experiment_fixture import PATIENCE, ROOT, wait_for

_FOOTER = """
if __name__ == "__main__":
    import json as _json, sys as _sys
    if _sys.argv[1:2] == ["--bare"]:
        del _sys.argv[1]
        print("RESULTS " + _json.dumps([evaluate(**params) for params in PARAMS]))
    else:
        from supervisor import Job, main
        _own = globals().get("OWN", {})  # settings of single jobs, by number
        _jobs = [Job(id=f"job{n}", params=params, **_own.get(n, {})) for n, params in enumerate(PARAMS)]
        main(evaluate, _jobs, name="real", output=@OUTPUT@, all_tasks=True)
"""
_SHM = Path("/dev/shm")
_FOLDERS = "real-script-"
_NEW_MOUNTS, _BIND, _PRIVATE = 0x20000, 0x1000, 0x4000 | 0x40000  # of unshare and mount


def _mounted_at_shm(folder: Path) -> Callable[[], None]:
    """To be called in a child before its program: there this folder is /dev/shm, and nowhere else."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter() -> None:
        if (
            libc.unshare(_NEW_MOUNTS)
            or libc.mount(b"none", b"/", None, _PRIVATE, None)
            or libc.mount(bytes(folder), bytes(_SHM), None, _BIND, None)
        ):
            raise OSError(ctypes.get_errno(), "no mounts of its own")

    return enter


@functools.cache
def _may_mount() -> bool:
    """Whether scripts can have a /dev/shm of their own: for root on Linux, outside of most containers."""
    if sys.platform != "linux" or os.geteuid() != 0 or not _SHM.is_dir():
        return False
    with tempfile.TemporaryDirectory(dir=_SHM) as folder:
        try:
            subprocess.run(["true"], check=True, preexec_fn=_mounted_at_shm(Path(folder)))
        except (OSError, subprocess.SubprocessError):
            return False
    return True


class RealScript:
    """A script in a folder of its own, and what became of its jobs. `shm`: what it sees as /dev/shm,
    where that can be another one than that of the other tests."""

    def __init__(self, folder: Path, shm: Path) -> None:
        self.folder = folder
        self.shm = shm
        self.before = None if shm == _SHM else _mounted_at_shm(shm)  # for Popen's `preexec_fn`
        self.script = folder / "script.py"
        self.output = folder / "out"
        self.stderr = ""

    def write(self, text: str, *, at: Path | None = None, footer: bool = True) -> Path:
        """`at`: another place than `script.py`. Without `footer` the text is the whole script."""
        if at is not None:
            self.script = at
        self.script.parent.mkdir(parents=True, exist_ok=True)
        body = textwrap.dedent(text)
        ending = _FOOTER.replace("@OUTPUT@", repr(str(self.output))) if footer else ""
        self.script.write_text(body + ending)
        return self.script

    def environment(self, **more: str) -> dict[str, str]:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}

    def python(
        self,
        *words: str,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> subprocess.CompletedProcess[str]:
        """The script with these words, to its end."""
        process = subprocess.run(
            [sys.executable, str(self.script), *words],
            cwd=cwd or self.folder,
            env=env or self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            check=False,
            preexec_fn=self.before,
        )
        self.stderr = process.stderr
        return process

    def longhaul(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command `longhaul` with these words, in the folder of the script."""
        return subprocess.run(
            [sys.executable, "-m", "supervisor", *words],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def bare(self, **keywords: Any) -> list[Any]:
        """What the script's own calls return, without a runner."""
        process = self.python("--bare", **keywords)
        lines = [line for line in process.stdout.splitlines() if line.startswith("RESULTS ")]
        assert len(lines) == 1, f"bare: exit {process.returncode}\n{process.stdout}\n{process.stderr}"
        found: list[Any] = json.loads(lines[0].removeprefix("RESULTS "))
        return found

    def run(self, *words: str, code: int = 0, **keywords: Any) -> list[Any]:
        """Under longhaul: the results in the order of PARAMS, each from one attempt. `code` is the
        exit code that is expected."""
        process = self.python(*words, **keywords)
        assert process.returncode == code, f"exit {process.returncode}\n{process.stdout}\n{process.stderr}"
        assert "Traceback" not in process.stderr, process.stderr
        entries = self.final()
        if code == 0:
            assert [entry["attempts"] for entry in entries] == [1] * len(entries), entries
        return [entry.get("result") for entry in entries]

    def final(self) -> list[dict[str, Any]]:
        """Entries of logs_final.json of the newest experiment, in plan order."""
        path = max(self.output.glob("*/logs_final.json"), key=lambda found: found.stat().st_mtime_ns)
        entries: list[dict[str, Any]] = json.loads(path.read_text())
        return entries

    def outcomes(self) -> list[str]:
        """How the last attempt of each job ended."""
        return [entry.get("error", {}).get("outcome", entry["state"]) for entry in self.final()]

    def log(self, job: str) -> str:
        """What a job has printed; "" if nothing."""
        found = list(self.output.glob(f"*/output/{job}.log"))
        return found[0].read_text(encoding="utf-8") if found else ""

    def segments(self, prefix: str = "") -> list[str]:
        """Names of shared memory, semaphores and folders that the script can see."""
        names = os.listdir(self.shm) if self.shm.is_dir() else []
        return [name for name in names if name.startswith(prefix) and not name.startswith(_FOLDERS)]

    def processes(self) -> list[str]:
        """Command lines of processes that carry the mark of an experiment of this folder."""
        marks = [
            f"LONGHAUL_EXPERIMENT={path.stem.removeprefix('plan_')}:".encode()
            for path in self.output.glob("logs/plan_*")
        ]
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environ = (entry / "environ").read_bytes()
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z" and any(mark in environ for mark in marks):
                        found.append(f"{entry.name}: {(entry / 'cmdline').read_bytes()!r}")
                except OSError:
                    continue
        return found


@contextlib.contextmanager
def _folder_for_shm() -> Iterator[Path]:
    if not _may_mount():
        yield _SHM
        return
    with tempfile.TemporaryDirectory(dir=_SHM, prefix=_FOLDERS) as folder:
        os.chmod(folder, 0o1777)
        yield Path(folder)


@pytest.fixture(autouse=True)
def not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What measures the coverage of programs starts with their interpreters, loads modules and
    replaces functions of `os` there: such an interpreter is no bare one."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def real_script(tmp_path: Path) -> Iterator[RealScript]:
    """Afterwards no process of it is left, and no shared memory that was not there before."""
    with _folder_for_shm() as shm:
        created = RealScript(tmp_path, shm)
        before = set(created.segments())
        yield created
        wait_for(lambda: not created.processes(), "processes of the script are left over")
        wait_for(lambda: set(created.segments()) <= before, "shared memory is left over")
