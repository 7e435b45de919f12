"""The user's modules in this process, with their files and the hashes of their source.

A module is the user's if it belongs neither to Python's library, nor to an installed package, nor to longhaul.
The source is hashed at the import (`watch_imports`): the file may change while a job runs.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import SourceFileLoader
from typing import Any

from workers.process.surrogates import sendable
from workers.transport.messages import ModuleText

INSTALLED = ("/site-packages/", "/dist-packages/")
_OURS = ("workers", "supervisor")
# Modules of debuggers in an editor's folder, and modules that Python imports at its start.
_TOOLS = ("debugpy", "pydev", "_pydev", "sitecustomize", "usercustomize")
_LIBRARY = os.path.dirname(os.__file__) + os.sep


class UserCode:
    """The user's modules that were imported so far."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._found: list[ModuleText] = []
        self._reported = 0
        self._count = 0
        self._executed: dict[str, str] = {}  # file -> sha256

    def executed(self, file: str, text: bytes) -> None:
        """Note the source that was executed from `file`."""
        self._executed[file] = _sha256(text)

    def may_have_grown(self) -> bool:
        """Whether there may be modules that `all` has not returned; takes tens of nanoseconds."""
        return len(sys.modules) != self._count

    def all(self) -> list[ModuleText]:
        """Every module of the user with a file, in the order of import."""
        if not self.may_have_grown():  # reading modules would copy memory pages in a forked worker
            return self._found
        self._count = len(sys.modules)
        for name, file in self._new():
            digest = self._executed.get(file) or _digest_of(file)
            self._found.append(ModuleText(sendable(name), sendable(file), digest))
        return self._found

    def take_unreported(self) -> list[ModuleText]:
        """The modules that were not returned by this method before."""
        reported, self._reported = self._reported, len(self.all())
        return self._found[reported:]

    def _new(self) -> Iterator[tuple[str, str]]:
        new = {name: module for name, module in list(sys.modules.items()) if name not in self._seen}
        self._seen.update(new)
        return users_modules(new)


def users_modules(modules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and files of the user's modules, in order."""
    for name, module in list(modules.items()):
        file = _file_of(module)
        first = name.partition(".")[0]
        if file and first not in _OURS and not first.startswith(_TOOLS) and _is_the_users(file):
            yield name, file


def _file_of(module: Any) -> str | None:
    # From its dictionary: some modules answer to every name, or import when they are asked.
    file = getattr(module, "__dict__", {}).get("__file__")
    return file if isinstance(file, str) else None


def _is_the_users(file: str) -> bool:
    return not (file.startswith(_LIBRARY) or any(part in file for part in INSTALLED))


def _digest_of(file: str) -> str:
    try:
        with open(file, "rb") as opened:
            return _sha256(opened.read())
    except OSError:
        return ""


def _sha256(text: bytes) -> str:
    sha256: Any
    try:  # hashlib loads OpenSSL, which most scripts do without
        sha256 = importlib.import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256
    except ImportError:
        sha256 = importlib.import_module("hashlib").sha256
    digest: str = sha256(text).hexdigest()
    return digest


USER_CODE = UserCode()


def watch_imports() -> None:
    """Note the source of each of the user's modules when it is imported.

    Python's loader calls `path_stats` just before it reads the file. Wrapping that method needs no import
    hook of our own, which the script would see.
    """
    asked = SourceFileLoader.path_stats

    def path_stats(self: SourceFileLoader, path: str) -> Mapping[str, Any]:
        if isinstance(path, str) and _is_the_users(path):
            with contextlib.suppress(Exception), open(path, "rb") as file:
                USER_CODE.executed(path, file.read())
        return asked(self, path)

    SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign]
