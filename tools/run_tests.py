"""Run the tests in parts side by side, and the few that failed there once more, by themselves.

    run_tests.py [--coverage] [WORD...] -- 'NAME WORD...' 'NAME WORD...' ...

What stands before `--` is for pytest in each part; then comes each part: its name, and its own words for pytest.
What the first part prints is shown at once, that of the others when they are over.

Parts take processor time from each other, and many tests start processes and wait for them: one may fail because
the machine was busy. Such a test is unsteady, which is a defect of it, but not one of the change that is tested.
So a failure counts when it also happens without the other parts. What passed only then is named at the end, to be
mended. More failures than `FEW` are no matter of time and are not repeated.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

FEW = 10
_TESTS_FAILED = 1  # exit code of pytest: tests ran, and some failed
_OURS = Path(sys.prefix, "tests")  # the virtual environment is ours: logs and caches go there


@dataclass(frozen=True)
class Part:
    """Tests that one process runs."""

    name: str
    command: list[str]

    @classmethod
    def of(cls, text: str, program: Sequence[str], for_all: Sequence[str]) -> Part:
        name, *own = text.split()
        cache = ["-o", f"cache_dir={_OURS / name}"]
        return cls(name, [*program, "-m", "pytest", *for_all, *cache, *own])

    @property
    def log(self) -> Path:
        return _OURS / f"{self.name}.log"

    @property
    def _last_failed(self) -> Path:
        return _OURS / self.name / "v" / "cache" / "lastfailed"

    def failed(self) -> list[str]:
        """The tests that failed when this part ran last, as pytest has noted them down."""
        try:
            return sorted(json.loads(self._last_failed.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return []

    def forget(self) -> None:
        """Before a run: what failed in an earlier one is none of its business."""
        self._last_failed.unlink(missing_ok=True)

    def repeat(self) -> int:
        """Run what failed alone; the exit code of pytest. Nothing to repeat is a failure."""
        return subprocess.call([*self.command, "--last-failed", "--last-failed-no-failures=none"])


def main(words: Sequence[str]) -> int:
    """Run all parts; the exit code: 0 if each test has passed, at the latest alone."""
    program = [sys.executable]
    if words[:1] == ["--coverage"]:
        program, words = [*program, "-m", "coverage", "run"], words[1:]
    split = words.index("--")
    parts = [Part.of(text, program, words[:split]) for text in words[split + 1 :]]
    _OURS.mkdir(exist_ok=True)
    codes = run_side_by_side(parts)
    went_wrong, unsteady = 0, []
    for part, code in zip(parts, codes, strict=True):
        failed = part.failed()
        if code == _TESTS_FAILED and 0 < len(failed) <= FEW:
            print(f"== what failed in {part.name} once more, alone", flush=True)
            code = part.repeat()
            unsteady += sorted({*failed} - {*part.failed()})
        went_wrong = went_wrong or abs(code)  # a process that was killed has a negative one
    for test in unsteady:
        print(f"UNSTEADY {test}: failed beside other tests and passed alone; mend the test")
    return went_wrong


def run_side_by_side(parts: Sequence[Part]) -> list[int]:
    """Run all parts at the same time and show what they print, one after the other; their exit codes."""
    running: list[subprocess.Popen[bytes]] = []

    def end_all(number: int, _frame: FrameType | None) -> NoReturn:
        for process in running:
            process.terminate()
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, end_all) for each in (signal.SIGINT, signal.SIGTERM)}
    for part in parts:
        part.forget()
    for part in parts[1:]:
        with part.log.open("wb") as log:
            running.append(subprocess.Popen(part.command, stdout=log, stderr=subprocess.STDOUT))
    running.insert(0, subprocess.Popen(parts[0].command))
    codes = [running[0].wait()]
    for part, process in zip(parts[1:], running[1:], strict=True):
        print(f"waiting for the tests of {part.name}", flush=True)
        codes.append(process.wait())
        sys.stdout.buffer.write(part.log.read_bytes())
        sys.stdout.flush()
    for each, handler in before.items():
        signal.signal(each, handler)
    return codes


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
