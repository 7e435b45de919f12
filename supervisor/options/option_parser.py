"""Every option that longhaul adds to a script: its names, its help, and how it yields.

A name that the script itself uses is the script's: `--output` goes to the script then, and ours is
`--longhaul-output`. All of our options have these longer names, whether or not a script uses the short ones:
a program that calls many scripts can always use them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import msgspec

from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.needs import parse_resource
from supervisor.core.terms.settings import START_METHODS, Settings, option_of, sized
from supervisor.core.terms.version import VERSION
from supervisor.core.terms.wording import as_given
from supervisor.options.script_options import (
    Parser,
    check_parser,
    longhauled,
    option_strings,
    options_of,
    spelled,
    take_in,
)
from supervisor.system.text_encoding import as_typed

# Options that are not settings: what to do in this run, not how the experiment is run.
ACTIONS = (
    "experiment_id",
    "resume",
    "output",
    "rerun",
    "accept_code",
    "only",
    "changed",
    "debug",
    "show_output",
)
PREFIX = "longhaul."  # of our own names in the namespace: they cannot meet the script's
# Settings that have a group of their own in the help; the others are about how it is run.
_RETRIES = ("retries", "retry_timeouts", "retry_over_memory", "backoff", "crash_limit", "retry_failed")
_BOUNDS = ("timeout", "memory_limit", "keep_free", "rate", "max_failures", "deadline", "stall")
_PLACES = ("engine", "address", "nodes", "files", "ship", "node_timeout")
_NEEDS = ("job_cpus", "job_memory", "job_gpus", "memory", "gpus", "resources")
_SETTING_HELP = {
    "workers": ("N", "parallel workers, or auto: as many as there are usable cores"),
    "all_tasks": (None, "all tasks instead of 1 per domain"),
    "timeout": ("TIME", "stop a job that runs longer: 90, 15m, 1h30m, 1-12:00:00, none"),
    "retries": ("N", "further attempts for a job that raises an error"),
    "retry_timeouts": ("N", "further attempts for a job that was stopped by its timeout"),
    "retry_over_memory": (None, "one further attempt for a job that was over its memory limit: alone"),
    "backoff": ("TIME", "wait before another attempt after an error or a timeout; doubled each time"),
    "memory_limit": ("SIZE", "stop a job that holds more memory, with all that it has started: 400M, 2G"),
    "keep_free": ("SIZE", "start nothing new while less memory than this is available"),
    "nice": ("N", "niceness of the workers, 0 to 19"),
    "rate": ("N/s", "start at most so many jobs per second, minute (N/m) or hour (N/h)"),
    "max_failures": ("N", "stop the run when so many of its jobs have failed, or N% of those that ended"),
    "deadline": (
        "TIME",
        "be finished by a time (07:30), after a duration (8h), or when the Slurm job ends (slurm)",
    ),
    "stall": ("TIME", "report a job that has used no CPU for so long, with its Python stack"),
    "grace": ("TIME", "how long running jobs may continue after Ctrl+C"),
    "crash_limit": ("N", "a job fails after it has crashed so many workers"),
    "checkpoint_every": ("N", "write the checkpoint after so many completed jobs"),
    "max_jobs_per_worker": ("N", "replace a worker after so many jobs, or none"),
    "seed": ("N", "a number from which the seed of each job is derived"),
    "start_method": ("NAME", f"how workers are started: {', '.join(START_METHODS)}"),
    "retry_failed": (None, "on a resume, give each failed job one more attempt"),
    "on_finish": ("COMMAND", "shell command to run when nothing is left to do"),
    "on_failure": ("COMMAND", "shell command to run when jobs have failed or the run broke off by itself"),
    "hook_timeout": ("TIME", "how long each of the two commands may take"),
    "job_cpus": ("N", "cores that each job uses, unless it says otherwise; none: 1"),
    "job_memory": ("SIZE", "memory that each job takes at most, unless it says otherwise: 400M, 2G"),
    "job_gpus": ("N", "GPUs that each job uses, unless it says otherwise; 0.5: half of one"),
    "memory": ("SIZE", "memory that jobs may ask for together, or auto: what the machine has"),
    "gpus": ("LIST", "the GPUs that jobs may use: auto, none, a number of them, or their names: 0,2,3"),
    "resources": (
        "NAME=N",
        "anything else that jobs may ask for, and how much there is; may be repeated, replaces all remembered; or none",
    ),
    "engine": ("NAME", "where jobs run: local, on this machine, or ray, on a Ray cluster"),
    "address": (
        "HOST:PORT",
        "the Ray cluster; auto: the one that this machine is part of; local: start one here",
    ),
    "nodes": ("N", "use so many nodes of the cluster at most"),
    "files": (
        "HOW",
        "whether nodes have the file system of this machine: shared, ship (no), or auto: each finds out",
    ),
    "ship": ("DIR", "copy this directory, with the script and its modules, to the nodes"),
    "node_timeout": ("TIME", "give up a node that has been silent for so long"),
}


# --------------------------------------------------------------------------- the parser


def build_parser(script: argparse.ArgumentParser | None, keywords: Mapping[str, Any], prog: str) -> Parser:
    """All options of a script: its own, and ours; `keywords` are the defaults that it sets."""
    own: dict[str, Any] = {"allow_abbrev": False}
    if script is not None:
        check_parser(script)
        own = take_in(script)
        own |= {"description": script.description, "epilog": script.epilog}
        own |= {"formatter_class": script.formatter_class, "usage": script.usage}
    parser = Parser(prog=prog, **own)
    taken = option_strings(script)
    _add_actions(parser, taken)
    _add_settings(parser, keywords, taken)
    if taken:
        parser.yielded = frozenset(option for option in our_options() if option in taken)
    return parser


def our_options(*, hidden: bool = True) -> list[str]:
    """Every option that longhaul adds to a script, by its short names. `hidden`: those that are not in the help as
    well."""
    actions = [
        action
        for action in options_of(build_parser(None, {}, ""))
        if hidden or action.help != argparse.SUPPRESS
    ]
    return [option for action in actions for option in action.option_strings]


def shortened(arguments: Sequence[str], taken: Container[str]) -> list[str]:
    """The same arguments, with the longer names of our options only where the script has the short one."""
    begin = longhauled("--")
    if not any(word.startswith(begin) for word in arguments):
        return list(arguments)
    ours = {longhauled(option): option for option in our_options() if option not in taken}
    result, end = list(arguments), len(arguments)
    end = result.index("--") if "--" in result else end
    for place, argument in enumerate(result[:end]):
        option, equals, value = argument.partition("=")
        if option in ours and option not in taken:
            result[place] = ours[option] + equals + value
    return result


def names_taken(taken: Container[str]) -> str:
    """A notice about our options whose names the script uses itself; "" if there are none."""
    ours = [option for option in our_options(hidden=False) if option in taken] if taken else []
    ours = [option for option in ours if longhauled(option)]
    if not ours:
        return ""
    own, longer = ", ".join(ours), ", ".join(map(longhauled, ours))
    return f"{own}: the script's own here; longhaul's {'are' if len(ours) > 1 else 'is'} {longer}"


def shared_with_script(arguments: Sequence[str]) -> list[str]:
    """Options given now that are ours, and that the script has parsed itself, as far as that can be seen:
    argparse keeps no list of its parsers, but the namespace that it returned, with the same values, is
    probably still there."""
    ours = our_options()
    given: dict[str, str] = {}
    for position, argument in enumerate(arguments):
        option, has_value, value = argument.partition("=")
        if option in ours and option not in ("-h", "--help"):
            given[option] = value if has_value else "".join(arguments[position + 1 : position + 2])
    if not given:
        return []
    import gc

    # type() instead of isinstance, which asks lazy objects what they are.
    parsed = [vars(thing) for thing in gc.get_objects() if issubclass(type(thing), argparse.Namespace)]
    return sorted(
        option
        for option, value in given.items()
        if any(_was_read(space.get(option[2:].replace("-", "_")), value) for space in parsed)
    )


def _was_read(found: Any, given: str) -> bool:
    """Whether a parsed value is probably that of an option to which this was given."""
    if found is True:  # a flag
        return True
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        try:
            return float(given) == found
        except ValueError:
            return False
    return found is not None and str(found) == given


def taken_by_both(shared: Sequence[str]) -> str:
    """A warning about options that both the script and longhaul have parsed; "" if there are none."""
    if not shared:
        return ""
    names, longer = ", ".join(shared), ", ".join(filter(None, map(longhauled, shared)))
    text = f"{names}: read by the script itself and by longhaul; give main() the script's parser (parser=...)"
    return f"{text}, then longhaul's {'are' if len(shared) > 1 else 'is'} {longer}" if longer else text


def _add_actions(parser: Parser, taken: Container[str]) -> None:
    longer = "each option of longhaul is also there as --longhaul-NAME"
    _add_which_experiment(_adder(parser.add_argument_group("which experiment", longer), taken))
    _add_which_jobs(_adder(parser.add_argument_group("which jobs"), taken))
    text = "in the background: closing the terminal does not end it (default: no)"
    _adder(parser.add_argument_group("where it runs"), taken)("detach", None, text, action=_YesNo)
    add = _adder(parser.add_argument_group("what is shown"), taken)
    add("show_output", None, "show what jobs print (default: no)", "-s", action=_YesNo)
    version = f"longhaul {VERSION}"
    add("version", None, "the version of longhaul, and exit", action="version", version=version)


def _add_which_experiment(add: Callable[..., None]) -> None:
    add(
        "resume",
        "ID",
        "go on with an earlier experiment; latest: the latest one; auto: the latest "
        "unfinished one, or a new one",
    )
    add(
        "no_resume",
        None,
        "write only the final results, no checkpoint and no journal: cannot be resumed",
        action="store_true",
    )
    add("experiment_id", "ID", "name a new experiment (default: experiment_YYYYMMDD_HHMMSS)")
    add("output", "DIR", "where the files go (default: data/outputs/<name>, or LONGHAUL_OUTPUT)")
    add("list_checkpoints", None, "list what can be resumed, and exit", action="store_true")


def _add_which_jobs(add: Callable[..., None]) -> None:
    add(
        "only",
        "GLOB",
        "run only jobs with this id, or whose id matches; may be repeated",
        action="append",
        type=as_typed,
    )
    add(
        "rerun",
        "GLOB",
        "on a resume, run completed jobs that match once more; code:VERSION: those whose results an "
        "earlier version of the code made, code:old: any earlier one; may be repeated",
        action="append",
        type=as_typed,
    )
    add(
        "accept_code",
        None,
        "on a resume, accept the results of earlier code: no warning until the next change",
        action="store_true",
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
        type=as_typed,
    )


def _add_settings(parser: Parser, keywords: Mapping[str, Any], taken: Container[str]) -> None:
    # In the order in which they are shown.
    how_it_is_run, retries, bounds, needs, places = (
        _adder(parser.add_argument_group(f"{title} (remembered by a resume)"), taken)
        for title in ("how it is run", "another attempt", "bounds", "what jobs need", "several machines")
    )
    groups = {
        **dict.fromkeys(_RETRIES, retries),
        **dict.fromkeys(_BOUNDS, bounds),
        **dict.fromkeys(_NEEDS, needs),
        **dict.fromkeys(_PLACES, places),
    }
    defaults = Settings()
    for field in msgspec.structs.fields(Settings):
        add = groups.get(field.name, how_it_is_run)
        metavar, text = _SETTING_HELP[field.name]
        default = _shown(field.name, keywords.get(field.name, getattr(defaults, field.name)))
        more = {"action": _YesNo if metavar is None else _Resource if field.name == "resources" else "store"}
        add(field.name, metavar, f"{text} (default: {default})", **more)


def _adder(group: Any, taken: Container[str]) -> Callable[..., None]:
    """Adds an option by its names as they are `spelled`."""

    def add(name: str, metavar: str | None, text: str, *short: str, **more: Any) -> None:
        if metavar is not None:
            more["metavar"] = metavar
        hidden = text == argparse.SUPPRESS
        more |= {"dest": PREFIX + name, "default": argparse.SUPPRESS}
        names = [*short, option := option_of(name)]
        if more.get("action") is _YesNo:
            names.append("--no-" + option.removeprefix("--"))
        shown = [word for given in names if (word := spelled(given, taken)) and word not in taken]
        if option in taken:
            text += f"; {option} is the script's own"
        if shown:  # else the script has the longer name, too
            group.add_argument(*shown, help=argparse.SUPPRESS if hidden else text.replace("%", "%%"), **more)

    return add


class _YesNo(argparse.Action):
    """`--name` and `--no-name`, whatever they are called here."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, not (option_string or "").startswith(("--no-", longhauled("--no-"))))

    def format_usage(self) -> str:
        return " | ".join(self.option_strings)


class _Resource(argparse.Action):
    """`--resource NAME=N`, once for each name, or `--resource none`: together one setting."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        known: dict[str, float] | None = getattr(namespace, self.dest, None)
        if values == "none" and not known:
            found = {}
        else:
            try:
                name, amount = parse_resource(values)
            except ValueError as error:
                raise UsageError(f"{option_string} {as_given(values, str)}: {error}") from None
            if name in (known or {}):
                raise UsageError(f"{option_string} {as_given(values, str)}: {name} is given twice")
            found = {**(known or {}), name: amount}
        setattr(namespace, self.dest, found)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if name in ("memory_limit", "keep_free", "job_memory") or (name == "memory" and value != "auto"):
        return sized(value)
    if name == "resources":
        return ", ".join(f"{each}={amount:g}" for each, amount in value.items()) or "none"
    seconds = ("timeout", "grace", "backoff", "stall", "hook_timeout", "node_timeout")
    return f"{value:g}s" if name in seconds else str(value)
