"""Starts workers as fresh interpreters, from a zygote that has run no code of the user.

For workers that need variables of their own in the environment before their interpreter starts. They are
children of the zygote like forked ones: it reaps them, and adopts their orphans.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from workers.forking.resource_trackers import descriptor_of_tracker
from workers.process.experiment_tag import INCARNATION, incarnation_text
from workers.process.initial_state import interpreter_command

# Python ignores these from its start on, and its child programs would, too.
_OF_PYTHON = tuple(getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name))


class FreshInterpreters:
    """To be made while this process still has the environment and the arguments that it was started with.

    entry: what a worker begins with (`bootstrap`); it gets the numbers of its descriptors.
    variables: to be set in each worker, beside those of this process.
    handlers: by number, the handlers that this process was started with for the signals that it ignores.
    """

    def __init__(self, entry: str, variables: Mapping[str, str], handlers: Mapping[int, Any]) -> None:
        self._environment = {**os.environb, **_encoded(variables)}
        self._command = interpreter_command(entry)
        kept = [number for number, handler in handlers.items() if handler == signal.SIG_IGN]
        self._defaults = [number for number in (*handlers, signal.SIGCHLD, *_OF_PYTHON) if number not in kept]
        tracker = descriptor_of_tracker()
        self._shared = [] if tracker is None else [tracker]

    def start(
        self, incarnation: int, variables: Mapping[str, str], descriptors: list[int], output: int = 1
    ) -> int:
        """Start a worker in a process group of its own; its pid. Raises OSError.

        variables: of this worker. descriptors: inbox, outbox and both lifelines. output: the file that it
        prints to; by default that of this process.
        """
        passed = [*descriptors, *self._shared]
        own = _encoded({**variables, INCARNATION: incarnation_text(incarnation)})
        try:
            for descriptor in passed:
                os.set_inheritable(descriptor, True)
            return os.posix_spawn(
                sys.executable,
                [*self._command, *map(str, passed)],
                {**self._environment, **own},
                file_actions=[(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)],
                setpgroup=0,
                setsigmask=[],
                setsigdef=self._defaults,
            )
        finally:
            for descriptor in passed:
                os.set_inheritable(descriptor, False)


def _encoded(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}
