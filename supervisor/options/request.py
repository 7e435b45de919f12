"""The options of a script and the keywords of `run()`: read, checked, made into a Request.

Nothing here reads an experiment; what is contradictory is refused before anything happens.
"""

from __future__ import annotations

import argparse
import os
import re
import reprlib
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.experiment_id import check_id
from supervisor.core.terms.settings import Settings, option_of, parse_value
from supervisor.options.option_parser import ACTIONS, PREFIX, build_parser, shared_with_script, shortened
from supervisor.options.output_directory import output_directory
from supervisor.options.script_options import (
    Parser,
    check_required,
    default_forms,
    given_forms,
    option_strings,
    options_of,
    spelled,
)
from supervisor.system.script_start import status_pipe

CHANGED = ("refuse", "keep", "rerun")
_NOTHING: Mapping[str, Any] = {}  # nothing is remembered: a new experiment
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One call of `main` or `run`, complete: nothing is filled in later.

    `settings_now` holds only what was given on this command line, or in this call of `run`;
    `settings_script` the keywords that the script gives `main` as defaults. Both hold parsed
    values of `supervisor.core.terms.settings.Settings` fields. The user's own options likewise: `options_now`
    were given now, `options_default` are the parser's defaults; both in the JSON form in
    which they are remembered, of which `script_options.namespace` makes what `jobs` gets.
    """

    function: Callable[..., Any]
    jobs: Any
    name: str
    directory: Path  # of all files of the experiment; absolute
    setup: Callable[[], Any] | None = None
    finish: Callable[..., Any] | None = None
    settings_now: dict[str, Any] = {}
    settings_script: dict[str, Any] = {}
    parser: argparse.ArgumentParser | None = None  # the script's own options
    taken: frozenset[str] = frozenset()  # names of options that are the script's, whatever ours are
    shared: list[str] = []  # options given now that the script has read by itself as well
    options_now: dict[str, Any] = {}
    options_default: dict[str, Any] = {}
    resume: str | None = None  # an id, "latest", "auto"
    recording: bool = True  # False: --no-resume
    experiment_id: str | None = None
    rerun: list[str] = []  # globs, and code:VERSION
    accept_code: bool = False  # results of earlier code are as good as those of this one
    only: list[str] = []  # globs
    changed: str = "refuse"  # refuse, keep, rerun
    debug: str | None = None  # glob
    show_output: bool = False
    list_checkpoints: bool = False
    detach: bool = False
    started_by: int | None = (
        None  # in the process that --detach has started: the pipe on which its parent waits
    )
    command_line: list[str]  # sys.orig_argv: recorded, and made into the commands that resume
    arguments: list[str] = []  # of the script (sys.argv[1:]), likewise
    interactive: bool = True  # False for run(): no summary, no process exit
    progress: bool = True  # False: no view at all

    def with_option_names(self, text: str) -> str:
        """A text that names our options, with the names that they have in this script."""
        if not self.taken:
            return text
        return _OPTION.sub(lambda found: spelled(found.group(), self.taken), text)

    def settings(self, remembered: Mapping[str, Any] = _NOTHING) -> Settings:
        """Flag now > remembered in the experiment > keyword in the script > default."""
        kept = {key: value for key, value in remembered.items() if key in Settings.__struct_fields__}
        return msgspec.convert({**self.settings_script, **kept, **self.settings_now}, Settings)

    def options(self, remembered: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
        """The script's own options, by the same precedence, in their JSON form."""
        kept = {key: value for key, value in remembered.items() if key in self.options_default}
        return {**self.options_default, **kept, **self.options_now}


# -------------------------------------------------------------------------- the requests


def request_of_main(
    function: Callable[..., Any],
    jobs: Any,
    *,
    name: str,
    output: str | os.PathLike[str] | None,
    parser: argparse.ArgumentParser | None,
    argv: Sequence[str] | None,
    setup: Callable[[], Any] | None,
    finish: Callable[..., Any] | None,
    keywords: Mapping[str, Any],
    has_argparse: bool = False,
) -> Request:
    """The request of a script's command line. `has_argparse`: the script has imported it before us.

    Raises UsageError; argparse itself exits for `--help` and `--version`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    shared = shared_with_script(arguments) if has_argparse and parser is None and argv is None else []
    taken = option_strings(parser)
    script = parse_keywords(keywords, Settings.__struct_fields__)
    _check_calls(function, name, setup=setup, finish=finish)
    combined, namespace = _parse(arguments, parser, taken, script)
    given = _ours(namespace)
    settings = {key: given.pop(key) for key in Settings.__struct_fields__ if key in given}
    settings_now = parse_keywords(settings, Settings.__struct_fields__, taken)
    actions = _actions(given, output, _Names("--", taken))
    options_default, options_now = _own_options(parser, combined, namespace, actions)
    return Request(
        function=function,
        jobs=jobs,
        name=name,
        directory=output_directory(actions.pop("output"), name, arguments, taken, shared),
        setup=setup,
        finish=finish,
        settings_now=settings_now,
        settings_script=script,
        parser=parser,
        taken=taken,
        shared=shared,
        options_now=options_now,
        options_default=options_default,
        started_by=status_pipe() if actions.get("detach") else None,
        command_line=list(sys.orig_argv),
        arguments=arguments,
        **actions,
    )


def _parse(
    arguments: list[str],
    script: argparse.ArgumentParser | None,
    taken: frozenset[str],
    keywords: Mapping[str, Any],
) -> tuple[Parser, argparse.Namespace]:
    """The script's options and ours, from one command line."""
    prog = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    combined = build_parser(script, keywords, prog)
    namespace, unknown = combined.parse_known_args(shortened(arguments, taken))
    if unknown:
        raise UsageError(_unknown_arguments(unknown, combined))
    return combined, namespace


def _ours(namespace: argparse.Namespace) -> dict[str, Any]:
    return {
        key.removeprefix(PREFIX): value for key, value in vars(namespace).items() if key.startswith(PREFIX)
    }


def _own_options(
    script: argparse.ArgumentParser | None,
    combined: Parser,
    namespace: argparse.Namespace,
    actions: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The script's own options: the defaults of all, and those that were given. Raises UsageError if a
    required one is missing where nothing is remembered."""
    if script is None:
        return {}, {}
    default, now = default_forms(script), given_forms(script, combined.given, namespace)
    if actions.get("resume") is None and not actions.get("list_checkpoints"):
        check_required(script, now)
    return default, now


def request_of_run(
    function: Callable[..., Any],
    jobs: Any,
    *,
    name: str,
    output: str | os.PathLike[str] | None,
    setup: Callable[[], Any] | None,
    finish: Callable[..., Any] | None,
    keywords: Mapping[str, Any],
) -> Request:
    """The request of a call of `run()`: its keywords count as flags given now, since a call has no other way
    to override remembered settings."""
    given = dict(keywords)
    progress = given.pop("progress", True)
    known = [*Settings.__struct_fields__, *ACTIONS, "progress"]
    settings = {key: given.pop(key) for key in keywords if key in Settings.__struct_fields__}
    if unknown := [key for key in given if key not in ACTIONS]:
        raise UsageError(_unknown_keyword(unknown[0], known))
    _check_calls(function, name, setup=setup, finish=finish)
    resume = given.get("resume")
    if resume is False:
        del given["resume"]
        given["no_resume"] = True
    elif resume is True:
        raise UsageError('resume=True: say which experiment: resume="latest", "auto" or an id')
    given = {key: value for key, value in given.items() if value is not None}
    for key in ("only", "rerun"):
        if key in given:
            given[key] = _globs(key, given[key])
    actions = _actions(given, output, _Names(""))
    return Request(
        function=function,
        jobs=jobs,
        name=name,
        directory=output_directory(actions.pop("output"), name),
        setup=setup,
        finish=finish,
        settings_now=parse_keywords(settings, known),
        settings_script={"all_tasks": True},
        command_line=list(sys.orig_argv),
        interactive=False,
        progress=bool(progress),
        **actions,
    )


def _globs(key: str, value: Any) -> list[str]:
    globs = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not all(isinstance(glob, str) for glob in globs):
        raise UsageError(f"{key}= must be a pattern or a list of patterns, not {value!r}")
    return globs


def parse_keywords(
    keywords: Mapping[str, Any], known: Sequence[str], taken: Container[str] = ()
) -> dict[str, Any]:
    """Settings by name, as text or Python values; UsageError with the nearest name. `taken`: see
    `script_options.spelled`."""
    for key in keywords:
        if key not in Settings.__struct_fields__:
            raise UsageError(_unknown_keyword(key, known))
    name = _Names("--", taken)
    return {key: parse_value(key, value, option=name(key)) for key, value in keywords.items()}


def _check_calls(function: Any, name: Any, **calls: Any) -> None:
    if not callable(function):
        raise UsageError(
            f"the function to run must be callable, not {reprlib.repr(function)}: "
            f"the function itself, without parentheses, stands before the jobs"
        )
    if not isinstance(name, str) or not name.strip() or name in (".", "..") or set(name) & {"/", "\0", "\n"}:
        raise UsageError(f"name={name!r}: the name of an experiment must be the name of a folder, without /")
    for key, call in calls.items():
        if call is not None and not callable(call):
            raise UsageError(f"{key}= must be callable, not {call!r}")


def _actions(given: Mapping[str, Any], output: str | os.PathLike[str] | None, name: _Names) -> dict[str, Any]:
    """The fields of a Request that are no settings, and `output`; contradictions are refused."""
    asked = {"output": output, **given}
    recording = not asked.pop("no_resume", False)
    _refuse_contradictions({key for key in given if given[key]}, asked, name)
    for key, kind in (("resume", str), ("experiment_id", str), ("output", str | os.PathLike)):
        if not isinstance(asked.get(key) or "", kind):
            raise UsageError(f"{key}= must be a string, not {asked[key]!r}")
    if asked.get("resume") not in (None, "latest", "auto"):
        if os.sep in asked["resume"]:
            raise UsageError(
                f"{name('resume')} {asked['resume']}: expected the id of an experiment, which is the name of its "
                f"directory, and no path; a place other than the default one is given by {name('output')}"
            )
        check_id(asked["resume"])
    if asked.get("experiment_id") is not None:
        check_id(asked["experiment_id"])
        if asked["experiment_id"] == asked.get("resume"):
            del asked["experiment_id"]
    if asked["output"] is not None:
        asked["output"] = str(asked["output"])
    return {**asked, "recording": recording}


class _Names:
    """Options as the user wrote them: `--no-resume` or `resume=False`."""

    def __init__(self, dashes: str, taken: Container[str] = ()) -> None:
        self._dashes = dashes
        self._taken = taken

    def __call__(self, key: str) -> str:
        if self._dashes:
            return spelled(option_of(key), self._taken)
        return "resume=False" if key == "no_resume" else f"{key}="


# An option, one that does not go with it, and why.
_CONTRADICTIONS = (
    ("no_resume", "resume", "one resumes an experiment, the other records nothing to resume"),
    ("no_resume", "rerun", "without records there is nothing to run again"),
    ("no_resume", "accept_code", "without records there are no earlier results"),
    ("no_resume", "changed", "without records nothing can have changed"),
    ("list_checkpoints", "resume", "listing runs nothing"),
    ("list_checkpoints", "no_resume", "listing runs nothing"),
    ("list_checkpoints", "experiment_id", "listing runs nothing"),
    ("list_checkpoints", "rerun", "listing runs nothing"),
    ("list_checkpoints", "accept_code", "listing runs nothing"),
    ("list_checkpoints", "only", "listing runs nothing"),
    ("list_checkpoints", "debug", "listing runs nothing"),
    ("detach", "list_checkpoints", "listing runs nothing"),
    ("detach", "debug", "debugging needs the terminal"),
    ("detach", "no_resume", "without records it could be neither watched nor resumed"),
    ("debug", "rerun", "debugging records nothing; it runs completed jobs as well"),
    ("debug", "accept_code", "debugging records nothing"),
    ("debug", "only", "debugging selects its jobs itself"),
    ("debug", "no_resume", "debugging records nothing anyway"),
)


def _refuse_contradictions(given: set[str], asked: Mapping[str, Any], name: _Names) -> None:
    for one, other, why in _CONTRADICTIONS:
        if one in given and other in given:
            raise UsageError(f"{name(one)} and {name(other)} do not go together: {why}")
    resume, experiment_id = asked.get("resume"), asked.get("experiment_id")
    if resume is not None and resume != "auto" and experiment_id not in (None, resume):
        raise UsageError(
            f"{name('resume')} {resume} and {name('experiment_id')} {experiment_id} name two experiments; "
            f"{name('experiment_id')} names a new one, or goes with {name('resume')} auto"
        )
    for key in ("rerun", "accept_code", "changed"):
        if key in given and resume is None:
            raise UsageError(
                f"{name(key)} needs {name('resume')}: it is about results that there are already"
            )
    for key in ("rerun", "only", "debug"):
        globs = asked.get(key) or []
        if key in asked and (not globs or not all(isinstance(glob, str) and glob for glob in globs)):
            raise UsageError(f"{name(key)}: expected a pattern of job ids, such as 'iris/*'")
    if asked.get("changed", "refuse") not in CHANGED:
        raise UsageError(f"{name('changed')} {asked['changed']}: expected one of {', '.join(CHANGED)}")
    if asked["output"] is not None and not str(asked["output"]).strip():
        raise UsageError(f"{name('output')}: expected a directory")


# ------------------------------------------------------------------------- near misses


def _unknown_arguments(unknown: Sequence[str], parser: Parser) -> str:
    known = [option for action in options_of(parser) for option in action.option_strings]
    for typed in unknown:
        word = typed
        if typed[:1] in _LONG_DASHES or f"--{typed}" in known:  # as a word processor writes --, or without it
            word = f"--{typed.lstrip(_LONG_DASHES)}"
        if word.startswith("-") and len(word) > 1:
            option = word.partition("=")[0]
            positive = f"--{option.removeprefix('--no-')}"
            if option.startswith("--no-") and positive in _flags_of_script(parser):
                return f"unknown option {option}: {positive} of the script has no opposite{_OPPOSITE}"
            shown = typed.partition("=")[0]
            return f"unknown option {shown}{nearest(option, known)}; --help lists all options"
    return f"unexpected argument {unknown[0]!r}; --help lists all options"


def _unknown_keyword(key: str, known: Sequence[str]) -> str:
    return f"unknown keyword {key}={nearest(key, known, '=')}; there are {', '.join(sorted(known))}"


def _flags_of_script(parser: Parser) -> set[str]:
    """The options of the script that can be set and not unset (`store_true`)."""
    return {
        name
        for action in options_of(parser)
        if action.nargs == 0 and action.const is True and not action.dest.startswith(PREFIX)
        for name in action.option_strings
    }


_OPPOSITE = (
    "; declared with action=argparse.BooleanOptionalAction instead of 'store_true' it gets one; "
    "a new experiment, without --resume, remembers nothing"
)

_LONG_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"

# What other tools call the number of workers.
_WORKERS = (
    "n_jobs",
    "jobs",
    "j",
    "max_workers",
    "num_workers",
    "nworkers",
    "processes",
    "num_processes",
    "nprocs",
)


def nearest(word: str, known: Sequence[str], end: str = "") -> str:
    """`; did you mean ...?` with the option or keyword that a word comes next to; "" if none is like it."""
    from difflib import get_close_matches

    bare = {name.lstrip("-"): name for name in known}  # dashes, which all have, make no two names alike
    plain = word.lstrip("-").lower()
    if plain.replace("-", "_") in _WORKERS:
        plain = "workers"
    near = get_close_matches(plain, bare, n=1, cutoff=0.6)
    return f"; did you mean {bare[near[0]]}{end}?" if near else ""
