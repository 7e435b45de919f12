"""`longhaul exec`: from its command line to what a script would give `main`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from supervisor.core.terms.wording import cut, one_line
from supervisor.exec.command_jobs import CommandJobs, codes_of
from supervisor.exec.command_options import (
    DEFAULT_NAME,
    build_own_parser,
    hidden_words,
    parts_of,
    refuse_other_tools_options,
    value_of_option,
    with_absolute_jobs,
    without_option,
)
from supervisor.exec.parallel_words import VALUES, command_line_for
from supervisor.options.keywords import MainSettings
from supervisor.options.option_parser import shortened
from supervisor.options.script_options import OwnOptionError
from supervisor.system.script_start import only_pythons

if TYPE_CHECKING:
    from supervisor.exec.command_target import CommandTarget

DEFAULTS = MainSettings(all_tasks=True, workers="auto")
_INFORMATION = ("-h", "--help", "--version", "--list-checkpoints")


class CommandScript(NamedTuple):
    """What `main` is to be called with: function and setup are those of `jobs`. dry_run: the command lines are only
    shown."""

    jobs: CommandJobs
    name: str
    output: str | None
    parser: argparse.ArgumentParser
    argv: list[str]
    settings: MainSettings
    dry_run: bool


def script_of(words: Sequence[str]) -> CommandScript:
    """The script that a command line after `longhaul exec` means. Raises UsageError."""
    parts = parts_of(words)
    given = shortened(parts.options, ())
    sys.argv[0] = "longhaul exec"  # for the help
    name, output = value_of_option(given, "--name"), value_of_option(given, "--output")
    if any(word in given for word in _INFORMATION):
        return _script(given, DEFAULT_NAME if name is None else name, None)
    refuse_other_tools_options(given)
    codes = value_of_option(given, "--retry-codes")
    codes_of(codes)
    word = value_of_option(given, "--resume")
    target = _target(word, name, output, value_of_option(given, "--experiment-id")) if word else None
    if target is None and parts.command is None:
        raise OwnOptionError(_no_command(word, name, output, words))
    if word is not None:
        given = without_option(given, "--resume")
        if target is not None:
            given += ["--resume", target.word]
    given = with_absolute_jobs(given)
    given += hidden_words(parts, resumed=target is not None)
    given += _one_retry(codes, given, target)
    if target is not None:
        return _script(given, target.name, target)
    return _script(given, DEFAULT_NAME if name is None else name, None)


def _target(word: str, name: str | None, output: str | None, named: str | None) -> CommandTarget | None:
    # It imports much that a new experiment does without.
    from supervisor.exec.command_target import find_target

    return find_target(word, name, output, named)


def _no_command(word: str | None, name: str | None, output: str | None, words: Sequence[str]) -> str:
    """What is missing, and the command line that these words mean, if that is clear.

    With `--resume auto` there may be an experiment, but finished: how it is repeated."""
    missing = "there is no command to run; it stands after --: longhaul exec [options] -- COMMAND"
    if misspelt := _misspelt_option(words):
        return misspelt
    if (meant := command_line_for(words)) is not None:
        return f"there is no -- before the command; try: {cut(one_line(meant), 1000)}"
    if VALUES in words:
        missing += ", and values before it: longhaul exec --param x=a,b -- COMMAND {x}"
    if word != "auto":
        return missing
    from supervisor.exec.command_target import latest_finished

    found = latest_finished(name, output)
    if found is None:
        return missing
    resume = f"--resume {found.experiment_id}"
    failed = found.counts.failed
    again = f"{resume} tries its failed jobs again, " if failed else ""
    return (
        f"{found.experiment_id} is finished ({found.counts.completed:,} completed, {failed:,} failed): {again}"
        f"{resume} --rerun '*' repeats its jobs; a new experiment needs its command after --"
    )


def _misspelt_option(words: Sequence[str]) -> str:
    """What to say of an option before the command that there is not, but one like it; "" if there is none."""
    from supervisor.options.option_parser import our_options
    from supervisor.options.request import nearest
    from supervisor.options.script_options import options_of

    own = [name for action in options_of(build_own_parser()) for name in action.option_strings]
    known = [*own, *our_options(), "--name", "--help"]
    before = ""
    for word in words:
        option, equals, _ = word.partition("=")
        if not word.startswith("-"):
            if not before:
                break  # the command begins
        elif option not in known and (near := nearest(option, known)):
            return f"unknown option {cut(one_line(option), 40)}{near}; --help lists all options"
        before = option if word.startswith("-") and not equals else ""
    return ""


def _one_retry(codes: str | None, given: Sequence[str], target: CommandTarget | None) -> list[str]:
    """Exit codes after which there may be another attempt mean one, if nothing says how many."""
    if codes is None or codes == "none" or value_of_option(given, "--retries") is not None:
        return []
    return [] if target is not None and target.settings.get("retries") else ["--retries", "1"]


def _script(given: list[str], name: str, target: CommandTarget | None) -> CommandScript:
    return CommandScript(
        jobs=CommandJobs(only_pythons(), is_new=target is None),
        name=name,
        output=str(target.layout.directory) if target is not None else None,
        parser=build_own_parser(),
        argv=without_option(given, "--name"),
        settings=DEFAULTS,
        dry_run="--dry-run" in given,
    )
