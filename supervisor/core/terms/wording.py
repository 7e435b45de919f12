"""Durations, clock times, sizes and counts as people read them. Pure.

No clock is read here: the time of day is a parameter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta
from signal import Signals
from typing import Any

# Control, format, surrogate, line and paragraph separators; and what steers a terminal.
_CONTROL = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def duration(seconds: float) -> str:
    """`0.4s`, `42s`, `3m 20s`, `2h 13m`, `3d 4h`: the two units that matter."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s" if seconds else "0s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY:,}d {whole % _DAY // _HOUR}h"


def clock(now: datetime, seconds: float) -> str:
    """The time of day `seconds` after `now`: `06:40`, later than that `Tue 06:40`, in a week
    or more `2025-11-03`; beyond what a calendar holds `in years`."""
    try:
        then = now + timedelta(seconds=max(0.0, seconds))
    except OverflowError:
        return "in years"
    if then - now < timedelta(hours=18):
        return then.strftime("%H:%M")
    if then - now < timedelta(days=6):
        return then.strftime("%a %H:%M")
    return then.strftime("%Y-%m-%d")


def ends_about(now: datetime, seconds: float | None) -> str:
    """`ends about 06:40`, or "" while it is unknown."""
    return "" if seconds is None else f"ends about {clock(now, seconds)}"


def size(number: float) -> str:
    """`900B`, `412M`, `1.9G`, in the binary units that the options take."""
    value = max(0.0, float(number))
    for unit in ("B", "K", "M", "G"):
        if value < 999.5:
            return f"{value:.1f}{unit}" if unit != "B" and value < 9.95 else f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.1f}T" if value < 9.95 else f"{value:,.0f}T"


def rate(per_second: float) -> str:
    """`1.2 jobs/s`, `14 jobs/min` or `3.1 jobs/h`, whichever has a readable number."""
    for factor, unit in ((1, "s"), (_MINUTE, "min"), (_HOUR, "h")):
        value = per_second * factor
        if value >= 1 or unit == "h":
            break
    return f"{value:,.0f} jobs/{unit}" if value >= 9.95 else f"{value:.1f} jobs/{unit}"


def count(number: int, noun: str) -> str:
    """`1 job`, `1,250 jobs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def percent(part: int, whole: int) -> str:
    """Rounded down, so that 100% means all."""
    return f"{part * 100 // whole}%" if whole else "0%"


def signal_name(number: int) -> str:
    """`SIGSEGV`, or `signal 37` for one without a name."""
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def one_line(text: str) -> str:
    """Text from outside (a job id, a message), safe to print on one line: without line breaks and without
    control characters, which could steer the terminal."""
    text = _ESCAPE.sub("", text)
    visible = (" " if is_control(c) else c for c in text)
    return " ".join("".join(visible).split())


def as_given(value: Any, write: Callable[[Any], str] = repr) -> str:
    """A value that a user has given, for a message: on one line and short, whatever it is."""
    try:
        return cut(one_line(write(value)), 80)
    except Exception:  # of the user's class, or of a number with too many digits
        return f"a value of type {type(value).__name__}"


def harmless(text: str) -> str:
    """Lines with text from outside (a job id, a message, a path), safe to print. Line breaks, tabs and bytes
    of paths stay, escape sequences are removed, other control characters become blanks."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    text = _ESCAPE.sub("", text)
    return "".join(" " if is_control(c) and not _stays(c) else c for c in text)


def _stays(character: str) -> bool:
    return character in "\n\t" or "\ud800" <= character <= "\udfff"


def harmless_json(text: str) -> str:
    """JSON that means the same, and can be shown on a terminal: JSON itself escapes only some of the control
    characters."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(_escape(c) if is_control(c) and c != "\n" else c for c in text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def is_control(character: str) -> bool:
    """Whether it may steer a terminal, or cannot be seen."""
    return unicodedata.category(character) in _CONTROL


def printed_lines(text: str) -> list[str]:
    """The lines that a job printed, without colours and control characters, with tabs as blanks. Of a
    progress bar only its last state stays."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [_printed_line(line) for line in lines]


def told_lines(text: str) -> list[str]:
    """The lines of an error or a value, likewise. Nothing was printed over: a carriage return in a message hides
    nothing of it, it ends a line."""
    return printed_lines(text.replace("\r\n", "\n").replace("\r", "\n"))


def _printed_line(line: str) -> str:
    line = _ESCAPE.sub("", line.rstrip("\r").rpartition("\r")[2]).expandtabs(4)
    return "".join(c for c in line if not is_control(c))


def shorten(text: str, width: int) -> str:
    """At most `width` characters; the middle is left out, because ids differ at both ends."""
    if len(text) <= width:
        return text
    if width < 3:
        return text[: max(0, width)]
    tail = (width - 1) // 3
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def cut(text: str, width: int) -> str:
    """At most `width` characters of a sentence; the end is left out."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
