"""The documents as data: their code blocks, their commands, what they refer to."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from supervisor.__main__ import main

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# (\w+\.(?:py|sh))\n")


class Block(NamedTuple):
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name in its first line, `# walk.py`: then it is a whole file."""
        match = _NAMED.match(self.text)
        return match and match.group(1)


def all_blocks(document: Path) -> list[Block]:
    return [Block(*groups) for groups in _BLOCK.findall(document.read_text(encoding="utf-8"))]


def blocks(document: Path, language: str) -> list[Block]:
    return [block for block in all_blocks(document) if block.language == language]


def prose(document: Path) -> str:
    """A document without its blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def commands(document: Path) -> list[list[str]]:
    """The lines of all `sh` blocks that are no file, as words."""
    shown = (block for block in blocks(document, "sh") if not block.file)
    lines = (line for block in shown for line in block.text.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_python(folder: Path, *words: str, code: int = 0) -> str:
    """Run Python with these words; its output. Any other exit code is a failure."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def longhaul(folder: Path, *words: str) -> tuple[int, str]:
    """The command in this process, which saves the start of another one; its exit code, and what it printed."""
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(words)
    return code, printed.getvalue()


def programs_on_path(folder: Path) -> dict[str, str]:
    """An environment in which `longhaul` and `python` are those of this tree."""
    folder.mkdir()
    for name, words in (("longhaul", " -m supervisor"), ("python", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{words} "$@"\n')
        program.chmod(0o755)
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
