"""Scripts as people write them: run under longhaul, and bare beside it.

A script defines `evaluate` and PARAMS (a list of dicts of its parameters). The same file is run
twice: by `main`, and with `--bare`, where it calls the function itself, one call after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.experiment import PATIENCE, ROOT, wait_for

_FOOTER = """
if __name__ == "__main__":
    import json as _json, sys as _sys
    if _sys.argv[1:2] == ["--bare"]:
        del _sys.argv[1]
        print("RESULTS " + _json.dumps([evaluate(**params) for params in PARAMS]))
    else:
        from supervisor import Job, main
        _jobs = [Job(id=f"job{number}", params=params) for number, params in enumerate(PARAMS)]
        main(evaluate, _jobs, name="real", output=@OUTPUT@, all_tasks=True)
"""
_SHM = Path("/dev/shm")


class RealScript:
    """A script in a folder of its own, and what became of its jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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


def _shared_memory() -> set[str]:
    return set(os.listdir(_SHM)) if _SHM.is_dir() else set()


@pytest.fixture
def real_script(tmp_path: Path) -> Iterator[RealScript]:
    """Afterwards no process of it is left, and no shared memory that was not there before."""
    before = _shared_memory()
    created = RealScript(tmp_path)
    yield created
    wait_for(lambda: not created.processes(), "processes of the script are left over")
    wait_for(lambda: not _shared_memory() - before, "shared memory is left over")
