"""Stacks as `faulthandler` writes them: read, and told without our own frames.

At a crash a worker writes them where it prints to, so other output may stand before, behind and between
the lines. Asked by a signal it writes them into a file of its own.
"""

from __future__ import annotations

import linecache
import os
import re
from itertools import groupby
from typing import NamedTuple

from workers.isolation.output_files import tail
from workers.values.tracebacks import MAX_TEXT, OURS, clip, innermost_own, place

HEADING = "--- stopped ---"  # in the log of a job, before the stack at which it was ended
_LAST = "(most recent call last):"
_FATAL = "Fatal Python error: "
_MOST_LINES = 2000  # of a stack
_MOST_SOURCE = 200  # characters of a line of code
_SAME = 3  # frames of a recursion that are shown

_thread = re.compile(r"(Current thread|Thread) (0x[0-9a-f]+).*\(most recent call first\):$")
_frame = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)$')
_escape = re.compile(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}")
_extensions = re.compile(r"Extension modules: .*\(total: \d+\)$")
# Where code of the user is called from: what is further out is of no interest to anybody.
_CALLERS = tuple(os.path.join(OURS[0], name) for name in ("runner.py", "worker.py", "zygote.py"))


class Frame(NamedTuple):
    file: str
    line: str
    function: str


class Thread(NamedTuple):
    """Frames innermost first, without ours. `at_job`: the thread that runs the jobs."""

    heading: str
    current: bool
    at_job: bool
    frames: list[Frame]


class Stack(NamedTuple):
    """Where a job was. where: `script.py:12`, "" if that is not known. text: most recent call last."""

    where: str
    function: str
    text: str


def threads_in(text: str) -> list[Thread]:
    """All stacks that stand in a text, in its order."""
    threads: list[Thread] = []
    frames: list[Frame] = []
    for line in text.splitlines():
        if heading := _thread.match(line):
            frames = []
            threads.append(Thread(line, heading[1].startswith("Current"), False, frames))
        elif threads and (found := _frame.match(line)):
            frames.append(Frame(_readable(found[1]), found[2], found[3]))
    return [_without_ours(thread) for thread in threads]


def _without_ours(thread: Thread) -> Thread:
    frames = thread.frames
    edge = next((i for i, frame in enumerate(frames) if frame.file in _CALLERS), None)
    kept = [frame for frame in frames[:edge] if not frame.file.startswith(OURS)]
    return thread._replace(at_job=edge is not None, frames=kept)


def _readable(file: str) -> str:
    """faulthandler writes what is not ASCII as escapes."""
    found: str = _escape.sub(lambda match: chr(int(match[0][2:], 16)), file)
    return found if found != file and os.path.exists(found) else file


def stack_in(text: str, *, crash: bool = False) -> Stack | None:
    """Where the job was by the stacks of a text: in the thread that runs jobs or, in a crash, in the
    one that has crashed. None if there are no stacks."""
    threads = threads_in(text)
    if not threads:
        return None
    at_job = [thread for thread in threads if thread.at_job]
    current = [thread for thread in threads if thread.current and thread.frames]
    # The main thread stands last; of a deep recursion only the innermost hundred frames are shown.
    main = ((current if crash else []) or at_job or current or threads[-1:])[0]
    frames = main.frames[::-1]
    found = _innermost_own(frames)
    others = [thread for thread in threads if thread is not main and thread.frames]
    parts = [f"another thread {_LAST}\n{_told(thread.frames[::-1])}" for thread in others]
    if frames:
        parts.append(f"stopped here {_LAST}\n{_told(frames)}")
    if found is None:
        return Stack("", "", "".join(parts))
    return Stack(place(found.file, found.line), found.function, "".join(parts))


def _innermost_own(frames: list[Frame]) -> Frame | None:
    known = [frame for frame in frames if frame.line.isdigit()]  # it may be about to enter a function
    return known[innermost_own([frame.file for frame in known])] if known else None


def _told(frames: list[Frame]) -> str:
    """As Python tells a traceback."""
    lines = []
    for frame, same in groupby(frames):
        times = len(list(same))
        told = f'  File "{frame.file}", line {frame.line}, in {frame.function}\n'
        source = linecache.getline(frame.file, int(frame.line)).strip() if frame.line.isdigit() else ""
        if source:
            told += f"    {clip(source, _MOST_SOURCE)}\n"
        lines.append(told * min(times, _SAME))
        if times > _SAME:
            lines.append(f"  [Previous line repeated {times - _SAME} more times]\n")
    return "".join(lines)


def cleaned(text: str) -> str:
    """A text with the stacks in it as they were written, but for frames of ours and for the list of
    all extension modules. A thread that is in no code of the user is left out."""
    kept: list[str] = []
    threads = iter(threads_in(text))
    for line in text.splitlines():
        if _thread.match(line):
            thread = next(threads)
            if thread.frames or not thread.at_job:
                kept.append(line)
                kept += [f'  File "{f.file}", line {f.line} in {f.function}' for f in thread.frames]
            elif thread.current:
                kept += [line, "  between two jobs"]
        elif not (_frame.match(line) or _extensions.match(line)):
            kept.append(line)
    return "\n".join(kept).strip("\n")


def crash_in(text: str) -> int:
    """Where the last report of a crash begins in a text; -1 if there is none."""
    found = text.rfind(f"\n{_FATAL}")
    if found >= 0:
        return found + 1
    return 0 if text.startswith(_FATAL) else -1


def before_stack(text: str) -> str:
    """The end of a log without the stack that a job was stopped at, if that is the end of it."""
    before, found, stack = text.rpartition(HEADING)
    of_stack = all(line.startswith("  ") or line.endswith(_LAST) for line in stack.strip("\n").splitlines())
    return before.rstrip("\n") if found and of_stack else text


def printed_tail(path: str, lines: int = 20) -> str:
    """The last lines of a job's log, but not of the stack that it was stopped at."""
    text = before_stack(tail(path, lines + _MOST_LINES, 2 * MAX_TEXT))
    return "\n".join(text.split("\n")[-lines:])
