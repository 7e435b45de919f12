"""The options of `longhaul exec` beside those of every script. What is not typed (the command, the directory, the lines
of standard input) is an option as well, so that it is remembered with the experiment."""

from __future__ import annotations

import argparse
import base64
import os
import stat
import tempfile
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from supervisor.core.terms.wording import cut, one_line
from supervisor.exec.job_sources import STDIN, read_stdin, text_of
from supervisor.options.script_options import OwnOptionError
from workers.process.surrogates import received, sendable
from workers.program.program_job import RESULTS

DEFAULT_NAME = "exec"
_TEXTS = ("--param", "--id", "--domain")
ON_DRAIN = ("wait", "term")
_DESCRIPTION = (
    "Run a program for each combination of values, each line of a list, or each line of a CSV file."
)
_EPILOG = """Names in braces are replaced by the values of the job; {{ and }} are braces.
There is no shell in between. A job is completed if its program exits with code 0.
More: "Any program as a job" in the documentation"""
_HELP = {
    "param": "one name, and its values by comma (lr=0.1,0.01) or as a range (seed=1..5, or n=1..10..3 for every "
    "third); once for each name, then all combinations are run",
    "jobs": "a CSV file with a header, JSON lines (.jsonl), or any other file: a job for each line, {line}; "
    "-: the lines of standard input",
    "id": "id of each job: '{lr}/{seed}' (default: made of its values)",
    "domain": "group of each job: '{lr}'; --no-all-tasks runs one job of each",
    "retry_codes": "another attempt only after these exit codes: 75,111; one, if no --retries says more; "
    "none: after any",
    "result": "what the program writes to $LONGHAUL_RESULT (file), the last line of its output if that is a JSON "
    "object (last-line), or the first of them that there is (default: auto)",
    "on_drain": "when the run is to stop, let the program go on for the grace time (wait), or send it SIGTERM "
    "first (term) (default: wait)",
    "name": f"name of the experiment (default: {DEFAULT_NAME})",
    "dry_run": "print the command lines, quoted for a shell, and run nothing",
}
# Options of GNU parallel and xargs that have another name here, or none.
_SHOWN = "--show-output shows what jobs print, longhaul output JOB that of one job"
_VALUES = "the first line of a CSV file (--jobs table.csv) has the names of its values"
OTHER_TOOLS = {
    "--joblog": "longhaul results and longhaul failures show each job with its state, seconds and exit code",
    "--halt": "--max-failures N ends the run when so many jobs have failed",
    "--halt-on-error": "--max-failures N ends the run when so many jobs have failed",
    "--tag": _SHOWN,
    "--line-buffer": _SHOWN,
    "--ungroup": _SHOWN,
    "--group": _SHOWN,
    "--keep-order": "the final files are always in the order of the list",
    "-k": "the final files are always in the order of the list",
    "--max-procs": "so many at the same time is --workers N",
    "-P": "so many at the same time is --workers N",
    "--eta": "it is always shown; longhaul status --watch shows it elsewhere",
    "--progress": "it is always shown; longhaul status --watch shows it elsewhere",
    "--bar": "it is always shown; longhaul status --watch shows it elsewhere",
    "--results": "results and output are always kept: longhaul results, longhaul output JOB",
    "--resume-failed": "--resume latest also tries again what has failed",
    "--delay": "--rate N/s bounds how many jobs start in a second, N/m in a minute",
    "--load": "--keep-free SIZE starts nothing while less memory is free; there is no bound by load",
    "--memfree": "--keep-free SIZE starts nothing while less memory is free",
    "--memsuspend": "--keep-free SIZE starts nothing while less memory is free",
    "--arg-file": "a list is --jobs FILE",
    "-a": "a list is --jobs FILE",
    "-I": "{line} is the line of a list (--jobs FILE)",
    "--colsep": _VALUES,
    "--header": _VALUES,
    "--pipe": "a program gets nothing on standard input; cut the input into files, and give their list by --jobs",
    "--shuf": "the order is that of the list: shuf list.txt | longhaul exec --jobs - ...",
    "--sshlogin": "jobs on other machines: --engine ray",
}


class CommandLineParts(NamedTuple):
    """The words before `--`, and the command after it; None without a `--`."""

    options: list[str]
    command: list[str] | None


def parts_of(words: Sequence[str]) -> CommandLineParts:
    """Raises UsageError for a `--` without a command."""
    if "--" not in words:
        return CommandLineParts(_texts_in_utf8(words), None)
    at = words.index("--")
    command = [in_utf8(word) for word in words[at + 1 :]]
    if not command or not command[0]:
        raise OwnOptionError("there is no command after --: longhaul exec [options] -- COMMAND")
    return CommandLineParts(_texts_in_utf8(words[:at]), command)


def build_own_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        add_help=False,
        usage="longhaul exec [options] -- COMMAND [words with {names}]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("what is run (remembered by a resume)")
    add = group.add_argument
    add("--param", action="append", default=[], metavar="NAME=VALUES", help=_HELP["param"])
    add("--jobs", metavar="FILE", help=_HELP["jobs"])
    add("--id", metavar="TEXT", help=_HELP["id"])
    add("--domain", metavar="TEXT", help=_HELP["domain"])
    add("--retry-codes", metavar="CODES", help=_HELP["retry_codes"])
    add("--result", choices=RESULTS, default="auto", help=_HELP["result"])
    add("--on-drain", choices=ON_DRAIN, default="wait", help=_HELP["on_drain"])
    group = parser.add_argument_group("of this start")
    group.add_argument("--name", metavar="NAME", default=argparse.SUPPRESS, help=_HELP["name"])
    group.add_argument("--dry-run", action="store_true", help=_HELP["dry_run"])
    for hidden in ("--command", "--directory"):
        parser.add_argument(hidden, action=_Hidden, help=argparse.SUPPRESS)
    parser.add_argument("--stdin-list", help=argparse.SUPPRESS)  # packed: it may be long
    return parser


def in_utf8(word: str) -> str:
    """A word of the command line as UTF-8 has it: Python has decoded its bytes by the locale."""
    return os.fsencode(word).decode("utf-8", "surrogateescape")


def _texts_in_utf8(words: Sequence[str]) -> list[str]:
    """The same words; values of options that are texts, and no paths, as UTF-8 has them."""
    found: list[str] = []
    for word in words:
        before = found[-1] if found else ""
        is_text = word.partition("=")[0] in _TEXTS or (before in _TEXTS and "=" not in before)
        found.append(in_utf8(word) if is_text else word)
    return found


class _Hidden(argparse.Action):
    """An option that is given by `hidden_words` alone: its value is JSON."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            value = unpacked(values)
        except ValueError:
            raise OwnOptionError(f"unknown option {option_string}; --help lists all options") from None
        setattr(namespace, self.dest, value)


def hidden_words(parts: CommandLineParts, *, resumed: bool) -> list[str]:
    """Options for what is not typed as one. The directory is that of the first start. Raises UsageError."""
    words = []
    if parts.command is not None:
        words.append(f"--command={_packed(parts.command)}")
    if not resumed:
        try:
            words.append(f"--directory={_packed(os.getcwd())}")
        except OSError:
            raise OwnOptionError(
                "the directory that this was started in is deleted; start it in another one"
            ) from None
    return words


def with_absolute_jobs(words: Sequence[str]) -> list[str]:
    """The words with the path of `--jobs` made absolute, and what standard input has to say."""
    given = list(words)
    pipe = ""
    for place, word in enumerate(given):
        option, equals, value = word.partition("=")
        if option != "--jobs":
            continue
        at = place if equals else place + 1
        value = value if equals else "".join(given[at : at + 1])
        if not value:
            raise OwnOptionError("--jobs: expected the name of a file, or - for standard input")
        path = os.path.abspath(value)
        given[at] = (f"{option}=" if equals else "") + (path if value != STDIN else value)
        if value != STDIN and _is_read_once(path):  # <(ls): there is nothing to be read again at a resume
            given[at] = (f"{option}=" if equals else "") + STDIN
            pipe = path
    if pipe and _jobs_given(given) == STDIN:
        given.append(f"--stdin-list={_packed(text_of(_content_of(pipe), pipe))}")
    elif _jobs_given(given) == STDIN:
        raw = read_stdin()
        if "--detach" in given:
            _offer_again(raw)
        given.append(f"--stdin-list={_packed(text_of(raw, STDIN))}")
    return given


def _is_read_once(path: str) -> bool:
    """Whether it is a pipe or a device."""
    try:
        return not stat.S_ISREG(mode := os.stat(path).st_mode) and not stat.S_ISDIR(mode)
    except OSError:
        return False


def _content_of(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise OwnOptionError(f"--jobs {path} cannot be read: {error.strerror}") from None


def _offer_again(raw: bytes) -> None:
    """Let the process that `--detach` starts read the same from standard input."""
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.seek(0)
        os.dup2(file.fileno(), 0)


def _jobs_given(words: Sequence[str]) -> str | None:
    found = None
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--jobs":
            found = value if equals else "".join(words[place + 1 : place + 2])
    return found


def _packed(value: Any) -> str:
    """Text that is an argument and is kept in records: a long list takes little room."""
    return base64.b64encode(zlib.compress(msgspec.json.encode(_each(value, sendable)))).decode()


def unpacked(text: str) -> Any:
    """Undo `_packed`. ValueError for any other text."""
    try:
        return _each(msgspec.json.decode(zlib.decompress(base64.b64decode(text, validate=True))), received)
    except (zlib.error, msgspec.DecodeError, UnicodeError) as error:
        raise ValueError(str(error)) from None


def _each(value: Any, form: Any) -> Any:
    if isinstance(value, list):
        return [form(item) for item in value]
    return form(value) if isinstance(value, str) else value


def value_of_option(words: Sequence[str], option: str) -> str | None:
    """What was last given for an option that takes a value; None if it was not given."""
    found = None
    rest = iter(words)
    for word in rest:
        if word == option:
            found = next(rest, None)
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def without_option(words: Sequence[str], option: str) -> list[str]:
    """The words without an option that takes a value."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == option:
            next(rest, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def refuse_other_tools_options(words: Sequence[str]) -> None:
    """Options that other tools have, with what they are here; several values after one --param or --jobs, or a
    second --jobs. Raises UsageError."""
    before = ["", "", *words]
    if sum(word.partition("=")[0] == "--jobs" for word in words) > 1:
        raise OwnOptionError("--jobs is given twice, and takes one list: put all jobs into one file")
    for at, word in enumerate(words):
        follows = before[at] == "--param" or before[at + 1].startswith("--param=")
        if follows and "=" in word and not word.startswith("-"):
            shown_word = cut(one_line(word), 60)
            raise OwnOptionError(
                f"unexpected argument {shown_word!r}; write --param before each: --param {shown_word}"
            )
        if before[at] == "--jobs" and not word.startswith("-"):
            raise OwnOptionError(
                f"unexpected argument {cut(one_line(word), 60)!r}: --jobs takes one list; for a job for each file "
                f"it is ls FILES | longhaul exec --jobs - -- COMMAND {{line}}"
            )
        option = word.partition("=")[0]
        # A short option and its value may be one word: -P4.
        if said := OTHER_TOOLS.get(option) or (OTHER_TOOLS.get(word[:2]) if word[2:].isdigit() else None):
            raise OwnOptionError(f"unknown option {cut(one_line(option), 40)}: {said}")
        if word.startswith("-j") and not word.startswith("--") and (word == "-j" or word[2:].isdigit()):
            raise OwnOptionError(
                f"unknown option {cut(one_line(word), 40)}: so many at the same time is --workers {word[2:] or 'N'}"
            )
