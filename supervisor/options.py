"""The options of a script and the keywords of `run()`: read, checked, made into a Request.

Nothing here looks at the disk; what is contradictory is refused before anything happens.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.errors import UsageError
from supervisor.core.settings import START_METHODS, Settings, parse_value, sized
from supervisor.core.version import VERSION
from supervisor.records.layout import check_id
from supervisor.request import Request
from supervisor.script_options import (
    Parser,
    check_parser,
    check_required,
    default_forms,
    given_forms,
    take_in,
)

CHANGED = ("refuse", "keep", "rerun")
# Options that are not settings: what to do in this run, not how the experiment is run.
_ACTIONS = ("experiment_id", "resume", "output", "rerun", "only", "changed", "debug", "show_output")
_PREFIX = "longhaul."  # of our own names in the namespace: they cannot meet the script's

# Settings that have a group of their own in the help; the others are about how it is run.
_RETRIES = ("retries", "retry_timeouts", "retry_over_memory", "backoff", "crash_limit", "retry_failed")
_BOUNDS = ("timeout", "memory_limit", "keep_free", "rate", "max_failures", "deadline", "stall")
_SETTING_HELP = {
    "workers": ("N", "parallel workers, or auto: as many as there are usable cores"),
    "all_tasks": (None, "all tasks instead of 1 per domain"),
    "timeout": ("TIME", "stop a job that runs longer: 90, 15m, 2h, 1-12:00:00, none"),
    "retries": ("N", "further attempts for a job that raises an error"),
    "retry_timeouts": ("N", "further attempts for a job that was stopped by its timeout"),
    "retry_over_memory": (None, "one further attempt for a job that was over its memory limit: alone"),
    "backoff": ("TIME", "wait before another attempt after an error or a timeout; doubled each time"),
    "memory_limit": ("SIZE", "stop a job that holds more memory, with all that it has started: 400M, 2G"),
    "keep_free": ("SIZE", "start nothing new while less memory than this is available"),
    "nice": ("N", "niceness of the workers, 0 to 19"),
    "rate": ("N/s", "start at most so many jobs per second, minute (N/m) or hour (N/h)"),
    "max_failures": ("N", "stop the run when so many of its jobs have failed, or N% of those that ended"),
    "deadline": ("TIME", "stop in time for a clock (07:30), a duration from now (8h), or slurm"),
    "stall": ("TIME", "tell when a job uses no CPU for so long, and what it is at"),
    "grace": ("TIME", "how long running jobs may go on after Ctrl+C"),
    "crash_limit": ("N", "give up a job after it has crashed so many workers"),
    "checkpoint_every": ("N", "write the checkpoint after so many completed jobs"),
    "max_jobs_per_worker": ("N", "replace a worker after so many jobs, or none"),
    "seed": ("N", "of which each job's own seed is made"),
    "start_method": ("NAME", f"how workers are started: {', '.join(START_METHODS)}"),
    "retry_failed": (None, "on a resume, give each failed job one more attempt"),
    "on_finish": ("COMMAND", "run by the shell when nothing is left to do"),
    "on_failure": ("COMMAND", "run by the shell when jobs have failed or the run broke off by itself"),
    "hook_timeout": ("TIME", "how long each of the two may take"),
}


# --------------------------------------------------------------------------- the parser


def build_parser(script: argparse.ArgumentParser | None, keywords: Mapping[str, Any], prog: str) -> Parser:
    """All options of a script: its own, and ours; `keywords` are the defaults that it sets."""
    taken: dict[str, Any] = {"allow_abbrev": False}
    if script is not None:
        check_parser(script, our_options())
        taken = take_in(script)
        taken |= {"description": script.description, "epilog": script.epilog}
        taken["formatter_class"] = script.formatter_class
    parser = Parser(prog=prog, **taken)
    _add_actions(parser)
    _add_settings(parser, keywords)
    return parser


def our_options() -> list[str]:
    """Every option that longhaul adds to a script."""
    parser = Parser(allow_abbrev=False)
    _add_actions(parser)
    _add_settings(parser, {})
    return [option for action in parser._actions for option in action.option_strings]


def _add_actions(parser: Parser) -> None:
    add = _adder(parser.add_argument_group("which experiment"))
    add(
        "resume",
        "ID",
        "go on with an earlier experiment; latest: the latest one; auto: the latest "
        "unfinished one, or a new one",
    )
    add("no_resume", None, "no checkpoint, no journal, only the final results", action="store_true")
    add("experiment_id", "ID", "name a new experiment (default: experiment_YYYYMMDD_HHMMSS)")
    add("output", "DIR", "where the files go (default: data/outputs/<name>, or LONGHAUL_OUTPUT)")
    add("list_checkpoints", None, "list what can be resumed, and exit", action="store_true")
    add = _adder(parser.add_argument_group("which jobs"))
    add("only", "GLOB", "run only jobs whose id matches; may be repeated", action="append")
    add(
        "rerun",
        "GLOB",
        "on a resume, run completed jobs that match once more; may be repeated",
        action="append",
    )
    add(
        "changed",
        "HOW",
        "on a resume, if parameters under an old id have changed: refuse (default), "
        "keep the old results, or rerun the jobs",
    )
    add(
        "debug",
        "GLOB",
        "run matching jobs here, one after the other, with pdb on an error; nothing is recorded",
    )
    add = _adder(parser.add_argument_group("where it runs"))
    add(
        "detach",
        None,
        "in the background: closing the terminal does not end it (default: no)",
        action=argparse.BooleanOptionalAction,
    )
    add = _adder(parser.add_argument_group("what is shown"))
    add(
        "show_output", None, "show what jobs print (default: no)", "-s", action=argparse.BooleanOptionalAction
    )
    parser.add_argument("--version", action="version", version=f"longhaul {VERSION}")


def _add_settings(parser: Parser, keywords: Mapping[str, Any]) -> None:
    # In the order in which they are shown.
    how_it_is_run, retries, bounds = (
        _adder(parser.add_argument_group(f"{title} (remembered by a resume)"))
        for title in ("how it is run", "another attempt", "bounds")
    )
    groups = {**dict.fromkeys(_RETRIES, retries), **dict.fromkeys(_BOUNDS, bounds)}
    for field in msgspec.structs.fields(Settings):
        add = groups.get(field.name, how_it_is_run)
        metavar, text = _SETTING_HELP[field.name]
        default = _shown(field.name, keywords.get(field.name, field.default))
        more = {"action": argparse.BooleanOptionalAction} if metavar is None else {}
        add(field.name, metavar, f"{text} (default: {default})", **more)


def _adder(group: Any) -> Callable[..., None]:
    def add(name: str, metavar: str | None, text: str, *short: str, **more: Any) -> None:
        if metavar is not None:
            more["metavar"] = metavar
        option = "--" + name.replace("_", "-")
        more |= {"dest": _PREFIX + name, "default": argparse.SUPPRESS}
        group.add_argument(*short, option, help=text.replace("%", "%%"), **more)

    return add


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if name in ("memory_limit", "keep_free"):
        return sized(value)
    seconds = ("timeout", "grace", "backoff", "stall", "hook_timeout")
    return f"{value:g}s" if name in seconds else str(value)


# -------------------------------------------------------------------------- the requests


def request_of_main(
    function: Callable[..., Any],
    jobs: Any,
    *,
    name: str,
    output: str | None,
    parser: argparse.ArgumentParser | None,
    argv: Sequence[str] | None,
    setup: Callable[[], Any] | None,
    finish: Callable[[Any], Any] | None,
    keywords: Mapping[str, Any],
) -> Request:
    """What a script's command line asks for.

    Raises UsageError; argparse itself exits for `--help` and `--version`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    script = parse_keywords(keywords, Settings.__struct_fields__)
    _check_calls(function, name, setup=setup, finish=finish)
    prog = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    combined = build_parser(parser, script, prog)
    namespace, unknown = combined.parse_known_args(arguments)
    if unknown:
        raise UsageError(_unknown_arguments(unknown, combined))
    given = _ours(namespace)
    settings = {key: given.pop(key) for key in Settings.__struct_fields__ if key in given}
    request = Request(
        function=function,
        jobs=jobs,
        name=name,
        setup=setup,
        finish=finish,
        settings_now=parse_keywords(settings, Settings.__struct_fields__),
        settings_script=script,
        parser=parser,
        command_line=list(sys.orig_argv),
        arguments=arguments,
        **_actions(given, output, "--"),
    )
    if parser is not None:
        _add_options(request, parser, combined, namespace)
    return request


def _ours(namespace: argparse.Namespace) -> dict[str, Any]:
    return {
        key.removeprefix(_PREFIX): value for key, value in vars(namespace).items() if key.startswith(_PREFIX)
    }


def _add_options(
    request: Request, script: argparse.ArgumentParser, combined: Parser, namespace: argparse.Namespace
) -> None:
    request.options_default = default_forms(script)
    request.options_now = given_forms(script, combined.given, namespace)
    if request.resume is None and not request.list_checkpoints:
        check_required(script, request.options_now)


def request_of_run(
    function: Callable[..., Any],
    jobs: Any,
    *,
    name: str,
    output: str | None,
    setup: Callable[[], Any] | None,
    finish: Callable[[Any], Any] | None,
    keywords: Mapping[str, Any],
) -> Request:
    """What a call of `run()` asks for: its keywords count as flags given now, since a call
    has no other way to change its mind on a resume."""
    given = dict(keywords)
    progress = given.pop("progress", True)
    known = [*Settings.__struct_fields__, *_ACTIONS, "progress"]
    settings = {key: given.pop(key) for key in keywords if key in Settings.__struct_fields__}
    if unknown := [key for key in given if key not in _ACTIONS]:
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
    return Request(
        function=function,
        jobs=jobs,
        name=name,
        setup=setup,
        finish=finish,
        settings_now=parse_keywords(settings, known),
        settings_script={"all_tasks": True},
        interactive=False,
        progress=bool(progress),
        **_actions(given, output, ""),
    )


def _globs(key: str, value: Any) -> list[str]:
    globs = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not all(isinstance(glob, str) for glob in globs):
        raise UsageError(f"{key}= must be a pattern or a list of patterns, not {value!r}")
    return globs


def parse_keywords(keywords: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """Settings by name, as text or Python values; UsageError with the nearest name."""
    for key in keywords:
        if key not in Settings.__struct_fields__:
            raise UsageError(_unknown_keyword(key, known))
    return {key: parse_value(key, value) for key, value in keywords.items()}


def _check_calls(function: Any, name: Any, **calls: Any) -> None:
    if not callable(function):
        raise UsageError(f"the function to run must be callable, not {function!r}")
    if not isinstance(name, str) or not name.strip() or name in (".", "..") or set(name) & {"/", "\0", "\n"}:
        raise UsageError(f"name={name!r}: the name of an experiment must be the name of a folder")
    for key, call in calls.items():
        if call is not None and not callable(call):
            raise UsageError(f"{key}= must be callable, not {call!r}")


def _actions(given: Mapping[str, Any], output: str | None, dashes: str) -> dict[str, Any]:
    """The fields of a Request that are no settings; contradictions are refused."""
    asked = {"output": output, **given}
    recording = not asked.pop("no_resume", False)
    _refuse_contradictions({key for key in given if given[key]}, asked, _Names(dashes))
    for key, kind in (("resume", str), ("experiment_id", str), ("output", str | os.PathLike)):
        if not isinstance(asked.get(key) or "", kind):
            raise UsageError(f"{key}= must be a text, not {asked[key]!r}")
    if asked.get("resume") not in (None, "latest", "auto"):
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

    def __init__(self, dashes: str) -> None:
        self._dashes = dashes

    def __call__(self, key: str) -> str:
        if self._dashes:
            return self._dashes + key.replace("_", "-")
        return "resume=False" if key == "no_resume" else f"{key}="


# An option, one that does not go with it, and why.
_CONTRADICTIONS = (
    ("no_resume", "resume", "one goes on with an experiment, the other keeps nothing to go on with"),
    ("no_resume", "rerun", "without a record there is nothing to repeat"),
    ("no_resume", "changed", "without a record nothing can have changed"),
    ("list_checkpoints", "resume", "listing runs nothing"),
    ("list_checkpoints", "no_resume", "listing runs nothing"),
    ("list_checkpoints", "experiment_id", "listing runs nothing"),
    ("list_checkpoints", "rerun", "listing runs nothing"),
    ("list_checkpoints", "only", "listing runs nothing"),
    ("list_checkpoints", "debug", "listing runs nothing"),
    ("detach", "list_checkpoints", "listing runs nothing"),
    ("detach", "debug", "debugging needs the terminal"),
    ("detach", "no_resume", "without a record nobody could look at it, nor resume it"),
    ("debug", "rerun", "debugging records nothing; it runs completed jobs as well"),
    ("debug", "only", "debugging names its jobs itself"),
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
    for key in ("rerun", "changed"):
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
    known = [option for action in parser._actions for option in action.option_strings]
    for word in unknown:
        if word.startswith("-") and len(word) > 1:
            option = word.partition("=")[0]
            return f"unknown option {option}{_nearest(option, known)}; --help lists all options"
    return f"unexpected argument {unknown[0]!r}; --help lists all options"


def _unknown_keyword(key: str, known: Sequence[str]) -> str:
    return f"unknown keyword {key}={_nearest(key, known, '=')}; there are {', '.join(sorted(known))}"


def _nearest(word: str, known: Sequence[str], end: str = "") -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}{end}?" if near else ""
