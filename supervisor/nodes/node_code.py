"""Whether a node has the Python and the user's code that this run is of."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence

from supervisor.core.terms.code_spans import DIGITS
from supervisor.core.terms.version import VERSION as RELEASE
from supervisor.nodes.wire import VERSION, HelloNode
from workers.process.surrogates import received
from workers.script.user_modules import INSTALLED

_NAMED = 3  # files that one message names
_METADATA = re.compile(r"(.+?)-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")  # a folder beside the library
# What longhaul itself imports: nothing that jobs return depends on it.
_OURS = {"cloudpickle", "loguru", "msgspec", "psutil", "rich", "longhaul"}


def digest_of(file: str) -> str:
    """How the sha256 of a file begins; "" if it cannot be read. `file`: `sendable`."""
    import hashlib  # a tenth of the agent's start; by now its zygote is starting beside it

    try:
        with open(received(file), "rb") as opened:
            return hashlib.sha256(opened.read()).hexdigest()[:DIGITS]
    except OSError:
        return ""


def why_unfit(name: str, hello: HelloNode, code: Mapping[str, str], script: str | None = None) -> str:
    """Why no job of this run may run on a node, in a sentence; "" if it may.

    code: the files of the user's modules, each with the digest of what this process has imported. hello.code: their
    digests on the node. A file that is not there is no reason, unless it is the `script`, which every worker imports
    (None: none does): perhaps only this process needs it. Nor is one that is
    as it is here by now: then it was changed while the run goes on, of which the workers tell.
    """
    ours = ".".join(platform.python_version_tuple()[:2])
    theirs = ".".join(hello.python.split(".")[:2])
    if hello.version != VERSION or theirs != ours:
        return (
            f"{name} ({hello.host}) has Python {hello.python} and version {hello.version} of the messages between "
            f"nodes, this process has {ours} and {VERSION}: use the same installation on all nodes"
        )
    if hello.release != RELEASE:
        return (
            f"{name} ({hello.host}) has longhaul {hello.release}, this process has {RELEASE}: use the same "
            "installation on all nodes"
        )
    if any(file == script and not found for file, found in zip(code, hello.code, strict=False)):
        return (
            f"{name} ({hello.host}) has no {received(script or '')}: no job can run there; put the script into a "
            "directory that all nodes share, copy it to the same place, or --ship its directory"
        )
    others = [
        file
        for (file, digest), found in zip(code.items(), hello.code, strict=False)
        if found not in ("", digest) and found != digest_of(file)
    ]
    if others:
        return (
            f"{name} ({hello.host}) has another version of {_listed(others)} than this process has imported: no job "
            f"runs there; copy the code to that node, or use a directory that all nodes share"
        )
    return ""


def libraries_now() -> dict[str, str]:
    """The versions of the installed libraries that this process has imported, by their names on the index."""
    folders = {
        name: os.path.dirname(os.path.dirname(file) if _is_package(file) else file)
        for name, module in list(sys.modules.items())
        if "." not in name and name[0] != "_" and isinstance(file := getattr(module, "__file__", None), str)
        if any(part in file for part in INSTALLED)
    }
    found: dict[str, str] = {}
    for folder in dict.fromkeys(folders.values()):
        there = _installed([folder])
        names = {_plain(name): name for name, place in folders.items() if place == folder}
        found |= {name: there[name][0] for name in names if name in there}
        lacking = [module for name, module in names.items() if name not in there]
        for name, (version, metadata) in (
            there.items() if lacking else ()
        ):  # as scikit-learn, which is sklearn
            if name not in found and _has_any(metadata, lacking):
                found[name] = version
    return {name: version for name, version in found.items() if name not in _OURS}


def versions_of(libraries: Sequence[str]) -> list[str]:
    """The version of each, as `libraries_now` names them, that an import would find here; "" if there is none.

    Names of folders say it: `importlib.metadata` takes more CPU than all else at the start of an agent.
    """
    there = _installed(sys.path) if libraries else {}
    return [there[name][0] if name in there else "" for name in libraries]


def other_libraries(hello: HelloNode, libraries: Mapping[str, str]) -> str:
    """Which libraries of a node have another version than this process has imported, in words; "" if none has.

    The first two numbers count. One that is not there is left out: perhaps only this process needs it; if
    not, the import says so.
    """
    others = [
        f"{name} {theirs} (here {ours})"
        for (name, ours), theirs in zip(libraries.items(), hello.libraries, strict=False)
        if theirs and _feature(theirs) != _feature(ours)
    ]
    if not others:
        return ""
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return (
        f"other libraries than this process: {', '.join(others[:_NAMED])}{more}; its jobs may return something "
        "else: install the same versions on all nodes"
    )


def _installed(path: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Version and folder of the metadata of each library on a path, by its plain name."""
    found: dict[str, tuple[str, str]] = {}
    for folder in path:
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            if match := _METADATA.fullmatch(entry):
                found.setdefault(_plain(match[1]), (match[2], os.path.join(folder, entry)))
    return found


def _has_any(metadata: str, modules: Sequence[str]) -> bool:
    """Whether a library has installed one of these."""
    try:
        with open(os.path.join(metadata, "RECORD"), "rb") as file:
            listed = b"\n" + file.read()
    except OSError:
        return False
    return any(
        f"\n{module}{end}".encode() in listed for module in modules for end in ("/__init__.py,", ".py,")
    )


def _is_package(file: str) -> bool:
    return os.path.basename(file).startswith("__init__.")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _feature(version: str) -> list[str]:
    return version.split("+")[0].split(".")[:2]


def _listed(files: Sequence[str]) -> str:
    names = [os.path.basename(received(file)) for file in files[:_NAMED]]
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return f"{', '.join(names)}{more} (in {os.path.dirname(received(files[0]))})"
