"""Exit functions and finalizers run once, in the process that registered them.

A fork inherits them all. A worker would delete the temporary directory of the script at its exit, while other
workers use it. So a worker starts with none, and so do the children that a job forks.
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

from workers.isolation.captured_output import CapturedOutput
from workers.process.shadowed_modules import is_of_the_script
from workers.values.tracebacks import describe

_NEXT_SECONDS = 0.05  # seconds for each further function when the time is up
_FINALIZE_REGISTERED = "_registered_with_atexit"  # set by weakref.finalize, which registers with atexit once


def drop_inherited_exit_functions() -> None:
    """Forget the exit functions and finalizers that another process has registered: they run neither at the end
    nor when an object is collected. Those registered from now on do."""
    atexit._clear()
    _drop_inherited_finalizers()
    # Some modules register functions on import that their later use needs.
    util, logging = sys.modules.get("multiprocessing.util"), sys.modules.get("logging")
    if logging is not None and not is_of_the_script(logging):
        atexit.register(logging.shutdown)
    if util is not None:
        atexit.register(util._exit_function)


def drop_inherited_children() -> None:
    """Forget children of another process, which multiprocessing would terminate with this one."""
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
            info.weakref = weakref.ref(referent)  # without a callback at its collection
    setattr(finalize, _FINALIZE_REGISTERED, False)


class _TooLong(BaseException):
    """An exit function takes too long."""


def run_exit_functions_within(seconds: float, modules: Collection[str]) -> None:
    """`run_exit_functions`, interrupted after so many seconds."""
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
    """What an interpreter does at its end, as far as the user's code can notice: run exit functions, delete
    globals with finalizers in these modules, flush files."""
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
    """Flush files in the globals of these modules, and the standard streams."""
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
    """End a child that a job has forked, as the interpreter would. `error`: raised by the job's function, None
    if it has returned."""
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
        atexit._run_exitfuncs()  # private: see `run_exit_functions`
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


def exit_process(
    output: CapturedOutput | None, code: int, modules: Collection[str] = (), *, stopped: bool
) -> NoReturn:
    """End this process: exit functions and buffers, but no waiting for threads or children.

    A worker that a signal from outside has asked to stop ends by SIGTERM, so that its end does not look like
    a crash.
    """
    run_exit_functions(modules)
    flush_files(("__main__",))
    if output is not None:
        output.close()
    if stopped:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(code)
