"""Takes note when code changes what all jobs of a process share.

Working directory, umask, signal handlers, limits, the standard descriptors: to ask the system
for all of them after each job would cost a short job more than it takes itself. So the usual
functions that change them say so in `CHANGES`, and the worker looks at once. What is changed in
another way, by C code, it finds when it looks all the same, once in a while
(`workers.surroundings`).
"""

from __future__ import annotations

import functools
import os
import resource
import signal
from collections.abc import Callable
from types import ModuleType
from typing import Any

_CHANGING: dict[ModuleType, tuple[str, ...]] = {
    os: (
        "chdir",
        "fchdir",
        "umask",
        "setuid",
        "seteuid",
        "setreuid",
        "setresuid",
        "setgid",
        "setegid",
        "setregid",
        "setresgid",
    ),
    signal: ("signal", "siginterrupt", "pthread_sigmask", "setitimer", "alarm"),
    resource: ("setrlimit", "prlimit"),
}
# Of these the argument that says which descriptor: above the standard ones it is nobody's business.
_OF_DESCRIPTORS = {"close": 0, "closerange": 0, "dup2": 1}
_LAST_STANDARD = 2


class _Changes:
    """made: something was changed since it was last put back."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made = False


CHANGES = _Changes()


def note_changes() -> None:
    """From here on the changing functions of `os`, `signal` and `resource` take note."""
    for module, names in _CHANGING.items():
        for name in names:
            _replace(module, name, _noting)
    for name, place in _OF_DESCRIPTORS.items():
        _replace(os, name, functools.partial(_noting_standard, place))


def _replace(module: ModuleType, name: str, by: Callable[[Any], Any]) -> None:
    function = getattr(module, name, None)
    if function is None or hasattr(function, "changes_are_noted"):
        return
    noting = by(function)
    noting.changes_are_noted = True
    noting.__module__ = module.__name__  # where pickle finds it
    setattr(module, name, noting)
    if function in os.supports_fd:
        os.supports_fd.add(noting)


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def noting(*args: Any, **kwargs: Any) -> Any:
        CHANGES.made = True
        return function(*args, **kwargs)

    return noting


def _noting_standard(place: int, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def noting(*args: Any, **kwargs: Any) -> Any:
        which = args[place] if len(args) > place else 0
        if not isinstance(which, int) or which <= _LAST_STANDARD:
            CHANGES.made = True
        return function(*args, **kwargs)

    return noting
