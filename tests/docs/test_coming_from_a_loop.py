"""The pages for whoever comes from a loop, joblib, a process pool, Ray, GNU parallel or job arrays: what stands before
and after gives the same results, and can be gone on with."""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import DOCS, README, blocks, commands, longhaul, programs_on_path, run_python
from tests.docs.schedulers import Home, SlurmJob

PAGE = DOCS / "coming-from-a-loop.md"
JOBLIB = DOCS / "coming-from-joblib.md"
POOL = DOCS / "coming-from-processpoolexecutor.md"
PARALLEL = DOCS / "coming-from-gnu-parallel.md"
ARRAYS = DOCS / "coming-from-slurm-arrays.md"
RAY = DOCS / "coming-from-ray.md"
PAGES = (PAGE, JOBLIB, POOL, RAY)
SCRIPTS = {block.file: block.text for page in PAGES for block in blocks(page, "python") if block.file}
PAIRS = [
    ("loop.py", "loop_run.py"),
    ("with_joblib.py", "joblib_main.py"),
    ("with_pool.py", "pool_run.py"),
    pytest.param(
        "with_ray.py",
        "ray_run.py",
        marks=[
            pytest.mark.needs_ray,
            pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed"),
        ],
    ),
]


def execute(folder: Path, name: str, text: str) -> subprocess.CompletedProcess[str]:
    (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env={
            **os.environ,
            "JOBLIB_MULTIPROCESSING": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": "local",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def printed(folder: Path, name: str) -> str:
    done = execute(folder, name, SCRIPTS[name])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_before_and_after_print_the_same(tmp_path: Path, before: str, after: str) -> None:
    said = printed(tmp_path, before)
    assert said.strip() == "[0.9, 0.95, 0.8, 0.9]"
    assert printed(tmp_path, after) == said
    (plan,) = tmp_path.glob("data/outputs/*/logs/plan_*.jsonl")
    assert '"rate=0.1,depth=1"' in plan.read_text()


BUG = "    if (rate, depth) == (0.2, 2):\n        raise ValueError('a bug')\n    return"
AUTO, LATEST = 'resume="auto")', 'resume="latest")'


def test_the_failed_jobs_of_the_recipe_run_again_as_the_page_says(tmp_path: Path) -> None:
    script = SCRIPTS["loop_run.py"].replace("def fit(rate, depth):\n", "def fit(rate, depth):\n    note()\n")
    script = script.replace("def fit", "def note():\n    open('ran', 'a').write('x')\n\ndef fit", 1)
    ran = tmp_path / "ran"

    failed = execute(tmp_path, "loop_run.py", script.replace("    return", BUG, 1))
    assert failed.returncode == 1
    first = next(tmp_path.glob("data/outputs/loop/logs/plan_*")).stem.removeprefix("plan_")
    assert f'resume="{first}"' in failed.stderr.splitlines()[-1]
    assert 'not resume="auto"' in failed.stderr.splitlines()[-1]

    (line,) = (
        block.text.strip() for block in blocks(PAGE, "python") if block.text.startswith("    report =")
    )
    assert line.endswith(LATEST)
    repaired = execute(tmp_path, "loop_run.py", script.replace(line.replace(LATEST, AUTO), line))
    assert repaired.stdout.strip() == "[0.9, 0.95, 0.8, 0.9]", repaired.stderr
    assert len(ran.read_text()) == 4 + 1

    again = execute(tmp_path, "loop_run.py", script)
    assert again.returncode == 0, again.stderr
    assert len(ran.read_text()) == 4 + 1 + 4
    (told,) = (
        text for text in again.stderr.splitlines() if f"{first} is finished (4 completed, 0 failed)" in text
    )
    assert f'resume="{first}"' in told

    named = script.replace(AUTO, f'resume="auto", experiment_id="{first}")')
    assert execute(tmp_path, "loop_run.py", named).stdout.strip() == "[0.9, 0.95, 0.8, 0.9]"
    assert len(ran.read_text()) == 4 + 1 + 4


def test_the_commands_of_joblib_go_on(tmp_path: Path) -> None:
    (tmp_path / "joblib_main.py").write_text(SCRIPTS["joblib_main.py"])
    first, second = (run_python(tmp_path, *words[1:]) for words in commands(JOBLIB))
    assert "[0.9, 0.95, 0.8, 0.9]" in first and "[0.9, 0.95, 0.8, 0.9]" in second
    assert "nothing" in second or "resuming: 4 completed" in second


def test_every_script_is_one_of_a_pair_and_the_readme_leads_there() -> None:
    named = {"loop.py", "loop_run.py", "with_joblib.py", "joblib_main.py", "with_pool.py", "pool_run.py"}
    assert set(SCRIPTS) == named | {"with_ray.py", "ray_run.py"}
    whole = [block for page in PAGES for block in blocks(page, "python") if not block.text.startswith("    ")]
    assert len(SCRIPTS) == len(whole)
    for page in (*PAGES, PARALLEL, ARRAYS):
        assert f"(docs/{page.name})" in README.read_text(encoding="utf-8")


# ---------------------------------------------------------------------- programs: GNU parallel, arrays


def results_of(folder: Path, words: list[str]) -> list[list[str]]:
    """The rows of the command `longhaul results` of a page, without its head."""
    code, printed = longhaul(folder, *words[1:])
    assert code == 0, printed
    return [line.split() for line in printed.splitlines()[1:]]


@pytest.fixture
def programs(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    environment = programs_on_path(tmp_path / "programs")
    folder = tmp_path / "work"
    folder.mkdir()
    for page in (PARALLEL, ARRAYS):
        for block in blocks(page, "sh"):
            if block.file:
                (folder / block.file).write_text(block.text)
    for name in ("a b", "c"):
        (folder / f"{name}.txt").write_text("one\ntwo\n")
    (folder / "files.txt").write_text("a b.txt\nc.txt\n")
    return folder, environment


def shell(folder: Path, environment: dict[str, str], line: str) -> str:
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def lines_of_parallel() -> list[str]:
    shown = [block.text.splitlines() for block in blocks(PARALLEL, "sh") if not block.file]
    assert [len(lines) for lines in shown] == [2, 3, 2, 2]
    return [line for lines in shown for line in lines]


LOSSES = {"0.11", "0.12", "0.13", "0.011", "0.012", "0.013"}


@pytest.mark.skipif(not shutil.which("parallel"), reason="GNU parallel is not installed")
def test_before_with_gnu_parallel(programs: tuple[Path, dict[str, str]]) -> None:
    first, again, _, _, _, pack, count, _, _ = lines_of_parallel()
    said = shell(*programs, first)
    assert {line for line in said.splitlines() if "loss" in line} == {f'{{"loss": {n}}}' for n in LOSSES}
    assert shell(*programs, again) == ""
    folder = programs[0]
    for line in (pack, count):
        shell(*programs, line)
    assert gzip.decompress((folder / "a b.txt.gz").read_bytes()) == b"one\ntwo\n"
    assert (folder / "c.lines").read_text().strip() == "2"


def test_after_gnu_parallel(programs: tuple[Path, dict[str, str]]) -> None:
    _, _, first, again, results, _, _, pack, count = lines_of_parallel()
    folder = programs[0]
    for line in (first, again, pack, count):
        shell(*programs, line)
    assert {row[2] for row in results_of(folder, shlex.split(results))} == LOSSES
    assert gzip.decompress((folder / "a b.txt.gz").read_bytes()) == b"one\ntwo\n"
    assert (folder / "c.lines").read_text().strip() == "2"


def test_before_and_after_a_job_array(tmp_path: Path, programs: tuple[Path, dict[str, str]]) -> None:
    """The array as six jobs of the stand-in; then one job, submitted twice."""
    array, one = (block.text for block in blocks(ARRAYS, "bash"))
    home = Home(tmp_path / "home", "")
    (home.walk / "solve.sh").write_text((programs[0] / "solve.sh").read_text())
    (home.walk / "cases.txt").write_text("".join(f"{n}\n" for n in range(1, 7)))
    for n in range(1, 7):
        job = SlurmJob(home, array, n, SLURM_ARRAY_TASK_ID=str(n))
        assert job.process.wait(60) == 0, job.said()
        assert (home.walk / f"result-{n}.txt").read_text() == f'solving case {n}\n{{"root": {n}}}\n'
    for n in (7, 8):
        job = SlurmJob(home, one, n)
        assert job.process.wait(60) == 0, job.said()
    (words,) = (words for words in commands(ARRAYS) if words[0] == "longhaul")
    assert results_of(home.walk, words) == [[str(n), str(n)] for n in range(1, 7)]


def test_every_option_of_longhaul_that_is_named_exists(tmp_path: Path) -> None:
    helped = run_python(tmp_path, "-m", "supervisor", "exec", "--help")
    helped += run_python(tmp_path, "-m", "supervisor", "status", "--help")
    for page in (PARALLEL, ARRAYS):
        rows = re.findall(r"^\|.*\|(.*)\|$", page.read_text(encoding="utf-8"), re.MULTILINE)
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(rows)))
        theirs = {"--gres", "--time"}  # of sbatch
        assert {option for option in named - theirs if option not in helped} == set(), page.name
