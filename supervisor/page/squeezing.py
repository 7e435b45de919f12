"""Scripts and styles without what only their readers need. Pure.

Nothing is renamed and nothing is moved, so a script says in a browser's console what it says in its file. It relies on
the way in which the modules here are formatted: one statement a line, each ended by a semicolon.
"""

from __future__ import annotations

import re


def _template(depth: int) -> str:
    """A pattern for a template text, in whose `${...}` stand templates and braces, so many levels deep."""
    return rf"`(?:[^`\\$]|\\.|\$(?!\{{)|\$\{{{_code(depth)}\}})*`"


def _code(depth: int) -> str:
    inner = "" if not depth else rf"|{_template(depth - 1)}|\{{{_code(depth - 1)}\}}"
    return rf"(?:[^`{{}}\"']|{_QUOTED}{inner})*"


_QUOTED = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
# A pattern stands where no value can have ended.
_PATTERN = r"(?:(?<=[(,=:?&|!{;])|(?<=[(,=:?&|!{;] ))/(?![/*])(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/\w*"
_COMMENT = r"//[^\n]*|/\*.*?\*/"
_HOLE = re.compile(rf"\$\{{({_code(3)})\}}", re.DOTALL)
_NO_CODE = re.compile(rf"({_COMMENT}|{_QUOTED}|{_template(3)}|{_PATTERN})", re.DOTALL)


def squeezed(code: str) -> str:
    """JavaScript without comments, and without spaces and line ends that it does not need: where the end of a line
    may be that of a statement, it stays. Texts and patterns are left as they are."""
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        text = found.group()
        if text.startswith(("//", "/*")):
            return ""
        kept.append(_HOLE.sub(lambda hole: f"${{{squeezed(hole[1])}}}", text) if text[0] == "`" else text)
        return f"\0{len(kept) - 1}\0"

    text = _NO_CODE.sub(keep, code)
    text = re.sub(r"^( *)const .*;\n(?:\1const .*;\n)+", _one_statement, text, flags=re.MULTILINE)
    text = re.sub(r"[ \t]*\n\s*", "\n", text)
    text = re.sub(r" *([{}()\[\];:,<>=?&|*/!%]) *| *(\0\d+\0) *", r"\1\2", text)
    text = re.sub(r"(?<![\w.])0(?=\.\d)", "", text)
    text = re.sub(r"(?<=[^-+\s]) ?([-+]) ?(?=[^-+\s])", r"\1", text)
    text = re.sub(r"(?<=[{(\[;,])\n", "", re.sub(r"[,;]?\n(?=[)\]}])", "", text))
    text = re.sub(r"(?<=[(,=:?&|{;\[])\((\w+)\)=>", r"\1=>", text.replace(";}", "}"))
    return re.sub(r"\0(\d+)\0", lambda mark: kept[int(mark[1])], text).strip()


def _one_statement(lines: re.Match[str]) -> str:
    """Of declarations below each other, which end with their lines."""
    return lines.group().replace(f";\n{lines.group(1)}const ", ",\n")


def squeezed_style(text: str) -> str:
    text = re.sub(r" *([{};:,>]) *", r"\1", re.sub(r"\s+|/\*.*?\*/", " ", text)).replace(";}", "}")
    return re.sub(r"(?<![\w.])0(?=\.\d)", "", text).strip()
