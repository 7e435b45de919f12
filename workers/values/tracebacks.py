"""An exception of the user's code as text (`messages.Failure`).

An exception is never sent as an object: unpickling it may run anything, or break. Nothing
that a user's class does in `__str__` or `__repr__` may harm the worker.
"""

from __future__ import annotations

import linecache
import os
import sysconfig
import traceback
from types import FrameType, TracebackType

from workers.transport.messages import Failure

MAX_TEXT = 64 * 1024  # characters of a traceback or a repr that are kept
_MAX_MESSAGE = 8 * 1024
_MAX_FRAMES = 200  # of a recursion, the first and last halves of these

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# A job may call into us: run() refuses to be called by one.
OURS = tuple(os.path.join(_ROOT, package, "") for package in ("workers", "supervisor"))


def _library_directories() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({os.path.join(paths[name], "") for name in names if paths.get(name)})


_LIBRARIES = _library_directories()


def describe(error: BaseException) -> Failure:
    """Type, message, traceback and place of an exception."""
    try:
        frames = _user_frames(error.__traceback__)
        return Failure(
            type=_type_name(error),
            message=clip(encodable(safe_str(error)), _MAX_MESSAGE),
            traceback=clip(encodable(_format(error, frames)), MAX_TEXT),
            where=encodable(_where(frames)),
            errno=error.errno if isinstance(error, OSError) and isinstance(error.errno, int) else None,
        )
    except Exception as trouble:  # no memory, or an exception whose attributes raise
        name = type(error).__name__
        return Failure(type=encodable(name), message=f"(cannot be described: {type(trouble).__name__})")


def safe_str(error: BaseException) -> str:
    """`str(error)`, or a note if that raises."""
    try:
        return str(error)
    except BaseException as trouble:
        return f"(its __str__ raised {type(trouble).__name__})"


def safe_repr(value: object) -> str:
    """`repr(value)`, bounded, or a note if that raises."""
    try:
        return clip(encodable(repr(value)), MAX_TEXT)
    except BaseException as trouble:
        return f"<{type(value).__name__} whose __repr__ raised {type(trouble).__name__}>"


def clip(text: str, limit: int) -> str:
    """Head and tail of a text that is too long."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def encodable(text: str) -> str:
    """Lone surrogates as escapes: UTF-8 cannot encode them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def _type_name(error: BaseException) -> str:
    kind = type(error)
    module = kind.__module__
    plain = module in ("builtins", "__main__", "__mp_main__") or not isinstance(module, str)
    return encodable(kind.__qualname__ if plain else f"{module}.{kind.__qualname__}")


def _user_frames(trace: TracebackType | None) -> list[tuple[FrameType, int]]:
    """Frames with line numbers, outermost first, without those of this package that come
    before the user's code."""
    frames = list(traceback.walk_tb(trace))
    start = 0
    while start < len(frames) and frames[start][0].f_code.co_filename.startswith(OURS):
        start += 1
    return frames[start:]


def _where(frames: list[tuple[FrameType, int]]) -> str:
    """The innermost place in the user's own code, else the innermost of all."""
    if not frames:
        return ""
    files = [frame.f_code.co_filename for frame, _ in frames]
    frame, line = frames[innermost_own(files)]
    return place(frame.f_code.co_filename, line)


def innermost_own(files: list[str]) -> int:
    """Which of the files of a stack, outermost first, is the innermost one of the user's own code:
    no library, nothing of this package. What was typed or made (`<stdin>`) only if there is no file;
    -1 if there is neither."""
    own = [i for i, name in enumerate(files) if not name.startswith(OURS + _LIBRARIES)]
    of_files = [i for i in own if not files[i].startswith("<")]
    typed = [i for i in own if not files[i].startswith("<frozen ")]
    return (of_files or typed or [-1])[-1]


def place(file: str, line: int | str) -> str:
    """`script.py:12`"""
    return f"{os.path.basename(file)}:{line}"


def _format(error: BaseException, frames: list[tuple[FrameType, int]]) -> str:
    """The text that Python prints, without our own frames at its top."""
    ours = len(list(traceback.walk_tb(error.__traceback__))) - len(frames)
    try:
        linecache.checkcache()
        report = traceback.TracebackException(
            type(error), error, error.__traceback__, limit=None, compact=True, lookup_lines=False
        )
        del report.stack[:ours]
        if len(report.stack) > _MAX_FRAMES:
            del report.stack[_MAX_FRAMES // 2 : -_MAX_FRAMES // 2]
        return "".join(report.format())
    except Exception:  # a __str__ or __notes__ that raises something unusual
        lines = [f'  File "{f.f_code.co_filename}", line {n}, in {f.f_code.co_name}\n' for f, n in frames]
        return f"{''.join(lines[-_MAX_FRAMES:])}{_type_name(error)}: {safe_str(error)}\n"
