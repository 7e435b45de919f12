"""The user's own modules in this process, each with the file and the hash of its text.

Of the user's is what belongs neither to Python's library, nor to an installed package, nor to us.
The text is what the file held when it was imported (`watch_imports`), for a module in a job may be
old by the time that the job ends.
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

_INSTALLED = ("/site-packages/", "/dist-packages/")
_OURS = ("workers", "supervisor")
# Of the surroundings: what a debugger brings from its editor's folder, and what Python reads at its start.
_NOBODYS = ("debugpy", "pydev", "_pydev", "sitecustomize", "usercustomize")
_LIBRARY = os.path.dirname(os.__file__) + os.sep


class UserCode:
    """What of the user's was imported up to now."""

    def __init__(self) -> None:
        self._looked_at: set[str] = set()
        self._found: list[ModuleText] = []
        self._told = 0
        self._count = 0
        self._executed: dict[str, str] = {}  # file -> sha256

    def executed(self, file: str, text: bytes) -> None:
        """This is what was executed as `file`, whatever it holds by now."""
        self._executed[file] = _sha256(text)

    def grown(self) -> bool:
        """Whether there may be modules that `all` has not seen; tens of nanoseconds."""
        return len(sys.modules) != self._count

    def all(self) -> list[ModuleText]:
        """Every module of the user's with a file, in the order of their imports."""
        if not self.grown():  # in a forked worker each module that is touched costs a page
            return self._found
        self._count = len(sys.modules)
        for name, file in self._new():
            digest = self._executed.get(file) or _digest_of(file)
            self._found.append(ModuleText(sendable(name), sendable(file), digest))
        return self._found

    def news(self) -> list[ModuleText]:
        """Those that this process has not told of yet."""
        told, self._told = self._told, len(self.all())
        return self._found[told:]

    def _new(self) -> Iterator[tuple[str, str]]:
        new = {name: module for name, module in list(sys.modules.items()) if name not in self._looked_at}
        self._looked_at.update(new)
        return users_modules(new)


def users_modules(modules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and file of those of the user's, in their order."""
    for name, module in list(modules.items()):
        file = _file_of(module)
        first = name.partition(".")[0]
        if file and first not in _OURS and not first.startswith(_NOBODYS) and _is_the_users(file):
            yield name, file


def _file_of(module: Any) -> str | None:
    # From its dictionary: some modules answer to every name, or import when they are asked.
    file = getattr(module, "__dict__", {}).get("__file__")
    return file if isinstance(file, str) else None


def _is_the_users(file: str) -> bool:
    return not (file.startswith(_LIBRARY) or any(part in file for part in _INSTALLED))


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
    """Note the text of each module of the user's at the moment in which it is imported.

    Python asks for a file's time and size just before it reads it. This method of its loader is
    the only place where a finder of our own is not needed, which a script would see.
    """
    asked = SourceFileLoader.path_stats

    def path_stats(self: SourceFileLoader, path: str) -> Mapping[str, Any]:
        if isinstance(path, str) and _is_the_users(path):
            with contextlib.suppress(Exception), open(path, "rb") as file:
                USER_CODE.executed(path, file.read())
        return asked(self, path)

    SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign]
