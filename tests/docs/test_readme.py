"""README.md is run: its scripts, its commands, its tests; and what it names is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import README, ROOT, blocks, commands, prose

SCRIPTS = {block.file: block.text for block in blocks(README, "python") if block.file}
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that holds all scripts of the README."""
    path = tmp_path_factory.mktemp("readme")
    for name, text in SCRIPTS.items():
        (path / name).write_text(text)
    return path


def run(folder: Path, *words: str) -> str:
    """Run Python with these words; its output. Anything but exit code 0 is a failure."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def shell_commands(*programs: str) -> list[list[str]]:
    return [words for words in commands(README) if words[0] in programs]


def test_every_python_block_is_a_whole_file() -> None:
    assert len(SCRIPTS) == len(blocks(README, "python")) >= 5
    for text in SCRIPTS.values():
        ast.parse(text)


def test_the_commands_do_what_is_shown(folder: Path) -> None:
    """In the order of the document: pilot, all tasks, more jobs, repairs."""
    said = [run(folder, *words[1:]) for words in shell_commands("python")]
    assert "3 of 9 tasks, one per domain" in said[0]
    assert "5 completed, 0 failed" in said[1]
    assert "9 completed, 0 failed" in said[2]
    assert any("nothing was recorded" in text for text in said)
    assert len(said) >= 9


def test_what_no_command_starts_runs_as_well(folder: Path) -> None:
    started = {words[1] for words in shell_commands("python")}
    others = [name for name in SCRIPTS if name not in started and not name.startswith("test_")]
    assert {"shared.py", "analyse.py"} <= set(others)
    for name in others:
        run(folder, name)


def test_the_tests_of_an_experiment_pass(folder: Path) -> None:
    said = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_walk.py")
    assert "4 passed" in said


def test_the_command_longhaul(folder: Path) -> None:
    (folder / "data" / "outputs").mkdir(parents=True, exist_ok=True)
    run(folder, "walk.py", "--output", "data/outputs/walk", "--experiment-id", "mine", "--only", "1d/10")
    for words in shell_commands("longhaul"):
        said = run(folder, "-m", "supervisor", *("data/outputs" if w == "DIR" else w for w in words[1:]))
        assert "walk" in said or "mine" in said


# ------------------------------------------------------------------------------- names


def options_of(folder: Path, *words: str) -> set[str]:
    return set(_OPTION.findall(run(folder, *words, "--help")))


def test_every_option_is_in_the_readme(folder: Path) -> None:
    text = README.read_text(encoding="utf-8")
    missing = {option for option in options_of(folder, "walk.py") if f"`{option}" not in text}
    assert missing == set()


def test_make_knows_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {words[1] for words in shell_commands("make")} | set(re.findall(r"`make (\w+)`", prose(README)))
    assert {"demo", "test", "check"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
