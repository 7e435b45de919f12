"""Exit functions and finalizers run once, in the process that registered them.

A fork inherits them all. A worker would delete the temporary directory of the script when it leaves,
while the other workers use it; so a worker starts with none, and so does what a job forks.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import sys
import weakref
from collections.abc import Collection, Iterator
from types import FrameType
from typing import Any, NoReturn

from workers.process.shadowed_modules import is_of_the_script
from workers.values.tracebacks import describe

_NEXT_SECONDS = 0.05  # seconds for each of the others when the time is up
_FINALIZE_REGISTERED = "_registered_with_atexit"  # by weakref.finalize, which asks atexit once


def drop_inherited_exit_functions() -> None:
    """What was registered so far belongs to another process: here it never runs, neither at the
    end nor when an object is collected. What is registered from now on does."""
    atexit._clear()
    _drop_inherited_finalizers()
    # Some modules register on import what their later use relies on.
    util, logging = sys.modules.get("multiprocessing.util"), sys.modules.get("logging")
    if logging is not None and not is_of_the_script(logging):
        atexit.register(logging.shutdown)
    if util is not None:
        atexit.register(util._exit_function)


def drop_inherited_children() -> None:
    """The children of another process, which multiprocessing would end with this one."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children = set()  # type: ignore[attr-defined]


def _drop_inherited_finalizers() -> None:
    finalize: Any = weakref.finalize
    if not isinstance(getattr(finalize, "_registry", None), dict):
        return
    for info in list(finalize._registry.values()):
        info.atexit = False
        referent = info.weakref()
        if referent is not None:
            info.weakref = weakref.ref(referent)  # without the call when it is collected
    setattr(finalize, _FINALIZE_REGISTERED, False)


class _TooLong(BaseException):
    """What runs takes too long."""


def run_exit_functions_within(seconds: float, modules: Collection[str]) -> None:
    """`run_exit_functions`; what takes longer is broken off."""
    signal.signal(signal.SIGALRM, _break_off)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.setitimer(signal.ITIMER_REAL, seconds, _NEXT_SECONDS)
    with contextlib.suppress(_TooLong):
        run_exit_functions(modules)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _break_off(signum: int, frame: FrameType | None) -> None:
    raise _TooLong


def run_exit_functions(modules: Collection[str]) -> None:
    """The end of an interpreter, as far as the user's code can see it: exit functions, objects of
    these modules that want to know, buffers."""
    # Private: public is no way to run exit functions but to exit, which runs ours as well. Guarded by
    # test_exit_functions_run_once_where_they_were_registered.
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for module, name, value in _globals_of(modules):
        with contextlib.suppress(BaseException):
            if hasattr(value, "_closer"):  # a file of tempfile, which goes with its name
                value.close()
            elif hasattr(type(value), "__del__") and not isinstance(value, type):
                delattr(module, name)
    flush_files(modules)


def flush_files(modules: Collection[str]) -> None:
    """What was written to files that these modules have opened, and the standard streams."""
    for _, _, value in _globals_of(modules):
        if isinstance(value, io.TextIOBase | io.BufferedWriter | io.BufferedRandom):
            with contextlib.suppress(Exception):
                value.flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _globals_of(modules: Collection[str]) -> Iterator[tuple[Any, str, Any]]:
    for name in modules:
        module = sys.modules.get(name)
        if module is not None:
            for key, value in list(vars(module).items()):
                yield module, key, value


def exit_fork(error: BaseException | None) -> NoReturn:
    """End a child that a job has forked, as the interpreter would: by what came out of the function,
    None if it has returned."""
    code = 1
    try:
        if error is None or (isinstance(error, SystemExit) and error.code is None):
            code = 0
        elif isinstance(error, SystemExit):
            if isinstance(error.code, int):
                code = error.code
            else:
                print(error.code, file=sys.stderr)
        else:
            sys.stderr.write(describe(error).traceback)
        _join_threads()
        atexit._run_exitfuncs()  # private: see run_all
        flush_files(("__main__",))
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        os._exit(code & 0xFF)


def _join_threads() -> None:
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        # Private: the interpreter calls it at its end, and so does multiprocessing in its children.
        # Guarded by the "late thread" in tests/real_scripts/test_children.py.
        threading._shutdown()
