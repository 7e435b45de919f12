"""The state of the interpreter that a job may have changed, restored for the next job.

This is: hooks, settings of the interpreter, arguments and path, the environment, context variables, and the
settings of some modules (`workers.isolation.module_settings`). Imported modules stay, and so do the variables of
the user's modules.

A check reads all values by C functions and compares them at once. Only after a difference is each one compared
and restored.
"""

from __future__ import annotations

import builtins
import contextvars
import gc
import os
import sys
import threading
import time
import warnings  # noqa: F401  (looked at like any module that is there)
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import call
from typing import Any

from workers.isolation.module_settings import WATCHED_MODULES, Setting, attributes, contents, present
from workers.process.shadowed_modules import is_of_the_script

_MISSING = object()
# Built-in functions that programs replace; the others are checked rarely.
_OFTEN_PATCHED = ("print", "open", "input", "__import__", "exec", "eval", "compile", "breakpoint")
_MONITORING_TOOLS = range(6)


class _Builtins:
    """noted: as read in the zygote; reading them in each worker would copy memory pages."""

    noted: dict[str, Any] | None = None


def _builtins() -> dict[str, Any]:
    return {name: value for name, value in vars(builtins).items() if name != "_"}


def note_builtins() -> None:
    """Take the built-in functions as they are now for the ones that jobs get, also in forks of this process."""
    _Builtins.noted = _builtins()


class PythonState:
    """The state of this interpreter before any job ran."""

    def __init__(self) -> None:
        self.context = contextvars.copy_context()  # the initial context variables
        self._builtins = _Builtins.noted or _builtins()
        self._environ = os.environ
        self._environment = dict(os.environ._data)  # type: ignore[attr-defined]
        self._path = sys.path
        self._entries = list(sys.path)
        self._settings = list(_settings())
        self._probes: list[Callable[[], Any]] = []
        self._expected: list[Any] = []
        self._awaited = dict(WATCHED_MODULES)
        self._modules = 0
        self._notice_modules(late=False)

    def environment_of_jobs(self) -> dict[str, str]:
        """The variables that each job begins with."""
        return {os.fsdecode(name): os.fsdecode(value) for name, value in self._environment.items()}

    def change_environment(self, values: Mapping[str, str | None]) -> None:
        """Let jobs begin with these variables from now on, beside the others; None: without it."""
        for name, value in values.items():
            if value is None:
                self._environment.pop(os.fsencode(name), None)
            else:
                self._environment[os.fsencode(name)] = os.fsencode(value)
        self._restore_environment()

    def restore(self) -> None:
        """Restore what has changed; takes a few microseconds if nothing has. Never raises."""
        modules = self._modules
        if len(sys.modules) != modules:
            self._notice_modules(late=True)
        try:
            same = (
                os.environ is self._environ
                and self._environ._data == self._environment  # type: ignore[attr-defined]
                and sys.path is self._path
                and self._path == self._entries
                and list(map(call, self._probes)) == self._expected
            )
        except Exception:  # a comparison of the user's, or something was deleted
            same = False
        if not same:
            self._restore_environment()
            self._restore_path(modules)
            for setting in self._settings:
                setting.restore()
            self._expected = [setting.value for setting in self._settings]

    def restore_rarest(self) -> None:
        """Restore all built-in functions. Names that were added stay."""
        for name, value in self._builtins.items():
            if vars(builtins).get(name, _MISSING) is not value:
                setattr(builtins, name, value)

    def _notice_modules(self, *, late: bool) -> None:
        """Add the settings of modules that were imported since the last call."""
        self._modules = len(sys.modules)
        for name in [name for name in self._awaited if name in sys.modules]:
            known = self._awaited.pop(name)
            if not is_of_the_script(sys.modules[name]):  # it may have a file of that name
                self._settings += known(sys.modules[name], late)
        self._probes = [setting.read for setting in self._settings]
        self._expected = [setting.value for setting in self._settings]

    def _restore_environment(self) -> None:
        os.environ = environ = self._environ
        before = self._environment
        data: dict[bytes, bytes] = environ._data  # type: ignore[attr-defined]
        if data == before:
            return
        zone = data.get(b"TZ")
        for key in [key for key in data if key not in before]:
            del os.environb[key]
        for key, value in before.items():
            if data.get(key) != value:
                os.environb[key] = value
        if zone != before.get(b"TZ"):
            time.tzset()

    def _restore_path(self, modules: int) -> None:
        """An entry from which a job has imported something stays: what it has imported is there
        for later jobs, and may import more from it."""
        sys.path = self._path
        if self._path == self._entries:
            return
        added = [entry for entry in self._path if entry not in self._entries]
        kept = []
        if added:
            files = [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())[modules:]]
            kept = [entry for entry in added if any(_touch(str(entry), file) for file in files)]
        if kept and [entry for entry in self._path if entry not in added] == self._entries:
            self._entries = [entry for entry in self._path if entry in kept or entry not in added]
        self._path[:] = self._entries


def _touch(entry: str, file: str) -> bool:
    """Whether a module's file lies below an entry of the path, or the entry below its package."""
    if not entry or not file:
        return False
    entry = os.path.abspath(entry)
    if file.startswith(entry.rstrip(os.sep) + os.sep):
        return True
    package, name = os.path.split(file)
    return name == "__init__.py" and entry.startswith(package + os.sep)


def _settings() -> Iterator[Setting]:
    yield present(sys.getrecursionlimit, sys.setrecursionlimit)
    yield present(sys.getswitchinterval, sys.setswitchinterval)
    yield present(sys.get_int_max_str_digits, sys.set_int_max_str_digits)
    yield present(gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable())
    yield present(gc.get_threshold, lambda values: gc.set_threshold(*values))
    yield present(gc.get_debug, gc.set_debug)
    yield present(sys.gettrace, sys.settrace)
    yield present(sys.getprofile, sys.setprofile)
    yield present(threading.stack_size, threading.stack_size)
    yield present(partial(vars(sys).get, "tracebacklimit", _MISSING), _limit_tracebacks)
    yield attributes(threading, "excepthook", "_trace_hook", "_profile_hook")
    hooks = ("excepthook", "unraisablehook", "displayhook", "breakpointhook")
    yield attributes(sys, *hooks, "argv", "dont_write_bytecode")
    yield contents(sys.argv)
    yield attributes(builtins, *_OFTEN_PATCHED)
    yield present(partial(vars(time).get, "tzname"), lambda _: time.tzset())
    if hasattr(sys, "monitoring"):
        yield _monitoring(sys.monitoring)


def _limit_tracebacks(limit: Any) -> None:
    if limit is _MISSING:
        del sys.tracebacklimit
    else:
        sys.tracebacklimit = limit


def _monitoring(monitoring: Any) -> Setting:
    """Tools (profilers, debuggers) that were not there: only one of each kind can be."""

    def read() -> list[str | None]:
        return list(map(monitoring.get_tool, _MONITORING_TOOLS))

    def write(tools: list[str | None]) -> None:
        for tool, before, now in zip(_MONITORING_TOOLS, tools, read(), strict=True):
            if before is None and now is not None:
                monitoring.set_events(tool, 0)
                monitoring.free_tool_id(tool)

    return present(read, write)
