"""docs/needs.md is run: its scripts and commands, with what runs at the same time watched from inside the jobs."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from supervisor.core.state.snapshot import WaitingJob
from supervisor.views.terminal_view import frame
from tests.docs.conftest import README, ROOT, blocks, commands
from tests.views.made import needs, snapshot

PAGE = ROOT / "docs" / "needs.md"
SCRIPTS = {block.file: block.text for block in blocks(PAGE, "python") if block.file}
WATCHED = """
import functools, fcntl

@functools.wraps(evaluate)
def watched(**params):
    from workers import current_job as job
    def note(word):
        with open("log", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{word} {job().id}\\n")
    note("begin")
    try:
        return evaluate(**params)
    finally:
        note("end")

if __name__ == "__main__":
    main(watched, """


class Ran(NamedTuple):
    said: str
    final: dict[str, dict[str, Any]]
    together: list[set[str]]  # what was running, after each begin


def run(folder: Path, name: str, code: int = 0, *, number: int = 0, devices: str | None = None) -> Ran:
    """One of the commands of the page."""
    script = SCRIPTS[name]
    assert script.count('\nif __name__ == "__main__":\n    main(evaluate, ') == 1
    text = script.replace('\nif __name__ == "__main__":\n    main(evaluate, ', WATCHED)
    (folder / name).write_text(text)
    command = [words for words in commands(PAGE) if words[1] == name][number]
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    done = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    (path,) = folder.glob("data/outputs/*/*/logs_final.json")
    running: set[str] = set()
    together = []
    for line in (folder / "log").read_text().splitlines():
        word, job = line.split()
        if word == "end":
            running = running - {job}
        else:
            running = running | {job}
            together.append(running)
    return Ran(done.stderr, {entry["job"]: entry for entry in json.loads(path.read_text())}, together)


def test_every_block_of_the_page_is_run() -> None:
    assert {words[1] for words in commands(PAGE)} == set(SCRIPTS) and len(SCRIPTS) == 5
    shown = [block for block in blocks(PAGE, "python") if not block.file]
    assert len(shown) == 1, "what a job may say"
    call = ast.parse(shown[0].text).body[0]
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    from supervisor import Job

    assert {keyword.arg for keyword in call.value.keywords} <= {*Job.__struct_fields__}


def test_few_big_jobs_among_many_small_ones(tmp_path: Path) -> None:
    ran = run(tmp_path, "sizes.py")
    for running in ran.together:
        assert sum(4 if job.startswith("big") else 1 for job in running) <= 4, running
    assert {entry["result"]["cores"] for job, entry in ran.final.items() if job.startswith("big")} == {4}
    assert {entry["result"]["threads"] for job, entry in ran.final.items() if job.startswith("big")} == {"4"}
    assert {entry["result"]["cores"] for job, entry in ran.final.items() if job.startswith("small")} == {1}


def test_memory_admits_and_bounds(tmp_path: Path) -> None:
    ran = run(tmp_path, "tables.py", 1)
    for running in ran.together:
        assert sum(400 if job == "whole" else 100 for job in running) <= 500, running
    assert ran.final.pop("mistaken")["error"]["outcome"] == "over_memory"
    assert {entry["state"] for entry in ran.final.values()} == {"completed"}


def test_gpus_and_halves_of_them(tmp_path: Path) -> None:
    ran = run(tmp_path, "devices.py", devices="GPU-a,GPU-b,GPU-c")
    devices = {job: entry["result"]["given"] for job, entry in ran.final.items()}
    shares = {"train": 1.0, "score": 0.5, "prepare": 0.0}
    for running in ran.together:
        used: dict[str, float] = {}
        for job in running:
            for device in devices[job]:
                used[device] = used.get(device, 0) + shares[job.partition("/")[0]]
        assert max(used.values(), default=0) <= 1, running
    assert {device for given in devices.values() for device in given} <= {"GPU-a", "GPU-b"}
    for job, entry in ran.final.items():
        assert entry["result"]["visible"] == ",".join(devices[job])
        assert bool(devices[job]) == (not job.startswith("prepare"))


@pytest.mark.parametrize(("number", "seats"), [(0, 2), (1, 1)])
def test_a_licence(tmp_path: Path, number: int, seats: int) -> None:
    ran = run(tmp_path, "solver.py", number=number)
    most = max(sum(job.startswith("solve") for job in running) for running in ran.together)
    assert most <= seats
    assert len(ran.final) == 18 and {entry["state"] for entry in ran.final.values()} == {"completed"}


def test_four_at_once(tmp_path: Path) -> None:
    ran = run(tmp_path, "downloads.py")
    for running in ran.together:
        assert sum(2 if job.startswith("fetch-all") else 1 for job in running) <= 4, running
    assert len(ran.final) == 24 and {entry["state"] for entry in ran.final.values()} == {"completed"}


def test_what_can_never_fit_is_told_as_it_is_shown(tmp_path: Path) -> None:
    _, shown = blocks(PAGE, "")
    text = SCRIPTS["sizes.py"].replace("cpus=4", "cpus=8").replace('"big/{number}"', '"big"[:number or 3]')
    (tmp_path / "sizes.py").write_text(text.replace("range(2)", "range(3)"))
    done = subprocess.run(
        [sys.executable, "sizes.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == shown.text


def test_it_is_found_from_the_readme() -> None:
    assert "(docs/needs.md)" in README.read_text(encoding="utf-8")


def test_what_is_seen_is_told_as_it_is_shown() -> None:
    seen = needs(cpus=(3, 4), waiting=WaitingJob("big/7", "3 cores (1 free)"))
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(frame(snapshot(needs=seen, workers=0), datetime(2025, 10, 14), 80, 24))
    assert blocks(PAGE, "")[0].text.splitlines() == capture.get().splitlines()[3:]
