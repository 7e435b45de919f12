"""The command of a program, from the record of a run that has run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from workers.process.surrogates import received
from workers.program.command_template import Template, texts_of

# Where the record says that its function is to be imported from.
_FUNCTION = ["workers.program.program_job", "run_program"]


def is_of_program(entry: Mapping[str, Any]) -> bool:
    """Whether the jobs of a run were runs of a program: there is nothing in them for a debugger of Python.

    entry: how the run's function is found, as `provenance.decoded_entry` returns it.
    """
    return list(entry.get("function", ())) == _FUNCTION


def recorded_command(entry: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> list[str]:
    """The words of the command, with the values of a job in place of names; as they were written if `params` is
    None. Empty if the jobs of the run were no program, or a name has no value."""
    if not is_of_program(entry):
        return []
    try:
        spec = msgspec.json.decode(str(entry.get("function_constants", "")))[0]
        words = [received(word) for word in spec["command"]]
        if params is None:
            return words
        texts = texts_of(params, of_lines=spec["of_lines"])
        return [Template(word).filled(texts) for word in words]
    except (ValueError, LookupError, TypeError):  # a record of another version
        return []
