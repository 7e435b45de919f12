"""Parses stacks that `faulthandler` has written, and formats them without our own frames.

After a crash they are in the output of the worker, so other output may be before, after and between the lines.
On a signal the worker writes them into a separate file.
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
# Functions that call the user's code: outer frames are left out.
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
    """The position of a job. where: `script.py:12`, "" if unknown. text: most recent call last."""

    where: str
    function: str
    text: str


def threads_in(text: str) -> list[Thread]:
    """All stacks in a text, in order."""
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
    """Undo faulthandler's escapes of characters outside of ASCII."""
    found: str = _escape.sub(lambda match: chr(int(match[0][2:], 16)), file)
    return found if found != file and os.path.exists(found) else file


def stack_in(text: str, *, crash: bool = False) -> Stack | None:
    """The job's stack in a text: that of the thread that runs jobs or, after a crash, of the crashed one. None
    if there are no stacks."""
    threads = threads_in(text)
    if not threads:
        return None
    at_job = [thread for thread in threads if thread.at_job]
    current = [thread for thread in threads if thread.current and thread.frames]
    # The main thread is last; of a deep recursion faulthandler writes the innermost hundred frames.
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
    """In the format of a Python traceback."""
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


_OF_PROGRAMS = "/workers/program/"  # in the stack of a worker that waits for the end of a program


def cleaned(text: str) -> str:
    """A text with its stacks, without our frames and the list of extension modules. Threads that run no code of
    the user are left out."""
    kept: list[str] = []
    threads = iter(threads_in(text))
    for line in text.splitlines():
        if _thread.match(line):
            thread = next(threads)
            if thread.frames or not thread.at_job:
                kept.append(line)
                kept += [f'  File "{f.file}", line {f.line} in {f.function}' for f in thread.frames]
            elif thread.current:
                kept += [
                    line,
                    "  in the program that it runs" if _OF_PROGRAMS in text else "  between two jobs",
                ]
        elif not (_frame.match(line) or _extensions.match(line)):
            kept.append(line)
    return "\n".join(kept).strip("\n")


def crash_in(text: str) -> int:
    """The index at which the last crash report begins; -1 if there is none."""
    found = text.rfind(f"\n{_FATAL}")
    if found >= 0:
        return found + 1
    return 0 if text.startswith(_FATAL) else -1


def before_stack(text: str) -> str:
    """The end of a log without the stack of a stopped job, if it ends with one."""
    before, found, stack = text.rpartition(HEADING)
    of_stack = all(line.startswith("  ") or line.endswith(_LAST) for line in stack.strip("\n").splitlines())
    return before.rstrip("\n") if found and of_stack else text


def printed_tail(path: str, lines: int = 20) -> str:
    """The last lines of a job's log, without the stack of a stopped job."""
    text = before_stack(tail(path, lines + _MOST_LINES, 2 * MAX_TEXT))
    return "\n".join(text.split("\n")[-lines:])
