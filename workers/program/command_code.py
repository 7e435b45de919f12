"""The code of an experiment whose jobs are programs: the command, and the files that it names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

from workers.process.surrogates import received, sendable
from workers.program.command_template import Template

_MOST_HASHED = 256 << 20  # bytes; of a larger file, size and time count


def code_of_command(spec: dict[str, Any]) -> tuple[str, dict[str, str]] | None:
    """SHA-256 of the command of a `ProgramSpec`, and of each file that it names, by the name that it has there. None
    if there is no command yet."""
    if not spec:
        return None
    directory = received(spec["directory"])
    files = dict(_named_files([received(word) for word in spec["command"]], directory))
    digests = {sendable(name): _digest(path) for name, path in sorted(files.items())}
    return hashlib.sha256("\0".join(spec["command"]).encode()).hexdigest(), digests


def _named_files(command: list[str], directory: str) -> Iterator[tuple[str, str]]:
    """The files that words of a command name, and their paths. A program that is searched on PATH is not named."""
    for place, word in enumerate(command):
        template = Template(word)
        text = template.filled({}) if not template.names else ""
        for name in (text, text.partition("=")[2]):
            path = os.path.join(directory, name)
            if name and (place or os.sep in name) and os.path.isfile(path):
                yield name, path


def _digest(path: str) -> str:
    sha256 = hashlib.sha256()
    try:
        status = os.stat(path)
        if status.st_size > _MOST_HASHED:
            sha256.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        else:
            with open(path, "rb") as file:
                while piece := file.read(1 << 20):
                    sha256.update(piece)
    except OSError:
        return ""
    return sha256.hexdigest()
