"""Uncaught errors: of the script's own code in this process, or of ours.

Python would show them with exit code 1, which says here that some of the jobs failed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from types import TracebackType

from supervisor.core.terms.errors import SCRIPT_ERROR, RaisedByScript
from supervisor.views.console import print_lines

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_OURS = tuple(os.path.join(_ROOT, package, "") for package in ("supervisor", "workers"))


def show(error: Exception) -> int:
    """Print the traceback and one line about what is safe; the exit code."""
    raised = error if isinstance(error, RaisedByScript) else None
    shown = error if raised is None else raised.error
    if raised is not None:
        from_user(shown)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    try:
        sys.excepthook(type(shown), shown, shown.__traceback__)  # the script may have one of its own
    except Exception:
        sys.__excepthook__(type(shown), shown, shown.__traceback__)
    if raised is not None:
        where, known = f"{raised.where} of the script raised {type(shown).__name__}", raised.known
    else:
        where, known = "this error is not from a job", "What was recorded is safe; continue with --resume."
    print_lines(sys.stderr, f"error: {where}, see above. {known}")
    return SCRIPT_ERROR


def from_user(error: Exception) -> Exception:
    """The same error, with a traceback that begins in the user's code."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    return error.with_traceback(trace)


def _is_ours(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith(_OURS)
