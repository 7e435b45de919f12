"""`program`: a program as the function of a script's jobs."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import msgspec

from supervisor.core.terms.errors import UsageError
from supervisor.system.script_start import only_pythons
from workers.program.command_template import BadTemplate, Template
from workers.program.program_job import RESULTS, ProgramSpec, run_program


def program(
    *command: str, result: str = "auto", on_drain: str = "wait", retry_codes: Sequence[int] | None = None
) -> functools.partial[Any]:
    """A program as the function of `main` and `run`: `main(program("./solve", "--case", "{case}"), jobs, ...)`.

    Parameters
    ----------
    command: the program and its arguments. `{case}` is replaced by the job's parameter of that name, `{{` and `}}`
        are braces. There is no shell in between.
    result: where the result is from: "file" (`$LONGHAUL_RESULT`), "last-line" of its output, "auto": the first of
        them that there is, "none".
    on_drain: "term": it gets SIGTERM when the run is to stop; "wait": it has the grace time.
    retry_codes: only after these exit codes may there be another attempt. None: after any.

    What it finds in its environment, and how its end becomes the outcome of the job, is as for `longhaul exec`.

    Raises UsageError for a command that cannot be run.
    """
    if not command or not all(isinstance(word, str) for word in command) or not command[0]:
        raise UsageError(f"program(): expected a program and its arguments as texts, not {command!r}"[:200])
    try:
        for word in command:
            Template(word)
    except BadTemplate as error:
        raise UsageError(f"program(): {error}") from None
    if result not in RESULTS or on_drain not in ("wait", "term"):
        raise UsageError(f"program(): result is one of {', '.join(RESULTS)}; on_drain is wait or term")
    spec = ProgramSpec.packed(
        command=list(command),
        directory=os.getcwd(),
        result=result,
        on_drain=on_drain,
        unset=only_pythons(),
        retry_codes=None if retry_codes is None else [int(code) for code in retry_codes],
    )
    return functools.partial(run_program, msgspec.to_builtins(spec))
