"""The page of error messages names messages that the program has, and all that end a run."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from supervisor.core.terms import errors
from tests.docs.conftest import DOCS, ROOT, prose

PAGE = DOCS / "troubleshooting.md"
ANY = "\0"  # a part of a message that differs each time
# Headings with words of other programs.
OF_OTHERS = {
    "longhaul: command not found",
    "cannot import name 'Job' from 'supervisor'",
    "No space left on device",
}
_TEXT = re.compile(r"`([^`]+)`")
_HEADING = re.compile(r"^### (.+)$", re.MULTILINE)

# Errors that end a run, and say by themselves what to do.
ENOUGH = {
    "is being run; stop it first",  # longhaul rm
    "is not a file: --format sqlite writes one",
    "resume: it writes the final files again",
    "was cut short while it was in use. Resume: it is rebuilt",
    "is missing; resume with the script that made it",
    "No result was touched; fix the disk, then resume",
    "cannot be repaired",
    "make it readable or fix the disk, then start again",
    "Nothing was changed; fix the disk, then resume",
    "What is left can be removed by the same command",
    "make room there or set TMPDIR",
    "Choose another directory with --output DIR",
    "Choose another place with --output DIR",
    "TMPDIR says where",
    "Choose another file with -o FILE",
    "Choose another file for the report",
    "no agent of a node can be started",
    "the Ray driver cannot be started: \0. Fix this, then start again",
    "cannot be read: \0. Make it readable, then try again",
    "Make it readable or fix the disk, then try again",
    "Nothing was removed; make it readable, then try again",
    "cannot be read: \0. Fix the disk, then resume",
}
# Errors whose text is made elsewhere: module and argument, and a heading of the page.
MADE_ELSEWHERE = {
    ("survey", "damage_messages.different_experiments(found.layout)"): "belong to different experiments",
    (
        "survey",
        "damage_messages.nothing_usable(found.layout, self.reason, journal_there=found.journal_fd >= 0)",
    ): "cannot be resumed: …, and …. Put one of the two back from a backup",
    (
        "run_session",
        "user_messages.no_workers(self.request, opened, failure)",
    ): "no worker could start; its last error",
    ("nodes_engine", "'; '.join(self._refused)"): "use the same installation on all nodes",
    ("output_directory", "f'{text}. {own}' if option == '--output' else text"): (
        "… is a file; longhaul needs a directory there"
    ),
    ("opening", "failure"): "the disk failed under …",
    ("execution", "problem"): "What was recorded is safe; fix the disk, then …",
    ("run_session", "problem"): "What was recorded is safe; fix the disk, then …",
    ("planning", "error"): "of the script raised",
    ("execution", "error"): "of the script raised",
    ("driver_process", "f'--engine ray: {self.why_over()}'"): "its driver ended (exit code …)",
    ("driver_process", "f'--engine ray: {self.problem.why}'"): "cannot join the Ray cluster at",
}


def says(message: str, heading: str) -> bool:
    """Whether the message has these words, in this order; `…` is anything."""
    at = 0
    for words in heading.split("…"):
        at = message.find(words, at) + len(words)
        if at < len(words):
            return False
    return True


def headings() -> list[str]:
    """The messages in the headings of the page."""
    return [text for line in _HEADING.findall(prose(PAGE)) for text in _TEXT.findall(line)]


def template(node: ast.AST) -> str | None:
    """A text of the source, with ANY for each part that differs."""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or ANY for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def templates(tree: ast.AST) -> list[str]:
    """All texts but docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (template(node) for node in ast.walk(tree) if id(node) not in docstrings)
    return [text for text in texts if text]


@cache
def sources() -> dict[str, ast.Module]:
    files = [file for room in ("supervisor", "workers") for file in sorted((ROOT / room).rglob("*.py"))]
    return {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


@cache
def messages() -> list[str]:
    return [text for tree in sources().values() for text in templates(tree) if len(text) > 8]


def ending_errors() -> list[tuple[str, ast.Call]]:
    """Calls that make an error with which a run ends, other than of usage and of failed jobs: place, call."""
    names = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.LonghaulError)
        and kind.exit_code not in (errors.USAGE, errors.SOME_FAILED)
    } - {"LonghaulError"} | {"RaisedByScript", "with_advice"}
    found = []
    for path, tree in sources().items():
        if path == Path(errors.__file__).relative_to(ROOT).as_posix():
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _called(node.func) in names:
                found.append((f"{path}:{node.lineno}", node))
    return found


def _called(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def test_the_page_has_a_heading_for_each_message() -> None:
    assert len(headings()) > 80
    assert all(_TEXT.search(line) for line in _HEADING.findall(prose(PAGE)))


def test_the_program_has_a_message_with_the_words_of_each_heading() -> None:
    known = set(headings()) - OF_OTHERS
    assert [one for one in known if len(one.replace("…", "").strip()) <= 8] == [], "too few words to look for"
    assert [one for one in sorted(known) if not any(says(text, one) for text in messages())] == []


def test_every_error_that_ends_a_run_is_on_the_page_or_says_enough() -> None:
    known = headings()
    enough = set(ENOUGH)
    elsewhere = set(MADE_ELSEWHERE)
    missing = []
    for place, call in ending_errors():
        assert call.args, place
        argument = ast.unparse(call.args[0])
        made = (Path(place.partition(":")[0]).stem, argument)
        if made in MADE_ELSEWHERE:
            assert MADE_ELSEWHERE[made] in known
            elsewhere.discard(made)
            continue
        texts = templates(call)
        said = {words for words in ENOUGH if any(words in text for text in texts)}
        enough -= said
        if not said and not any(says(text, heading) for heading in known for text in texts):
            missing.append(f"{place}: {argument}")
    assert not missing, "neither on docs/troubleshooting.md nor in ENOUGH:\n" + "\n".join(missing)
    assert not enough, f"no error says this any more: {enough}"
    assert not elsewhere, f"no error is made of this any more: {elsewhere}"
