"""The documents as data: their code blocks, their commands, what they refer to."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# (\w+\.py)\n")


class Block(NamedTuple):
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name in its first line, `# walk.py`: then it is a whole file."""
        match = _NAMED.match(self.text)
        return match and match.group(1)


def blocks(document: Path, language: str) -> list[Block]:
    found = (Block(*groups) for groups in _BLOCK.findall(document.read_text(encoding="utf-8")))
    return [block for block in found if block.language == language]


def prose(document: Path) -> str:
    """A document without its blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def commands(document: Path) -> list[list[str]]:
    """The lines of all `sh` blocks, as words."""
    lines = (line for block in blocks(document, "sh") for line in block.text.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]
