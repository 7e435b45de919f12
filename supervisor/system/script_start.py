"""How the script's interpreter was started: options, environment, arguments, directory.

Workers' interpreters are started in the same way, so that the script finds the same state at its import there.
Otherwise changes of its top level (another directory, a longer path or variable, a removed argument) would be
made twice.

It imports little: it is needed before most of the program is imported (`zygote_process`).
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import Any, NamedTuple

HASH_SEED = "1"  # for all experiments: a set of texts has one order in all workers, runs and resumes
# In the environment of a process that `--detach` has started: the descriptor on which its parent waits.
DETACHED = "LONGHAUL_DETACHED"
_WITH_VALUE = "WX"
# Variables that the interpreter and the C library read only at their start.
_READ_AT_START = (b"PYTHON", b"LC_", b"LD_", b"DYLD_", b"MALLOC_")
_READ_AT_START_TOO = (b"LANG", b"LANGUAGE", b"GLIBC_TUNABLES", b"TZ")


class CommandLine(NamedTuple):
    """`python OPTIONS script arguments`, taken apart."""

    options: list[str]
    kind: str  # "script", "m" or "c"
    what: str  # the script as it was given, the module's name, or the code
    arguments: list[str]


def command_line(words: list[str]) -> CommandLine | None:
    """Parse `sys.orig_argv`; None if the program cannot be started again."""
    at = 1
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if word == "-" or not word.startswith("-"):
            break
        if word.startswith("--"):
            at += 1 if "=" in word else 2  # --check-hash-based-pycs
            continue
        for place, letter in enumerate(word[1:], 1):
            if letter in "cm":
                what, rest = (
                    (word[place + 1 :], at + 1) if word[place + 1 :] else (_word(words, at + 1), at + 2)
                )
                options = words[1:at] + ([word[:place]] if place > 1 else [])
                return CommandLine(options, letter, what, words[rest:])
            if letter in _WITH_VALUE:
                at += not word[place + 1 :]
                break
        at += 1
    if at >= len(words) or words[at] == "-":
        return None
    options = [word for word in words[1:at] if word != "--"]
    return CommandLine(options, "script", words[at], words[at + 1 :])


def _word(words: list[str], at: int) -> str:
    return words[at] if at < len(words) else ""


def interpreter_options() -> list[str]:
    """The options of this interpreter, as they were given."""
    line = command_line(sys.orig_argv)
    if line is not None:
        return line.options
    import subprocess

    # Private: nothing public makes options of sys.flags and sys.warnoptions; multiprocessing uses it, too.
    # Guarded by test_options_are_known_where_the_script_comes_from_stdin.
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return options


# ------------------------------------------------------------------------------ environment


def environment_at_start() -> dict[bytes, bytes] | None:
    """The environment that this process was started with; None where the system does not tell, or if it was
    overwritten by a process title."""
    try:
        with open("/proc/self/environ", "rb", buffering=0) as file:
            text = file.read()
    except OSError:
        return None
    entries = [entry for entry in text.rstrip(b"\0").split(b"\0") if entry]
    found: dict[bytes, bytes] = {}
    for entry in entries:
        name, equals, value = entry.partition(b"=")
        if equals and name:
            found.setdefault(name, value)
    now = os.environb
    same = sum(1 for name, value in found.items() if now.get(name) == value)
    whole = len(found) >= len(entries) - 1 and same >= len(found) / 2
    return found if whole and found else None


def child_environment(more: dict[str, str], start: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
    """The environment for an interpreter like this one; `more` is added at the end.

    Variables that are read only at a start have the values from the start of this process.
    """
    start = environment_at_start() if start is None else start
    now = dict(os.environb)
    if start is not None:
        now = {name: value for name, value in now.items() if not _read_at_start(name)}
        now.update((name, value) for name, value in start.items() if _read_at_start(name))
    if b"PYTHONHASHSEED" not in now:
        now[b"PYTHONHASHSEED"] = HASH_SEED.encode()
    added = {os.fsencode(name): os.fsencode(value) for name, value in more.items()}
    return {**{name: value for name, value in now.items() if name not in added}, **added}


def _read_at_start(name: bytes) -> bool:
    return name.startswith(_READ_AT_START) or name in _READ_AT_START_TOO


def only_pythons() -> list[str]:
    """Variables that workers have only because they run Python, and that this process was not started with: the seed
    of hashes, and the encoding that Python chooses where the locale is C."""
    start = environment_at_start()
    names = ("PYTHONHASHSEED", "LC_CTYPE")
    if start is None:
        return [name for name in names[:1] if name not in os.environ]
    return [name for name in names if os.fsencode(name) not in start]


def hash_order_is_random() -> bool:
    """Whether sets of texts have a random order in each process: the interpreter ignores PYTHONHASHSEED (`-E`,
    `-I`)."""
    return bool(sys.flags.ignore_environment and sys.flags.hash_randomization)


def status_pipe() -> int | None:
    """The pipe on which the parent waits, if `--detach` has started this process; else None.

    The variable is removed: jobs do not inherit it.
    """
    text = os.environ.pop(DETACHED, "")
    try:
        writer = int(text)
        if not stat.S_ISFIFO(os.fstat(writer).st_mode):
            return None
    except (ValueError, OSError):
        return None
    os.set_inheritable(writer, False)
    return writer


# -------------------------------------------------------------------------------- directory


def start_directory() -> str | None:
    """The directory that this process was started in, as far as it can be found; None if it is the present one."""
    try:
        here: str | None = os.getcwd()
    except OSError:
        here = None
    line = command_line(sys.orig_argv)
    main: Any = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if line is None or not isinstance(file, str):
        return None
    if line.kind == "script" and not os.path.isabs(line.what) and file.endswith("/" + line.what):
        found = file[: -len(line.what)]  # the interpreter has put the directory before it
    elif (imported_in := sys.modules["supervisor"].__dict__["imported_in"]) not in ("", here):
        found = imported_in
    else:
        found = _directory_before_chdir(file, here)
    if not found or _same(found, here) or not os.access(found, os.X_OK):
        return None
    return os.path.normpath(found)


def _directory_before_chdir(file: str, here: str | None) -> str:
    """The directory from which the script's own `os.chdir("..")` leads to the present one."""
    if here is None:
        return ""
    folder = os.path.dirname(file)
    places = [folder, os.path.dirname(folder), os.environ.get("PWD", "")]
    with contextlib.suppress(OSError):
        places.append(os.readlink(f"/proc/{os.getppid()}/cwd"))
    steps = _chdir_arguments(file)
    for place in places:
        for step in steps:
            if os.path.isabs(place) and not os.path.isabs(step) and _same(os.path.join(place, step), here):
                return place
    return ""


def _chdir_arguments(file: str) -> list[str]:
    """Constant arguments of `chdir` in the script, other than "."."""
    try:
        with open(file, "rb") as script:
            text = script.read()
    except OSError:
        return []
    if b"chdir" not in text:
        return []
    import ast

    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    named = [call for call in calls if getattr(call.func, "attr", getattr(call.func, "id", "")) == "chdir"]
    given = [call.args[0].value for call in named if isinstance(call.args[0], ast.Constant)]
    return [step for step in given if isinstance(step, str) and os.path.normpath(step) != "."]


def _same(place: str, other: str | None) -> bool:
    try:
        return other is not None and os.path.samefile(place, other)
    except (OSError, ValueError):
        return False
