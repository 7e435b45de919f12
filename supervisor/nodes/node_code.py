"""Whether a node has the Python and the user's code that this run is of."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence

from supervisor.core.terms.code_spans import DIGITS
from supervisor.nodes.wire import VERSION, HelloNode
from workers.process.surrogates import received

_NAMED = 3  # files that one message names


def digest_of(file: str) -> str:
    """How the sha256 of a file begins; "" if it cannot be read. `file`: `sendable`."""
    try:
        with open(received(file), "rb") as opened:
            return hashlib.sha256(opened.read()).hexdigest()[:DIGITS]
    except OSError:
        return ""


def why_unfit(name: str, hello: HelloNode, code: Mapping[str, str]) -> str:
    """Why no job of this run may run on a node, in a sentence; "" if it may.

    code: the files of the user's modules, each with the digest of what this process has imported. hello.code: their
    digests on the node. A file that is not there is no reason: perhaps only this process needs it. Nor is one that is
    as it is here by now: then it was changed while the run goes on, of which the workers tell.
    """
    ours = ".".join(platform.python_version_tuple()[:2])
    theirs = ".".join(hello.python.split(".")[:2])
    if hello.version != VERSION or theirs != ours:
        return (
            f"{name} ({hello.host}) has Python {hello.python} and version {hello.version} of the messages between "
            f"nodes, this process has {ours} and {VERSION}: use the same installation on all nodes"
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


def _listed(files: Sequence[str]) -> str:
    names = [os.path.basename(received(file)) for file in files[:_NAMED]]
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return f"{', '.join(names)}{more} (in {os.path.dirname(received(files[0]))})"
