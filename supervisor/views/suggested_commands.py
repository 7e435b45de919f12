"""Commands that are suggested to the user, ready to be pasted into a shell. Pure, except that programs are
searched on PATH."""

from __future__ import annotations

import os
import shlex
import shutil
import string
import sys
from collections.abc import Callable, Container, Iterable, Sequence

from supervisor.core.terms.wording import is_control
from workers.process.surrogates import has_surrogates

# Interpreter options that take their value as a word of its own.
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
# Options that a resume needs again: where the experiment is, and what to do about a changed plan. The others are
# stored with the experiment.
_KEPT = ("--output", "--changed")

Which = Callable[[str], str | None]
_LONGER = "--longhaul-"  # prefix of our options where the script has an option of the same name


def resume_command(
    orig_argv: Sequence[str],
    argv: Sequence[str],
    experiment_id: str,
    extra: Sequence[str] = (),
    *,
    taken: Container[str] = (),
    which: Which = shutil.which,
) -> str:
    """The command that resumes an experiment.

    Parameters
    ----------
    orig_argv: `sys.orig_argv`; empty for `run()`, which has no command.
    argv: the arguments that the script was given (`sys.argv[1:]`).
    extra: further options, such as `["--rerun", "iris/*"]`.
    taken: names of options that are the script's own.

    Without a script to name (`python -c`, a notebook) it is the call that does the same.
    """
    program = _program(orig_argv, argv)
    if program is None:
        return _call(experiment_id, extra)
    ours = [_spelled(word, taken) for word in ("--resume", experiment_id, *extra)]
    return pasted([*_shortened(program, which), *_kept(argv, taken), *ours])


def _spelled(word: str, taken: Container[str]) -> str:
    return _LONGER + word.removeprefix("--") if word in taken else word


def _meant(word: str, taken: Container[str]) -> str:
    """The short name of our option that this word is, without its value; "" if it is the script's."""
    option = word.partition("=")[0]
    if option in taken:
        return ""
    return "--" + option.removeprefix(_LONGER) if option.startswith(_LONGER) else option


def pasted(words: Sequence[str]) -> str:
    """Words as they can be pasted into a shell, whatever bytes they hold. One with control characters is
    written `$'\\x1b...'`: it must not steer the terminal that shows it, and the command means it all the same."""
    return " ".join(_ansi(word) if _is_special(word) else shlex.quote(word) for word in words)


def _is_special(word: str) -> bool:
    return not word.isprintable() and (has_surrogates(word) or any(map(is_control, word)))


def shown(path: str) -> str:
    """A path as it is; one that is not UTF-8 or has control characters as a shell takes it."""
    return _ansi(path) if _is_special(path) else path


def _ansi(word: str) -> str:
    try:
        raw = os.fsencode(word)
    except UnicodeEncodeError:  # in a locale that has no such character
        raw = word.encode("utf-8", "surrogateescape")
    letters = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in raw)
    return f"$'{_separated(letters)}'"


def _separated(letters: Iterable[str]) -> str:
    """An escape reads at most two digits in bash, in some shells all that follow: none follow."""
    text = ""
    for letter in letters:
        if text[-4:-2] == "\\x" and len(letter) == 1 and letter in string.hexdigits:
            letter = f"\\x{ord(letter):02x}"
        text += letter
    return text


def longhaul_command(
    command: str, words: Sequence[str], *, which: Which = shutil.which, python: str = sys.executable
) -> str:
    """A command of `longhaul`, as it is called here: by its name if that is the one of this Python, by its path
    where the virtual environment is not active."""
    called = os.path.join(os.path.dirname(python), "longhaul")
    program = [*_shortened([python], which), "-m", "supervisor"]
    if which("longhaul") == called:
        program = ["longhaul"]
    elif os.access(called, os.X_OK):
        program = [called]
    return pasted([*program, command, *words])


def _program(orig_argv: Sequence[str], argv: Sequence[str]) -> list[str] | None:
    """Interpreter, its options and the script or module; None if there is no script.

    The script's arguments are the tail of the command line, also under programs that run
    scripts (debuggers, profilers). If they are not, `main` was given others, and the
    script is the first word that is no option of the interpreter.
    """
    script = _script(orig_argv)
    if script is None:
        return None
    if list(orig_argv[script + 1 : script + 2]) == ["exec"] and _is_longhaul(orig_argv[script]):
        return list(orig_argv[: script + 2])
    tail = len(argv)
    if list(orig_argv[len(orig_argv) - tail :]) == list(argv) and len(orig_argv) - tail > script:
        return list(orig_argv[: len(orig_argv) - tail])
    return list(orig_argv[: script + 1])


def _is_longhaul(word: str) -> bool:
    return os.path.basename(word) in ("longhaul", "supervisor")


def _script(orig_argv: Sequence[str]) -> int | None:
    """The index of the word that names the script or module; None if there is none."""
    at = 1
    while at < len(orig_argv):
        word = orig_argv[at]
        if word == "-" or _is_switch(word, "c"):
            return None
        if _is_switch(word, "m"):
            at += 0 if len(word) > 2 and not word.endswith("m") else 1
            module = orig_argv[at] if at < len(orig_argv) else ""
            return None if not module or module == "ipykernel_launcher" else at
        if not word.startswith("-"):
            return at
        at += 2 if word in _WITH_VALUE else 1
    return None


def _is_switch(word: str, letter: str) -> bool:
    """Whether a word is the switch `-m` (or another letter), also after others (`-um`) or with its value
    (`-mpackage`)."""
    if not word.startswith("-") or word.startswith("--"):
        return False
    before = word[1:].partition(letter)[0]
    return letter in word and not set(before) - set("bBdEiIOPqsSuvx")


def _shortened(program: list[str], which: Which) -> list[str]:
    """The interpreter, or a script that stands on PATH, by its plain name."""
    if len(program) == 2 and _is_on_path(program[1], which) and os.path.isabs(program[1]):
        return [os.path.basename(program[1])]
    if len(program) == 3 and os.path.basename(program[1]) == "longhaul":  # its command exec
        return [*_shortened(program[:2], which)[-1:], program[2]]
    if program and _is_on_path(program[0], which):
        return [os.path.basename(program[0]), *program[1:]]
    return program


def _is_on_path(word: str, which: Which) -> bool:
    return which(os.path.basename(word)) == word


def _kept(argv: Sequence[str], taken: Container[str]) -> list[str]:
    kept = []
    words = iter(argv)
    for word in words:
        if word == "--":
            break
        if _meant(word, taken) in _KEPT:
            kept += [word] if "=" in word else [word, next(words, "")]
    return kept


# ------------------------------------------------------------------ where there is no script


def _call(experiment_id: str, extra: Sequence[str]) -> str:
    pairs = [("--resume", experiment_id), *_pairs(extra)]
    return f"run(..., {', '.join(_keyword(*pair) for pair in pairs)})"


def _pairs(extra: Sequence[str]) -> list[tuple[str, str | None]]:
    pairs: list[tuple[str, str | None]] = []
    for word in extra:
        if word.startswith("--"):
            pairs.append((word, None))
        elif pairs:
            pairs[-1] = (pairs[-1][0], word)
    return pairs


def _keyword(option: str, value: str | None) -> str:
    name = option.removeprefix("--").replace("-", "_")
    if value is None:
        return f"{name.removeprefix('no_')}={not name.startswith('no_')}"
    plain = value.isprintable() and not set(value) & set('"\\')
    return f'{name}="{value}"' if plain else f"{name}={value!r}"
