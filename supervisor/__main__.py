"""The command `longhaul`: shows and controls experiments, running or not.

One module per command, named in `COMMANDS` and imported when it is asked for. Such a module
has `describe(parser)`, which adds its arguments, and `run(arguments)`, which returns the
exit code. That of `exec` makes what `main` is to be called with.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from supervisor.core.terms.errors import LonghaulError, StorageError, UsageError
from supervisor.core.terms.version import VERSION
from supervisor.core.terms.wording import cut, one_line
from supervisor.system.signals import die_of
from supervisor.system.text_encoding import replace_unencodable
from supervisor.views.console import print_lines

if TYPE_CHECKING:
    from supervisor.exec.exec_command import CommandScript

_INTERRUPTED = 130  # the exit code of a shell after Ctrl+C
_NOBODY_READS = 141  # and after a closed pipe
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # errors of a write if stdout is a file


class Command(NamedTuple):
    """Where a command lives, and its line in the help."""

    module: str
    help: str


COMMANDS = {
    "exec": Command(
        "supervisor.exec.exec_command", "run any program as a job, for each of many values or lines"
    ),
    "list": Command("supervisor.commands.listing", "list experiments"),
    "status": Command("supervisor.commands.status", "show the progress of an experiment"),
    "failures": Command(
        "supervisor.commands.failures", "list failures, grouped by error and place in the code"
    ),
    "show": Command("supervisor.commands.show", "show every attempt of a job"),
    "output": Command("supervisor.commands.output", "show what a job printed, also while it runs"),
    "memory": Command("supervisor.commands.memory", "show which jobs used the most memory, and when"),
    "replay": Command("supervisor.commands.replay", "run a job again here, with --pdb in the debugger"),
    "results": Command(
        "supervisor.commands.results",
        "print params and results as a table, CSV, JSON lines or SQLite",
    ),
    "report": Command(
        "supervisor.commands.save_report", "write one HTML file: what failed, timeline, results, pictures"
    ),
    "web": Command("supervisor.web.web_command", "serve a page to watch and steer runs from a browser"),
    "verify": Command("supervisor.commands.verify", "check every record and file of an experiment"),
    "rm": Command("supervisor.commands.remove", "remove experiments with all their files"),
    "ctl": Command(
        "supervisor.commands.ctl",
        "control a running experiment: pause, drain, retry or cancel jobs",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    replace_unencodable(sys.stdout)
    try:
        with _stdout_flushed():
            return _answer(words)
    except LonghaulError as error:
        print_lines(sys.stderr, f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        if argv is None:
            die_of(signal.SIGINT)
        return _INTERRUPTED
    except BrokenPipeError:
        return _NOBODY_READS
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _directory_is_deleted():
            print_lines(
                sys.stderr,
                "error: the directory that this was started in is deleted; start it in another one",
            )
            return UsageError.exit_code
        if error.filename is not None or error.errno not in _FULL:
            raise
        print_lines(sys.stderr, f"error: the output cannot be written: {error.strerror}")
        return StorageError.exit_code


def _answer(words: Sequence[str]) -> int:
    if words and words[0] in COMMANDS:
        return _run(words[0], words[1:])
    if words and not words[0].startswith("-"):
        raise UsageError(_unknown_command(words))
    if not words:
        raise UsageError(f"which command? There are {', '.join(COMMANDS)}; longhaul --help explains them")
    _parser().parse_args(words)
    return 0


@contextlib.contextmanager
def _stdout_flushed() -> Iterator[None]:
    """Write out what was printed, however the command ends: what is left to the interpreter's exit fails there with
    words of its own, and its exit code is 120. Raises OSError if the command itself had come to its end."""
    try:
        yield
    except SystemExit:  # of argparse, after the help
        _flush_stdout()
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            _flush_stdout()
        raise
    else:
        _flush_stdout()


def _directory_is_deleted() -> bool:
    """All that looks up a relative path fails there, each with an error of its own."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _flush_stdout() -> None:
    """Raises OSError; after that nothing more is written, also not at the interpreter's exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _run(name: str, words: Sequence[str]) -> int:
    module = import_module(COMMANDS[name].module)
    if name == "exec":
        _exec(module.script_of(words))
    parser = CommandParser(
        prog=f"longhaul {name}",
        description=f"{COMMANDS[name].help[0].upper()}{COMMANDS[name].help[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.describe(parser)
    code: int = module.run(parser.parse_args(parser.options_first(words)))
    return code


def _exec(script: CommandScript) -> NoReturn:
    if script.dry_run:
        from supervisor.exec.dry_run import print_command_lines

        raise SystemExit(print_command_lines(script))
    from supervisor.api import main as run_script

    jobs = script.jobs
    run_script(
        jobs.function,
        jobs,
        name=script.name,
        output=script.output,
        parser=script.parser,
        setup=jobs.setup,
        argv=script.argv,
        **script.settings,
    )


class CommandParser(argparse.ArgumentParser):
    """Accepts options between the other arguments. Its errors say how to name a job or an experiment that
    looks like an option."""

    def __init__(self, **keywords: Any) -> None:
        self._by_option: dict[str, argparse.Action] = {}
        self._strange = False  # there was a word that begins with a dash and is no option
        super().__init__(**keywords)

    def add_argument(self, *names: Any, **keywords: Any) -> argparse.Action:
        action = super().add_argument(*names, **keywords)
        self._by_option.update(dict.fromkeys(action.option_strings, action))
        return action

    def options_first(self, words: Sequence[str]) -> list[str]:
        """The same words, options first: after an option argparse accepts no more optional positionals.
        (`parse_intermixed_args` ignores `--`.)"""
        options: list[str] = []
        others: list[str] = []
        rest = iter(words)
        for word in rest:
            if word == "--":
                others += rest
            elif word.startswith("-") and word != "-":
                options.append(word)
                action = self._by_option.get(word)
                self._strange |= action is None
                if action is not None and action.nargs is None:
                    options += [value for value in [next(rest, None)] if value is not None]
            else:
                others.append(word)
        return [*options, "--", *others] if others else options

    def error(self, message: str) -> NoReturn:
        if "are required" in message:
            message += f"; {self.prog} --help explains them"
        if self._strange:
            message += " (put an id that begins with a dash after --)"
        super().error(message)


def _unknown_command(words: Sequence[str]) -> str:
    from difflib import get_close_matches

    word = words[0]
    if script := next((one for one in words[:2] if one.endswith(".py")), None):
        return f"unknown command {cut(one_line(word), 60)!r}; a script is started by Python: python {one_line(script)}"
    near = get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?; " if near else ""
    return f"unknown command {cut(one_line(word), 60)!r}; {hint}there are {', '.join(COMMANDS)}"


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="longhaul",
        description="Run programs as jobs; show and control experiments, also those that scripts start and resume.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
        + "\n\nlonghaul COMMAND --help shows its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"longhaul {VERSION}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
